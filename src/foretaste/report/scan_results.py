"""What a scan of inputs leaves behind, each file written to a temporary name and renamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretaste.guards.finding import Conclusion
from foretaste.guards.guard import Screening
from foretaste.guards.neo.registry import Registry
from foretaste.guards.scan import Scan
from foretaste.io import Skipped, atomic_json, atomic_path, atomic_text
from foretaste.io.atomic import writing
from foretaste.report.scan_page import scan_page
from foretaste.report.summary import about, describe, name_of, plain, save_triggers
from foretaste.samples import Mask, Samples
from foretaste.sanitising import public_address

FILES = ("verdicts.parquet", "report.html", "summary.json")
"""What ``save_scan`` writes beside the folder of triggers."""

SCHEMA = "urn:foretaste:scan-summary:1"
"""The schema of ``summary.json``, in ``docs/schemas``."""


def save_scan(
    out: Path,
    scan: Scan,
    *,
    source: str,
    model: str,
    settings: Mapping[str, object],
    skipped: Sequence[Skipped] = (),
    truth_trojaned: Mask | None = None,
) -> dict[str, Any]:
    """Write ``verdicts.parquet``, ``triggers/``, ``report.html`` and ``summary.json``.

    ``summary.json`` comes last: where it is, the rest is complete.

    Args:
        out: the folder to write into; made if missing.
        scan: what was found.
        source: where the inputs came from, for people.
        model: the classifier, for people.
        settings: the guard's hyperparameters and whatever else shaped the run.
        skipped: what could not be read and so was not screened.
        truth_trojaned: ``bool (N,)``, which inputs carry a trigger, where that is known; then the samples' labels are
            true, and numbered as ``scan.classes`` are.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ForetasteError: a file cannot be written.
    """
    summary = _summary(scan, source, model, settings, skipped)
    if truth_trojaned is not None:
        summary |= _compare(scan.screening, scan.samples, truth_trojaned)
    page = scan_page(scan, summary, truth_trojaned=truth_trojaned)
    with writing(out / "summary.json"):
        (out / "summary.json").unlink(missing_ok=True)
    with atomic_path(out / "verdicts.parquet") as path:
        pq.write_table(_verdicts(scan.samples, scan.screening), path)
    folder = out / "triggers"
    if scan.registry is not None:
        save_triggers(scan.registry, folder)
    elif folder.exists():  # an earlier run's
        save_triggers(Registry(), folder)
    atomic_text(out / "report.html", page)
    atomic_json(out / "summary.json", summary)
    return summary


def _verdicts(samples: Samples, screening: Screening) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(samples.ids.tolist(), pa.string()),
            "label": pa.array(screening.labels, pa.int64()),
            "corrected": pa.array(screening.corrected, pa.int64()),
            "trojaned": pa.array(screening.trojaned, pa.bool_()),
            "score": pa.array(screening.scores, pa.float32()),
            "trigger": pa.array([str(name) or None for name in screening.trigger_ids], pa.string()),
        }
    )


def _summary(
    scan: Scan, source: str, model: str, settings: Mapping[str, object], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    screening = scan.screening
    n_samples, n_flagged = len(screening), int(screening.trojaned.sum())
    queries = screening.queries if n_samples else np.zeros(1, dtype=np.int64)
    return about(
        schema=SCHEMA,
        method=scan.method,
        seed=scan.seed,
        seconds=scan.calibration_seconds + scan.seconds,
        source=source,
        settings=settings,
        skipped=skipped,
        packages=("numpy", "onnxruntime", "torch"),
    ) | {
        "model": public_address(model),
        "n_samples": n_samples,
        "n_flagged": n_flagged,
        "poisoned": scan.finding.conclusion is not Conclusion.NOTHING,
        "finding": _finding(scan),
        "clean_accuracy": scan.clean_accuracy.described(),
        "preprocessing": None if scan.preprocessing is None else scan.preprocessing.described(),
        "n_classes": scan.n_classes,
        "suspect_classes": [
            {"label": int(label), "name": name_of(int(label), scan.classes)}
            for label in np.unique(screening.labels[screening.trojaned])
        ],
        "false_alarm_rate": scan.false_alarm_rate,
        "threshold": None if scan.threshold is None else plain(scan.threshold.value),
        "clean_size": scan.clean_size,
        "queries_per_image": float(queries.mean()),
        "queries_median": float(np.median(queries)),
        "queries_max": int(queries.max()),
        "queries_total": scan.queries,
        "calibration_queries": scan.calibration_queries,
        "ms_per_image": 1000 * scan.seconds / max(n_samples, 1),
        "triggers": [
            describe(trigger, int((screening.trigger_ids == trigger.id).sum()), scan.classes)
            for trigger in scan.registry or ()
        ],
        "notes": list(scan.notes),
    }


def _finding(scan: Scan) -> dict[str, Any]:
    """Say what the screening amounts to, by which tests."""
    finding, shift = scan.finding, scan.finding.shift
    return {
        "conclusion": finding.conclusion.value,
        "n_carriers": finding.n_carriers,
        "n_unexplained": finding.n_unexplained,
        "n_expected": finding.n_expected,
        "p_value": finding.p_value,
        "label_shift": None if shift is None else asdict(shift) | {"name": name_of(shift.label, scan.classes)},
    }


def _compare(screening: Screening, samples: Samples, trojaned: Mask) -> dict[str, Any]:
    """Compare with the truth.

    An attack counts as a success while a trojaned input has the wrong label that the classifier gave it: the
    attacker's, or an ordinary mistake of the classifier, which nobody can tell apart from outside.
    """
    from sklearn.metrics import roc_auc_score

    fooled = screening.labels != samples.labels
    right = screening.corrected == samples.labels
    stands = fooled & (screening.corrected == screening.labels)
    both = bool(trojaned.any() and not trojaned.all())
    return {
        "tpr": _mean(screening.trojaned[trojaned]),
        "fpr": _mean(screening.trojaned[~trojaned]),
        "auroc": float(roc_auc_score(trojaned, screening.scores)) if both else None,
        "n_trojaned": int(trojaned.sum()),
        "corrected_accuracy": _mean(right[trojaned]),
        "asr_before": _mean(fooled[trojaned]),
        "asr_after": _mean(stands[trojaned]),
        "clean_accuracy_before": _mean(~fooled[~trojaned]),
        "clean_accuracy_after": _mean(right[~trojaned]),
    }


def _mean(mask: Mask) -> float | None:
    """Return the share that is true, None of nothing."""
    return float(mask.mean()) if mask.size else None
