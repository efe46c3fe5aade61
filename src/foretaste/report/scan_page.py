"""One self-contained HTML page out of a scan: what was found, what it looks like, what to do, what cannot be seen."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from foretaste.guards.finding import LabelShift
from foretaste.guards.scan import Scan
from foretaste.report import figures, wording
from foretaste.report.pictures import data_uri
from foretaste.report.template import Chart, render
from foretaste.report.triggers import TriggerView, covered, view
from foretaste.samples import Images, Mask

_TRIGGERS = 12
_EXAMPLES = 6
"""How many inputs each trigger, and all flagged inputs without one, are shown on."""
_PASSED, _MISTAKES = 12, 24

_PATCHES = (
    "Triggers that are not a patch: a pattern blended over the whole image, a sine wave, a warp, a style. Use --method "
    "strip (if the classifier gives scores), scale-up or teco, or all of them with --method all.",
    "Source-specific patches, which force a label on images of some classes only: on the others they turn nothing.",
    "Triggers of two or more pieces that work only together and lie apart: no one part of the image holds all.",
    "What no input has shown yet: a trigger is found on an input that carries it, not in the model.",
)
BLIND_SPOTS = {
    "neo": _PATCHES,
    "neo-paper": (*_PATCHES, "Triggers of another size than the one that it was told."),
    "strip": (
        "Triggers that give way when another image is laid over them: faint, warped, or easily hidden.",
        "Triggers that work on images of some classes only.",
        "Which mark it is, and which label would be right: --method neo answers both for patches.",
    ),
    "scale-up": (
        "Triggers that brightening washes out, and inputs so bright that they saturate at once.",
        "Which mark it is, and which label would be right: --method neo answers both for patches.",
    ),
    "teco": (
        "Triggers that noise, blur and compression wear down just as they wear down the image itself.",
        "Which mark it is, and which label would be right: --method neo answers both for patches.",
    ),
    "all": (
        "Triggers that every one of the methods misses; the false-alarm rate is shared out among them, so that each "
        "is a little more cautious than it would be alone.",
        "The right label for an input that has no patch: only for patches is a better label known.",
        "What no input has shown yet: a trigger is found on an input that carries it, not in the model.",
    ),
}
"""What each method misses, by its name."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One input as the page shows it.

    Attributes:
        id: its id.
        src: its picture.
        covered: its picture with the trigger covered, None where no trigger is known.
        label: what the classifier said.
        corrected: what to say instead.
        truth: the true label, None where it is not known.
        score: the guard's.
        flagged: whether it was called trojaned.
    """

    id: str
    src: str
    covered: str | None
    label: str
    corrected: str
    truth: str | None
    score: float
    flagged: bool


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of ``total`` inputs, with what they have in common; ``trigger`` is what they carry, if that is known."""

    title: str
    note: str
    total: int
    examples: tuple[Example, ...]
    trigger: TriggerView | None = None


def scan_page(scan: Scan, summary: Mapping[str, Any], *, truth_trojaned: Mask | None = None) -> str:
    """Return the HTML report of a scan.

    Everything that comes from the scanned files and the model (ids, class names, addresses) is escaped. The page runs
    no script and loads nothing: style, charts and pictures are inside.

    Args:
        scan: what was found.
        summary: what ``summary.json`` holds.
        truth_trojaned: ``bool (N,)``, which inputs carry a trigger, where that is known.
    """
    screening = scan.screening
    triggers = _triggers(scan, truth_trojaned is not None)
    others = np.flatnonzero(screening.trojaned & (screening.trigger_ids == ""))
    return render(
        "scan.html.j2",
        summary=summary,
        found=scan.finding.conclusion.value,
        warnings=warnings(scan),
        created=datetime.datetime.fromisoformat(summary["created"]),
        given=[
            wording.class_name(int(label), scan.classes) for label in np.unique(screening.labels[screening.trojaned])
        ],
        n_classes=scan.n_classes,
        n_corrected=int((screening.corrected != screening.labels).sum()),
        triggers=triggers[:_TRIGGERS],
        n_triggers=len(triggers),
        makes_out=scan.registry is not None,
        groups=_groups(scan, others, truth_trojaned is not None),
        mistakes=[] if truth_trojaned is None else _mistakes(scan, truth_trojaned),
        calibration=_calibration(scan),
        scores=_scores(scan) if len(scan.screening) else None,
        queries=_queries(scan) if len(scan.screening) else None,
        blind_spots=BLIND_SPOTS.get(scan.method, ()),
        run=_run(summary),
    )


def warnings(scan: Scan) -> list[str]:
    """Say what puts the verdict in doubt, one sentence each."""
    sentences = []
    if scan.clean_accuracy.doubt is not None:
        sentences.append(f"The verdict is worth little: {scan.clean_accuracy.doubt}.")
    if scan.finding.shift is not None:
        sentences.append(f"{shift_sentence(scan.finding.shift, scan.classes)}.")
    return sentences


def shift_sentence(shift: LabelShift, classes: Sequence[str]) -> str:
    """Say which label has grown more frequent than no trigger explains."""
    return (
        f"{wording.share(shift.share)} of the inputs are answered “{wording.class_name(shift.label, classes)}”, and "
        f"{wording.share(shift.clean_share)} of the clean images (p = {wording.figure(shift.p_value)}). No trigger "
        "explains it: the inputs are another mix of classes than the clean set, or carry a trigger that this method "
        "cannot see"
    )


def _run(summary: Mapping[str, Any]) -> dict[str, object]:
    """List what one needs to repeat the run."""
    facts: dict[str, object] = {"method": summary["method"], "seed": summary["seed"]}
    facts |= {"false-alarm rate": wording.share(summary["false_alarm_rate"])}
    facts |= {"clean images": wording.count(summary["clean_size"]), "foretaste": summary["version"]}
    if summary["preprocessing"] is not None:
        facts |= {name: _listed(value) for name, value in summary["preprocessing"].items()}
    facts |= summary["versions"]
    return facts


def _listed(value: object) -> object:
    """Write a list with commas, anything else as it is."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _images(scan: Scan) -> Images:
    assert scan.samples.images is not None
    return scan.samples.images


def _example(scan: Scan, row: int, truth: bool, without: NDArray[np.uint8] | None = None) -> Example:
    screening = scan.screening
    return Example(
        id=str(scan.samples.ids[row]),
        src=data_uri(_images(scan)[row]),
        covered=None if without is None else data_uri(without),
        label=wording.class_name(int(screening.labels[row]), scan.classes),
        corrected=wording.class_name(int(screening.corrected[row]), scan.classes),
        truth=wording.class_name(int(scan.samples.labels[row]), scan.classes) if truth else None,
        score=float(screening.scores[row]),
        flagged=bool(screening.trojaned[row]),
    )


def _triggers(scan: Scan, truth: bool) -> list[Group]:
    """Show each trigger with inputs that carry it, the one that most inputs carry first."""
    groups = []
    for trigger in scan.registry or ():
        rows = np.flatnonzero(scan.screening.trojaned & (scan.screening.trigger_ids == trigger.id))
        images = _images(scan)[rows]
        shown = _spread(rows, scan.screening.corrected[rows])[:_EXAMPLES]
        examples = tuple(_example(scan, int(row), truth, covered(trigger, _images(scan)[row])) for row in shown)
        groups.append(
            Group(
                title=f"Trigger {trigger.id}",
                note="",
                total=len(rows),
                examples=examples,
                trigger=view(trigger, images, scan.classes),
            )
        )
    return sorted(groups, key=lambda group: -group.total)


def _spread(rows: Rows, labels: NDArray[np.int64]) -> Rows:
    """Order rows so that the labels take turns."""
    turn = np.zeros(len(rows), dtype=np.intp)
    for label in np.unique(labels):
        mine = labels == label
        turn[mine] = np.arange(mine.sum())
    return rows[np.argsort(turn, kind="stable")]


def _highest(scan: Scan, among: Mask) -> Rows:
    """Return the rows of highest score, highest first."""
    rows = np.flatnonzero(among)
    return rows[np.argsort(-scan.screening.scores[rows], kind="stable")]


def _group(scan: Scan, rows: Rows, most: int, *, title: str, note: str, truth: bool) -> Group:
    examples = tuple(_example(scan, int(row), truth) for row in rows[:most])
    return Group(title=title, note=note, total=len(rows), examples=examples)


def _groups(scan: Scan, others: Rows, truth: bool) -> list[Group]:
    """Show the flagged inputs in which no trigger was made out, and those that came closest to being flagged."""
    groups = []
    if others.size:
        groups.append(
            _group(
                scan,
                others[np.argsort(-scan.screening.scores[others], kind="stable")],
                4 * _EXAMPLES,
                title="Flagged, no trigger made out",
                note="Highest scores first.",
                truth=truth,
            )
        )
    passed = _highest(scan, ~scan.screening.trojaned)
    if passed.size:
        note = "The closest to being flagged."
        groups.append(_group(scan, passed, _PASSED, title="Passed, with the highest scores", note=note, truth=truth))
    return groups


def _mistakes(scan: Scan, trojaned: Mask) -> list[Group]:
    """Show the trojaned inputs that passed, the clean ones that were flagged, and the wrong corrections."""
    flagged = scan.screening.trojaned
    wrong = flagged & trojaned & (scan.screening.corrected != scan.samples.labels)
    return [
        _group(scan, _highest(scan, rows), _MISTAKES, title=title, note=note, truth=True)
        for rows, title, note in (
            (trojaned & ~flagged, "Missed", "Trojaned, but not flagged; highest scores first."),
            (flagged & ~trojaned, "False alarms", "Flagged, but not trojaned; highest scores first."),
            (wrong, "Found, but corrected to a wrong label", "Highest scores first."),
        )
    ]


def _calibration(scan: Scan) -> Chart | None:
    """Draw the share of clean images that each threshold would have flagged; None if the guard tells none."""
    threshold = scan.threshold
    if threshold is None:
        return None
    above = float(np.mean(threshold.scores > threshold.value))
    caption = (
        f"{wording.share(above)} of {wording.plural(threshold.n, 'clean image')} that the guard had learnt nothing "
        f"from score above the threshold, {wording.figure(threshold.value)}. "
    )
    caption += (
        f"Of unseen ones, at most {wording.share(threshold.rate)} do on average, however their scores are spread."
        if threshold.guaranteed
        else f"They are too few to promise {wording.share(threshold.rate)}: beyond the highest of them, the curve is "
        "taken to fall off exponentially."
    )
    svg = figures.false_alarms("calibration", threshold.scores, threshold.value, threshold.rate)
    return Chart(svg=Markup(svg), caption=caption, alt=f"Share of clean images above each threshold. {caption}")


def _scores(scan: Scan) -> Chart:
    """Draw the scores with the flagged ones apart."""
    caption = "No input was flagged."
    if scan.screening.trojaned.any():
        lowest = float(scan.screening.scores[scan.screening.trojaned].min())
        caption = f"The dashed line is the lowest flagged score, {wording.figure(lowest)}."
    return Chart(
        svg=Markup(figures.scores("scores", scan.screening.scores, scan.screening.trojaned)),
        caption=caption,
        alt=f"Histogram of {wording.plural(len(scan.screening), 'score')}. {caption}",
    )


def _queries(scan: Scan) -> Chart:
    """Draw what the inputs cost in questions to the classifier."""
    queries = scan.screening.queries
    caption = (
        f"Median {wording.figure(float(np.median(queries)))}, mean {wording.figure(float(queries.mean()))}, at most "
        f"{wording.count(int(queries.max()))} queries for one input, its own answer included. "
        f"In all, {wording.count(scan.queries)} were sent, identical images once, after "
        f"{wording.count(scan.calibration_queries)} for calibration."
    )
    return Chart(
        svg=Markup(figures.queries("queries", queries)), caption=caption, alt=f"Histogram of queries. {caption}"
    )
