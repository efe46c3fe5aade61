"""Beatrix: the correlations between the victim's channels, as Gram matrices, are others under a trigger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from foretaste.cleansers._base.axes import plane
from foretaste.cleansers._base.conclusion import anomaly_index, conclude, references
from foretaste.cleansers._base.victim import OnVictim, Victim
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples
from foretaste.training import check

GRAM_AT_ONCE = 16
"""Samples whose Gram matrices are in memory at a time, as float64 with channels² / 2 entries each."""

FEWEST = 10
"""Clean samples that a class needs for its medians and deviations to mean anything."""

MOST_COMPARED = 500
"""Samples of a group, at most, that the maximum mean discrepancy is taken over: its cost grows with their square."""


@dataclass(frozen=True, kw_only=True)
class Beatrix(OnVictim):
    """Flag samples whose Gram matrices deviate from their class's (Ma et al. 2023, arXiv:2209.11715).

    Of the last stage's output, the Gram matrices of several orders are taken: the inner products of the channels raised
    to a power, and the root of it. From the clean samples of a class, each entry has a median and a median absolute
    deviation, and thereby a range. A sample's deviation is by how much its entries leave their ranges, relative to the
    bound. Those beyond a quantile of the clean ones' deviations, which are taken out of fold, are suspects. A class is
    condemned if the features of its suspects and of the rest are farther apart than in other classes, by the maximum
    mean discrepancy.

    Works on images and on feature vectors. With two classes none can be unusual, and nothing is ever flagged.

    Attributes:
        orders: powers of the Gram matrices, each ≥ 1; the paper has 1 to 9.
        spread: the ranges go this many median absolute deviations each way, > 0; the paper has 10.
        quantile: of the clean samples' deviations, above which a sample is a suspect, in (0, 1).
        folds: parts of the clean samples of a class that are measured by the others, ≥ 2.
        anomaly: a class is condemned if its discrepancy is this many robust standard deviations above the median of the
            classes, > 0; the paper has e².
        per_class: clean samples of a class that are used at most, ≥ 10.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 10.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "beatrix"
    summary: ClassVar[str] = "Gram matrices of activations that deviate from the class's (arXiv:2209.11715)"

    orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    spread: float = 10.0
    quantile: float = 0.95
    folds: int = 5
    anomaly: float = 7.389
    per_class: int = 50
    substitute: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.orders) and min(self.orders) >= 1, "orders must be numbers of 1 or more")
        check(self.spread > 0, "spread must be above 0")
        check(0 < self.quantile < 1, "quantile must be in (0, 1)")
        check(2 <= self.folds <= FEWEST, f"folds must be in [2, {FEWEST}]")
        check(self.anomaly > 0, "anomaly must be above 0")
        check(self.per_class >= FEWEST, f"per_class must be {FEWEST} or more")
        check(self.substitute >= FEWEST, f"substitute must be {FEWEST} or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``."""
        start = time.perf_counter()
        n_classes = len(samples.classes)
        victim = self.victim(samples, seed, workdir, on_progress)
        features = victim.activations(samples, on_progress).features
        rng = np.random.default_rng(seed)
        trusted, notes = references(samples, clean, self.substitute, rng)
        ratios, discrepancies = np.zeros(len(samples)), np.zeros(n_classes)
        present = np.unique(samples.labels)
        enough = present[np.bincount(trusted.labels, minlength=n_classes)[present] >= FEWEST]
        if missing := len(present) - len(enough):
            notes = (*notes, f"classes with fewer than {FEWEST} clean samples were not judged: {missing}")
        for number, label in enumerate(enough):
            known = trusted[rng.permutation(np.flatnonzero(trusted.labels == label))[: self.per_class]]
            members = np.flatnonzero(samples.labels == label)
            ratios[members] = self.deviate(victim, known, samples[members])
            suspect = ratios[members] > 1
            discrepancies[label] = discrepancy(features[members[suspect]], features[members[~suspect]], seed)
            on_progress(Progress(phase="Gram matrices", done=number + 1, total=len(enough)))
        anomalies = np.zeros(n_classes)
        if len(enough):
            anomalies[enough] = anomaly_index(discrepancies[enough])
        return conclude(
            self.name,
            samples,
            scores=ratios,
            suspects=ratios > 1,
            statistics=anomalies,
            threshold=self.anomaly,
            reason=lambda label: (
                f"the discrepancy of suspects and others is {discrepancies[label]:.3g}, {anomalies[label]:.1f} robust "
                "standard deviations above the median of the classes"
            ),
            seed=seed,
            start=start,
            notes=notes,
            embedding=plane(features),
        )

    def deviate(self, victim: Victim, known: Samples, own: Samples) -> NDArray[np.float64]:
        """Return the deviations of samples of one class as multiples of the threshold, ``(n,)``.

        Args:
            victim: the classifier.
            known: clean samples of the class.
            own: the inspected samples of the class.
        """
        usual, deviations = np.zeros(len(known)), np.zeros(len(own))
        fold_of = np.arange(len(known)) % self.folds
        maps = torch.cat(list(victim.outputs(known.inputs, -1)))
        for order in self.orders:
            grams = torch.cat(list(gram_matrices(iter([maps]), order)))
            for fold in range(self.folds):
                low, high = ranges(grams[torch.from_numpy(fold_of != fold)], self.spread)
                usual[fold_of == fold] += outside(grams[torch.from_numpy(fold_of == fold)], low, high).numpy()
            low, high = ranges(grams, self.spread)
            batches = gram_matrices(victim.outputs(own.inputs, -1), order)
            deviations += torch.cat([outside(batch, low, high) for batch in batches]).numpy()
        ratios: NDArray[np.float64] = deviations / max(float(np.quantile(usual, self.quantile)), 1e-12)
        return ratios


def gram_matrices(maps: Iterator[Tensor], order: int) -> Iterator[Tensor]:
    """Yield the upper triangles of the Gram matrices of one order, ``float64 (B, C (C + 1) / 2)``, in small batches.

    Args:
        maps: outputs of a stage over places, ``(B, C, P)``.
        order: each value is raised to this power, and the root of it is taken of the inner products.
    """
    for batch in maps:
        for start in range(0, len(batch), GRAM_AT_ONCE):
            powers = batch[start : start + GRAM_AT_ONCE].double() ** order
            products = powers @ powers.transpose(1, 2)
            rows, columns = torch.triu_indices(*products.shape[1:]).unbind()
            upper = products[:, rows, columns]
            yield upper.sign() * upper.abs() ** (1 / order)


def ranges(grams: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """Return the bounds ``(D,)`` that are so many median absolute deviations around the median of rows ``(n, D)``."""
    medians = grams.quantile(0.5, dim=0)
    deviations = (grams - medians).abs().quantile(0.5, dim=0)
    return medians - spread * deviations, medians + spread * deviations


def outside(grams: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return by how much rows ``(n, D)`` leave their ranges, relative to the bounds, on average over D: ``(n,)``."""
    below = (low - grams).clamp(min=0) / (low.abs() + 1e-6)
    above = (grams - high).clamp(min=0) / (high.abs() + 1e-6)
    return (below + above).mean(dim=1)


def discrepancy(some: NDArray[np.float32], others: NDArray[np.float32], seed: int) -> float:
    """Return the maximum mean discrepancy of two groups of features, ``(n, F)`` and ``(m, F)``, times nm / (n + m).

    The kernel is Gaussian; its bandwidth is the median squared distance (Gretton et al. 2012, JMLR 13).
    """
    if min(len(some), len(others)) < 2:
        return 0.0
    rng = np.random.default_rng(seed)
    groups = [
        group if len(group) <= MOST_COMPARED else group[np.sort(rng.choice(len(group), MOST_COMPARED, replace=False))]
        for group in (some, others)
    ]
    n, m = len(groups[0]), len(groups[1])
    joined = np.concatenate(groups).astype(np.float64)
    squared = cdist(joined, joined, "sqeuclidean")
    kernel = np.exp(-squared / max(float(np.median(squared)), 1e-12))
    distance = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return float(n * m / (n + m) * distance)
