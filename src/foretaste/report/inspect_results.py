"""What an inspection of a model leaves behind, each file written to a temporary name and renamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretaste.guards.neo import Registry
from foretaste.inspectors.diagnosis import Diagnosis, Evidence
from foretaste.io import Skipped, atomic_json, atomic_text
from foretaste.report.inspect_page import inspect_page
from foretaste.report.summary import about, describe, name_of, plain, save_triggers
from foretaste.sanitising import public_address

FILES = ("report.html", "summary.json")
"""What ``save_inspect`` writes beside the folder of triggers."""

SCHEMA = "urn:foretaste:inspect-summary:1"
"""The schema of ``summary.json``, in ``docs/schemas``."""


def save_inspect(
    out: Path,
    diagnosis: Diagnosis,
    *,
    model: str,
    classes: Sequence[str],
    settings: Mapping[str, object],
    source: str | None = None,
    clean_size: int = 0,
    skipped: Sequence[Skipped] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write ``triggers/``, ``report.html`` and ``summary.json``.

    ``summary.json`` comes last: where it is, the rest is complete.

    Args:
        out: the folder to write into; made if missing.
        diagnosis: what was found.
        model: the model, for people.
        classes: the names of the labels that the model gives.
        settings: the inspector's hyperparameters.
        source: where the clean images came from, for people; None if there were none.
        clean_size: how many there were.
        skipped: what of them could not be read.
        notes: sentences that a reader should know, beside those of the diagnosis.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ForetasteError: a file cannot be written.
    """
    registry = Registry(diagnosis.triggers)
    summary = about(
        schema=SCHEMA,
        method=diagnosis.method,
        seed=diagnosis.seed,
        seconds=diagnosis.seconds,
        source=source or "no clean images",
        settings=settings,
        skipped=skipped,
        packages=("torch", "numpy", "onnxruntime"),
    ) | {
        "model": public_address(model),
        "n_samples": 1,
        "n_flagged": int(diagnosis.backdoored),
        "poisoned": diagnosis.backdoored,
        "suspect_classes": [{"label": label, "name": name_of(label, classes)} for label in diagnosis.suspect_classes],
        "p_value": plain(diagnosis.p_value),
        "score": plain(diagnosis.score),
        "false_alarm_rate": diagnosis.false_alarm_rate,
        "null_size": diagnosis.null_size,
        "clean_size": clean_size,
        "queries_total": diagnosis.queries,
        "evidence": [_row(entry) for entry in diagnosis.evidence],
        # None of the clean images carries the trigger, so none was found in any.
        "triggers": [describe(trigger, 0, classes) for trigger in registry],
        "notes": [*notes, *diagnosis.notes],
    }
    page = inspect_page(diagnosis, summary, classes)
    save_triggers(registry, out / "triggers")
    atomic_text(out / "report.html", page)
    atomic_json(out / "summary.json", summary)
    return summary


def _row(entry: Evidence) -> dict[str, Any]:
    return {
        "target": entry.target,
        "source": entry.source,
        "statistic": plain(entry.statistic),
        "p_value": plain(entry.p_value),
        "suspect": entry.suspect,
        "reason": entry.reason,
    }
