"""The files that a run leaves behind, each written to a temporary name and renamed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from foretaste.cleansers.verdict import Verdict
from foretaste.guards.neo.registry import Registry
from foretaste.io import Loaded, Skipped, atomic_json, atomic_path, atomic_text
from foretaste.io.atomic import writing
from foretaste.io.original import SamplesOriginal
from foretaste.progress import OnProgress, silent
from foretaste.report.page import cleanse_page
from foretaste.report.summary import about, describe, plain, save_triggers
from foretaste.report.triggers import find_triggers
from foretaste.samples import Mask, Samples

FILES = (
    "verdicts.parquet",
    "cleansed.parquet",
    "quarantine.parquet",
    "cleansed.csv",
    "quarantine.csv",
    "cleansed.npz",
    "quarantine.npz",
    "keep.csv",
    "report.html",
    "summary.json",
)
"""What ``save_cleanse`` writes, those for the source's format only if that is asked for."""

COPIES = ("cleansed", "quarantine")
"""The folders that it writes if asked for the format of a source that is a folder."""

SCHEMA = "urn:foretaste:cleanse-summary:1"
"""The schema of ``summary.json``, in ``docs/schemas``."""


def save_cleanse(
    out: Path,
    samples: Samples,
    verdict: Verdict,
    *,
    source: str,
    settings: Mapping[str, object],
    clean_size: int | None = None,
    loaded: Loaded | None = None,
    copy_source: bool = False,
    truth_poison: Mask | None = None,
    truth_cover: Mask | None = None,
    registry: Registry | None = None,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Write ``FILES``.

    ``cleansed.parquet`` and ``quarantine.parquet`` share out the rows of the source as they are there: all columns, and
    images as they are encoded. ``keep.csv`` lists the ids of the samples that were not flagged. ``summary.json`` comes
    last: where it is, the rest is complete. Written twice from the same verdict, the files are the same but for
    ``created``.

    Args:
        out: the folder to write into; made if missing.
        samples: the N inspected samples.
        verdict: what the cleanser said of them.
        source: where the samples came from, for people.
        settings: the method's hyperparameters and whatever else shaped the run.
        clean_size: number of trusted samples the method had, None for none.
        loaded: what the samples were read from; None writes the samples themselves.
        copy_source: whether to write the two sets in the format of the source, too.
        truth_poison: ``bool (N,)``, which samples are poison, where that is known.
        truth_cover: ``bool (N,)``, which carry the trigger under their true label; with ``truth_poison`` only. They
            count as clean in the rates.
        registry: the triggers that were reconstructed from what was flagged, None if nobody tried; also written, to
            ``triggers/``.
        on_progress: called while the samples are written.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ForetasteError: a file cannot be written.
    """
    with writing(out / "summary.json"):
        (out / "summary.json").unlink(missing_ok=True)
    loaded = loaded or Loaded(samples)
    rows = np.arange(len(samples)) if loaded.rows is None else loaded.rows
    original = loaded.original or SamplesOriginal(samples)
    for name, chosen in (("cleansed", rows[~verdict.flagged]), ("quarantine", rows[verdict.flagged])):
        original.write_parquet(out / f"{name}.parquet", chosen, on_progress)
        if copy_source:
            original.copy(out, name, chosen, on_progress)
    with atomic_path(out / "keep.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["id"])
        lines.writerows([name] for name in samples.ids[~verdict.flagged].tolist())
    return save_verdict(
        out,
        samples,
        verdict,
        source=source,
        settings=settings,
        clean_size=clean_size,
        skipped=loaded.skipped,
        truth_poison=truth_poison,
        truth_cover=truth_cover,
        registry=registry,
    )


def save_verdict(
    out: Path,
    samples: Samples,
    verdict: Verdict,
    *,
    source: str,
    settings: Mapping[str, object],
    clean_size: int | None = None,
    skipped: Sequence[Skipped] = (),
    truth_poison: Mask | None = None,
    truth_cover: Mask | None = None,
    registry: Registry | None = None,
) -> dict[str, Any]:
    """Write what ``save_cleanse`` writes, but for the samples themselves; the arguments are the same.

    Raises:
        ForetasteError: a file cannot be written.
    """
    summary = _summary(samples, verdict, source, settings, clean_size, skipped, truth_poison, truth_cover)
    found = None
    if registry is not None:
        flagged = samples[verdict.flagged]
        found = [(trigger, flagged[rows]) for trigger, rows in find_triggers(registry, flagged)]
        summary["triggers"] = [describe(trigger, len(carriers), samples.classes) for trigger, carriers in found]
        save_triggers(registry, out / "triggers")
    page = cleanse_page(samples, verdict, summary, truth_poison=truth_poison, triggers=found)
    with atomic_path(out / "verdicts.parquet") as path:
        pq.write_table(verdict.to_frame(samples).select(["id", "label", "score", "flagged"]), path)
    atomic_text(out / "report.html", page)
    atomic_json(out / "summary.json", summary)
    return summary


def _summary(
    samples: Samples,
    verdict: Verdict,
    source: str,
    settings: Mapping[str, object],
    clean_size: int | None,
    skipped: Sequence[Skipped],
    truth_poison: Mask | None,
    truth_cover: Mask | None,
) -> dict[str, Any]:
    n_flagged = int(verdict.flagged.sum())
    summary = about(
        schema=SCHEMA,
        method=verdict.method,
        seed=verdict.seed,
        seconds=verdict.seconds,
        source=source,
        settings=settings,
        skipped=skipped,
        packages=("torch", "numpy", "scikit-learn"),
    ) | {
        "n_samples": len(samples),
        "n_flagged": n_flagged,
        "poisoned": n_flagged > 0,
        "suspect_classes": [{"label": label, "name": samples.classes[label]} for label in verdict.suspect_classes],
        "clean_size": clean_size,
        "notes": list(verdict.notes),
    }
    if truth_poison is not None:
        cover = np.zeros_like(truth_poison) if truth_cover is None else truth_cover
        detection = verdict.compare(truth_poison)
        summary |= {
            "tpr": plain(detection.tpr),
            "fpr": plain(detection.fpr),
            "auroc": plain(detection.auroc),
            "n_poison": int(truth_poison.sum()),
            "n_cover": int(cover.sum()),
            "n_cover_flagged": int((cover & verdict.flagged).sum()),
        }
    return summary
