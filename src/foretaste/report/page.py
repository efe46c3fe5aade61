"""One self-contained HTML page out of a verdict: for someone who has five minutes to see whether to trust it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.guards.trigger import Trigger
from foretaste.report import figures, wording
from foretaste.report.pictures import data_uri
from foretaste.report.template import Chart, render
from foretaste.report.triggers import TriggerView, view
from foretaste.samples import Mask, Samples

_FLAGGED, _CLOSEST, _ORDINARY, _MISTAKES = 48, 12, 12, 24
"""How many samples each contact sheet shows at most."""
_PANELS = 4
_CLASSES_SHOWN = 5

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One sample on a contact sheet; ``src`` is its picture, or None for feature vectors."""

    id: str
    label: str
    score: float
    flagged: bool
    src: str | None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Some of ``total`` samples, with what they have in common."""

    title: str
    note: str
    total: int
    tiles: tuple[Tile, ...]


def cleanse_page(
    samples: Samples,
    verdict: Verdict,
    summary: Mapping[str, Any],
    *,
    truth_poison: Mask | None = None,
    triggers: Sequence[tuple[Trigger, Samples]] | None = None,
) -> str:
    """Return the HTML report of a ``cleanse`` run.

    Everything that comes from the inspected files (ids, class names, file names) is escaped. The page runs no script
    and loads nothing: style, charts and pictures are inside.

    Args:
        samples: the N inspected samples.
        verdict: what the cleanser said of them.
        summary: what ``summary.json`` holds.
        truth_poison: ``bool (N,)``, which samples are poison, where that is known.
        triggers: those that were reconstructed from what was flagged, and who carries each; None if nobody tried.
    """
    evidence = _by_suspicion(verdict)
    n_shown = sum(entry.condemned for entry in evidence) + _CLASSES_SHOWN
    return render(
        "cleanse.html.j2",
        summary=summary,
        names=[wording.class_name(label, samples.classes) for label in range(len(samples.classes))],
        culprits=[wording.class_name(label, samples.classes) for label in np.unique(samples.labels[verdict.flagged])],
        pictured=samples.images is not None,
        infinity=np.inf,
        run=_run(summary),
        created=datetime.datetime.fromisoformat(summary["created"]),
        evidence_shown=evidence[:n_shown],
        evidence_hidden=evidence[n_shown:],
        triggers=None if triggers is None else [_trigger(trigger, carriers) for trigger, carriers in triggers],
        sheets=_sheets(samples, verdict),
        space=_space(samples, verdict),
        rounds=_rounds(verdict),
        ignorance=wording.figure(float(np.log(len(samples.classes)))),
        scores=_scores(samples, verdict),
        mistakes=[] if truth_poison is None else _mistakes(samples, verdict, truth_poison),
        roc=None if truth_poison is None else _roc(verdict, truth_poison, summary),
    )


def _run(summary: Mapping[str, Any]) -> dict[str, object]:
    """List what one needs to repeat the run."""
    facts: dict[str, object] = {"method": summary["method"], "seed": summary["seed"], "foretaste": summary["version"]}
    facts |= summary["versions"]
    return facts


def _by_suspicion(verdict: Verdict) -> list[ClassEvidence]:
    """Order the classes: condemned first, then by suspects, then by how near the statistic came to the threshold."""

    def key(entry: ClassEvidence) -> tuple[bool, int, float, int]:
        margin = entry.statistic - entry.threshold
        return not entry.condemned, -entry.n_suspects, np.inf if np.isnan(margin) else -margin, entry.label

    return sorted(verdict.classes, key=key)


def _sheet(samples: Samples, verdict: Verdict, rows: Rows, *, title: str, note: str, total: int) -> Sheet:
    def tile(row: int) -> Tile:
        return Tile(
            id=str(samples.ids[row]),
            label=wording.class_name(int(samples.labels[row]), samples.classes),
            score=float(verdict.scores[row]),
            flagged=bool(verdict.flagged[row]),
            src=None if samples.images is None else data_uri(samples.images[row]),
        )

    return Sheet(title=title, note=note, total=total, tiles=tuple(tile(int(row)) for row in rows))


def _highest(verdict: Verdict, among: Mask, most: int) -> Rows:
    """Return the highest-scoring rows, highest first."""
    rows = np.flatnonzero(among)
    return rows[np.argsort(-verdict.scores[rows], kind="stable")][:most]


def _in_turn(samples: Samples, verdict: Verdict, most: int) -> Rows:
    """Return the highest-scoring flagged rows, the classes taking turns so that each is seen, highest first."""
    rows = _highest(verdict, verdict.flagged, len(samples))
    turn = np.zeros(len(rows), dtype=np.intp)
    for label in np.unique(samples.labels[rows]):
        mine = samples.labels[rows] == label
        turn[mine] = np.arange(mine.sum())
    return rows[np.sort(np.argsort(turn, kind="stable")[:most])]


def _trigger(trigger: Trigger, carriers: Samples) -> TriggerView:
    """Show a trigger on the samples that carry it, which are images."""
    assert carriers.images is not None
    return view(trigger, carriers.images, carriers.classes)


def _sheets(samples: Samples, verdict: Verdict) -> list[Sheet]:
    """Show who was flagged, who came closest to it, and what an ordinary sample of the same class looks like."""
    n_flagged = int(verdict.flagged.sum())
    passed = ~verdict.flagged
    sheets = []
    if n_flagged:
        sheets.append(
            _sheet(
                samples,
                verdict,
                _in_turn(samples, verdict, _FLAGGED),
                title="Flagged",
                note="Highest scores first. Look for what they share"
                + (": values that repeat." if samples.images is None else ": a patch, a tint, a pattern."),
                total=n_flagged,
            )
        )
        fullest = int(np.bincount(samples.labels[verdict.flagged]).argmax())
        ordinary = _highest(verdict, passed & (samples.labels == fullest), len(samples))
        if ordinary.size:
            sheets.append(
                _sheet(
                    samples,
                    verdict,
                    ordinary[::-1][:_ORDINARY],
                    title=f"For comparison: the least suspicious of {wording.class_name(fullest, samples.classes)}",
                    note="Same label, lowest scores.",
                    total=ordinary.size,
                )
            )
    if passed.any():
        sheets.append(
            _sheet(
                samples,
                verdict,
                _highest(verdict, passed, _CLOSEST if n_flagged else _FLAGGED),
                title="Passed, with the highest scores",
                note="The closest to being flagged: their classes were cleared, or their scores fell short."
                if n_flagged
                else "The most suspicious of all; in no class do they add up to a backdoor.",
                total=int(passed.sum()),
            )
        )
    return sheets


def _space(samples: Samples, verdict: Verdict) -> list[Chart]:
    """Draw where the samples of the condemned classes lie; with none condemned, of the most suspicious class."""
    if verdict.embedding is None:
        return []
    ordered = [entry for entry in _by_suspicion(verdict) if entry.n_samples]
    chosen = [entry for entry in ordered if entry.condemned][:_PANELS] or ordered[:1]
    charts = []
    for entry in chosen:
        mine = samples.labels == entry.label
        flagged = verdict.flagged[mine]
        charts.append(
            Chart(
                svg=Markup(figures.scatter(f"space-{entry.label}", verdict.embedding[mine], flagged)),
                caption=wording.class_name(entry.label, samples.classes),
                alt=f"Scatter plot of {wording.plural(entry.n_samples, 'sample')} in two dimensions, "
                f"{wording.count(int(flagged.sum()))} of them flagged. {entry.reason}",
            )
        )
    return charts


def _rounds(verdict: Verdict) -> list[Chart]:
    """Draw the losses after each round."""
    charts = []
    for number, stage in enumerate(verdict.rounds):
        medians = f"Median loss {wording.figure(float(np.nanmedian(stage.losses)))} over all samples"
        if verdict.flagged.any():
            medians += f", {wording.figure(float(np.nanmedian(stage.losses[verdict.flagged])))} over the flagged"
        charts.append(
            Chart(
                svg=Markup(figures.losses(f"round-{number}", stage.losses, stage.kept, verdict.flagged)),
                caption=f"{stage.name.capitalize()}: {wording.count(int(stage.kept.sum()))} suspected, "
                f"{wording.duration(stage.seconds)}",
                alt=f"Histogram of losses. {medians}.",
            )
        )
    return charts


def _scores(samples: Samples, verdict: Verdict) -> Chart:
    """Draw the scores with the flagged ones apart."""
    text = f"Histogram of {wording.plural(len(verdict.scores), 'score')}."
    caption = "No sample was flagged."
    if verdict.flagged.any():
        lowest = float(verdict.scores[verdict.flagged].min())
        above = ~verdict.flagged & (verdict.scores >= lowest)
        caption = f"The dashed line is the lowest flagged score, {wording.figure(lowest)}. "
        if not above.any():
            caption += "No sample above it passed."
        else:
            caption += f"{wording.plural(int(above.sum()), 'sample')} above it passed"
            cleared = not np.isin(samples.labels[above], verdict.suspect_classes).any()
            caption += ": their classes were cleared." if cleared else "."
    return Chart(svg=Markup(figures.scores("scores", verdict.scores, verdict.flagged)), caption=caption, alt=text)


def _mistakes(samples: Samples, verdict: Verdict, poison: Mask) -> list[Sheet]:
    """Show the poison that passed and the clean samples that were flagged."""
    missed, alarms = poison & ~verdict.flagged, verdict.flagged & ~poison
    return [
        _sheet(samples, verdict, _highest(verdict, wrong, _MISTAKES), title=title, note=note, total=int(wrong.sum()))
        for wrong, title, note in (
            (missed, "Missed poison", "Poison that was not flagged, highest scores first."),
            (alarms, "False alarms", "Flagged, but not poison; highest scores first."),
        )
    ]


def _roc(verdict: Verdict, poison: Mask, summary: Mapping[str, Any]) -> Chart | None:
    """Draw the ROC curve; None where the truth holds only poison or none."""
    if summary["auroc"] is None:
        return None
    from sklearn.metrics import roc_curve

    false_rates, true_rates, _ = roc_curve(poison, verdict.scores)
    at = summary["fpr"], summary["tpr"]
    return Chart(
        svg=Markup(figures.roc("roc", false_rates, true_rates, at, int((~poison).sum()))),
        caption="The curve ranks by score alone; the diamond is the verdict, which also weighs the classes.",
        alt=f"ROC curve with area {wording.figure(summary['auroc'])}; the verdict's point has a true-positive rate of "
        f"{wording.share(at[1])} at a false-positive rate of {wording.share(at[0])}.",
    )
