"""One self-contained HTML page out of a diagnosis: has the model a backdoor, to which class, and with which trigger?"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from foretaste.inspectors.diagnosis import Diagnosis, Evidence, Reconstruction
from foretaste.report import figures, wording
from foretaste.report.pictures import data_uri
from foretaste.report.template import Chart, render
from foretaste.report.triggers import TriggerView, view

_SHOWN = 8
"""Rows of the evidence that are shown beside the suspects; the others are folded away."""

BLIND_SPOTS = {
    "neural-cleanse": (
        "Triggers that are not small: a picture blended over the whole image, a warp, a style.",
        "Backdoors that move each label to another one, or that work on one class only.",
    ),
    "mm-bd": (
        "Backdoors whose target has no larger margin than other labels: many targets, all-to-all, or a model trained "
        "to hide it.",
        "What the trigger looks like: neural-cleanse and debackdoor show it.",
    ),
    "final-layer": (
        "Everything that is not in the last layer. Take it for a first look: a verdict is what the other methods give.",
        "What the trigger looks like: neural-cleanse and debackdoor show it.",
    ),
    "debackdoor": (
        "Triggers outside the families that it searches (patches, blended patterns, warps), such as those that a "
        "network makes for each input.",
        "Triggers that take more questions to find than it asks; --set steps=… raises them.",
    ),
    "all": (
        "Backdoors that every one of the methods misses; the false-alarm rate is shared out among them, so that each "
        "is a little more cautious than it would be alone.",
    ),
}
"""What each method misses, by its name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the evidence.

    Attributes:
        name: the backdoor, for people.
        statistic: its figure.
        p_value: its p-value.
        suspect: whether it is one.
        reason: one sentence.
    """

    name: str
    statistic: float
    p_value: float
    suspect: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A reconstructed trigger on the page: its title, what it does, pictures before and after, and any patch."""

    title: str
    does: str
    pairs: tuple[tuple[str, str], ...]
    patch: TriggerView | None


def inspect_page(diagnosis: Diagnosis, summary: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Return the HTML report of an inspection.

    Everything that comes from files and the model (class names, addresses) is escaped. The page runs no script and
    loads nothing: style, charts and pictures are inside.

    Args:
        diagnosis: what was found.
        summary: what ``summary.json`` holds.
        classes: the names of the labels that the model gives.
    """
    rows = [_row(entry, classes) for entry in diagnosis.evidence]
    shown = sum(row.suspect for row in rows) + _SHOWN
    return render(
        "inspect.html.j2",
        summary=summary,
        created=datetime.datetime.fromisoformat(summary["created"]),
        suspects=[wording.class_name(label, classes) for label in diagnosis.suspect_classes],
        n_classes=len(classes),
        rows_shown=rows[:shown],
        rows_hidden=rows[shown:],
        pictured=[_pictured(found, classes) for found in diagnosis.reconstructions],
        chart=_chart(diagnosis),
        blind_spots=BLIND_SPOTS.get(diagnosis.method, ()),
        run=_run(summary),
    )


def backdoor(target: int | None, source: int | None, classes: Sequence[str]) -> str:
    """Name a backdoor for people, by the label that it forces."""
    if target is None:
        return "every class to another one"
    forced = wording.class_name(target, classes)
    return forced if source is None else f"{wording.class_name(source, classes)} → {forced}"


def _row(entry: Evidence, classes: Sequence[str]) -> Row:
    return Row(
        name=backdoor(entry.target, entry.source, classes),
        statistic=entry.statistic,
        p_value=entry.p_value,
        suspect=entry.suspect,
        reason=entry.reason,
    )


def _pictured(found: Reconstruction, classes: Sequence[str]) -> Pictured:
    nouns = {"patch": "patch", "mask": "pattern under a mask", "blend": "blended pattern", "warp": "warp"}
    return Pictured(
        title=f"To {backdoor(found.target, found.source, classes)}: a {nouns.get(found.kind, found.kind)}",
        does=f"turns {wording.share(found.flip_rate)} of {wording.plural(found.n_confirmed, 'clean image')}",
        pairs=tuple(
            (data_uri(before), data_uri(after)) for before, after in zip(found.before, found.after, strict=True)
        ),
        patch=None if found.patch is None else view(found.patch, found.after[:1], classes),
    )


def _run(summary: Mapping[str, Any]) -> dict[str, object]:
    """List what one needs to repeat the run."""
    facts: dict[str, object] = {"method": summary["method"], "seed": summary["seed"]}
    facts |= {"false-alarm rate": wording.share(summary["false_alarm_rate"])}
    facts |= {"clean images": wording.count(summary["clean_size"]), "clean models": summary["null_size"]}
    facts |= {"foretaste": summary["version"]}
    return facts | dict(summary["versions"])


def _chart(diagnosis: Diagnosis) -> Chart:
    """Draw the statistics from the highest to the lowest."""
    statistics = np.array([entry.statistic for entry in diagnosis.evidence])
    suspect = np.array([entry.suspect for entry in diagnosis.evidence], dtype=np.bool_)
    caption = (
        f"{wording.plural(len(statistics), 'possible backdoor')}, of which {wording.count(int(suspect.sum()))} suspect."
    )
    return Chart(
        svg=Markup(figures.ranking("ranking", statistics, suspect)),
        caption=caption,
        alt=f"Statistics from the highest to the lowest. {caption}",
    )
