"""From scores and per-class statistics to a verdict with evidence."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation, norm

from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.errors import UsageError
from foretaste.samples import Mask, Samples


def conclude(
    name: str,
    samples: Samples,
    *,
    scores: NDArray[np.floating],
    suspects: Mask,
    statistics: NDArray[np.floating],
    threshold: float | NDArray[np.floating],
    reason: Callable[[int], str],
    seed: int,
    start: float,
    notes: tuple[str, ...] = (),
    embedding: NDArray[np.float32] | None = None,
) -> Verdict:
    """Flag the suspects of the classes whose statistic reaches the threshold.

    Args:
        name: the cleanser's.
        samples: the inspected set, N samples of K classes.
        scores: ``(N,)``, higher is more suspicious.
        suspects: ``bool (N,)``, what to flag where the class is condemned.
        statistics: ``(K,)``; what it says of a class without samples does not count.
        threshold: of the statistic, one for all or ``(K,)``.
        reason: given a label, returns the sentence about that class.
        seed: the run's.
        start: when it began, by ``time.perf_counter``.
        notes: as in ``Verdict``.
        embedding: as in ``Verdict``.
    """
    n_classes = len(samples.classes)
    sizes = np.bincount(samples.labels, minlength=n_classes)
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), n_classes)
    condemned = (sizes > 0) & (statistics >= limits)
    flagged = suspects & condemned[samples.labels]
    evidence = tuple(
        ClassEvidence(
            label=label,
            n_samples=int(sizes[label]),
            n_suspects=int(suspects[samples.labels == label].sum()),
            n_flagged=int(flagged[samples.labels == label].sum()),
            statistic=float(statistics[label]) if sizes[label] else 0.0,
            threshold=float(limits[label]),
            condemned=bool(condemned[label]),
            reason=reason(label) if sizes[label] else "no sample carries this label",
        )
        for label in range(n_classes)
    )
    return Verdict(
        scores=scores.astype(np.float32),
        flagged=flagged,
        classes=evidence,
        method=name,
        seed=seed,
        seconds=time.perf_counter() - start,
        notes=notes,
        embedding=embedding,
    )


def conclude_by_sample(
    name: str,
    samples: Samples,
    *,
    scores: NDArray[np.floating],
    limit: float,
    unit: str,
    seed: int,
    start: float,
    notes: tuple[str, ...] = (),
) -> Verdict:
    """Flag all samples whose scores ``(N,)`` reach the limit: for methods that judge samples and not classes.

    A class's statistic is its highest score; ``unit`` says what a score is ("log odds of a trigger"). The other
    arguments are as for ``conclude``.
    """
    n_classes = len(samples.classes)
    tops, suspects = highest(scores, samples.labels, n_classes), scores >= limit
    sizes = np.maximum(np.bincount(samples.labels, minlength=n_classes), 1)
    shares = np.bincount(samples.labels[suspects], minlength=n_classes) / sizes
    return conclude(
        name,
        samples,
        scores=scores,
        suspects=suspects,
        statistics=tops,
        threshold=limit,
        reason=lambda label: (
            f"{shares[label]:.1%} of the samples reach the limit; the highest {unit} is {tops[label]:.3g}"
        ),
        seed=seed,
        start=start,
        notes=notes,
    )


def highest(scores: NDArray[np.floating], labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return each class's highest score, ``(K,)``: the statistic of methods that judge samples one by one."""
    tops = np.full(n_classes, -np.inf)
    np.maximum.at(tops, labels, scores)
    return tops


def anomaly_index(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how many robust standard deviations each value is above the median of all, ``(K,)``; 0 below it.

    The standard deviation is taken from the median absolute deviation, which assumes that most values are alike. It is
    taken to be a millionth of the largest value at least, so that the index stays finite where most are the same.
    """
    above = np.maximum(values - np.median(values), 0.0)
    spread = float(median_abs_deviation(values, scale="normal"))
    return np.asarray(above / max(spread, smallest_spread(values)), dtype=np.float64)


def smallest_spread(values: NDArray[np.floating]) -> float:
    """Return what a standard deviation of these values is taken to be at least, > 0."""
    return max(1e-6 * float(np.abs(values).max()), float(np.finfo(np.float64).tiny))


def robust_units(distances: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return distances from a centre, ``(N,)``, ≥ 0, in standard deviations that their median implies if normal.

    As in ``anomaly_index`` that is a millionth of the largest distance at least.
    """
    spread = float(np.median(distances)) / norm.ppf(0.75)
    return np.asarray(distances / max(spread, smallest_spread(distances)), dtype=np.float64)


def references(samples: Samples, clean: Samples | None, count: int, rng: Generator) -> tuple[Samples, tuple[str, ...]]:
    """Return the clean set, or samples of the inspected set in its place, and what a reader should know of it.

    Args:
        samples: the inspected set.
        clean: the clean set, or None.
        count: samples at most that stand in for a missing clean set, ≥ 1.
        rng: which ones.
    """
    if clean is not None:
        return clean, ()
    chosen = np.sort(rng.choice(len(samples), min(count, len(samples)), replace=False))
    return samples[chosen], (
        f"no clean set was given: {len(chosen):,} random samples of the inspected set stood in for it",
    )


def require_images(name: str, samples: Samples) -> None:
    """Refuse feature vectors.

    Raises:
        UsageError: the samples are feature vectors.
    """
    if samples.images is None:
        raise UsageError(f"{name} works on images, and these samples are feature vectors; take scan or spectre")
