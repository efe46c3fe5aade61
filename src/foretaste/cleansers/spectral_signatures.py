"""Spectral signatures: poison stands out along the direction in which its class's features vary most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.cleansers._base.axes import plane, principal_axes
from foretaste.cleansers._base.conclusion import conclude, highest, robust_units
from foretaste.cleansers._base.victim import OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress
from foretaste.samples import Mask, Samples
from foretaste.training import check


@dataclass(frozen=True, kw_only=True)
class SpectralSignatures(OnVictim):
    """Flag samples far out along the first principal axis of their class (Tran et al. 2018, arXiv:1811.00636).

    With ``expected_rate``, the paper's rule: a sample's score is its distance from the class mean along the axis, and
    the highest scores of every class go, 1.5 times as many as there is poison to expect, wherever it may be. Without
    it, distances are from the median, which poison hardly moves, and those above ``cutoff`` go.

    Works on images and on feature vectors.

    Attributes:
        expected_rate: share of the whole set that is poison, in (0, 1), all of which may be in one class; None if
            nothing is known.
        multiple: with ``expected_rate``, this many times the expected poison goes from every class, but no more than
            half of it, ≥ 1; the paper has 1.5.
        cutoff: without ``expected_rate``, flagged above this many standard deviations, which are taken from the median
            absolute deviation, > 0. Of normal scores, 6 per hundred thousand are above 4.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "spectral-signatures"
    summary: ClassVar[str] = "far out along the first principal axis of a class's features (arXiv:1811.00636)"

    expected_rate: float | None = None
    multiple: float = 1.5
    cutoff: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.expected_rate is None or 0 < self.expected_rate < 1, "expected_rate must be in (0, 1), or none")
        check(self.multiple >= 1, "multiple must be 1 or more")
        check(self.cutoff > 0, "cutoff must be above 0")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``. The clean set is not used."""
        start = time.perf_counter()
        features = self.victim(samples, seed, workdir, on_progress).activations(samples, on_progress).features
        return self.judge(samples, features, seed=seed, start=start)

    def judge(self, samples: Samples, features: NDArray[np.float32], *, seed: int, start: float) -> Verdict:
        """Judge the samples by their features, ``float32 (N, F)``."""
        n_classes = len(samples.classes)
        distances, suspects = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.bool_)
        for label in np.unique(samples.labels):
            members = np.flatnonzero(samples.labels == label)
            along = along_first_axis(features[members])
            centre = np.median(along) if self.expected_rate is None else 0.0
            distances[members] = robust_units(np.abs(along - centre))
            suspects[members] = self.outliers(distances[members], len(samples))
        # What reaches the cutoff, or is the least suspicious of the number that goes.
        limits = np.full(n_classes, self.cutoff)
        if self.expected_rate is not None:
            np.minimum.at(limits, samples.labels[suspects], distances[suspects])
        tops = highest(distances, samples.labels, n_classes)
        return conclude(
            self.name,
            samples,
            scores=distances,
            suspects=suspects,
            statistics=tops,
            threshold=limits,
            reason=lambda label: (
                f"the farthest sample is {tops[label]:.1f} robust standard deviations from the middle of the class "
                "along the first principal axis"
            ),
            seed=seed,
            start=start,
            notes=self.notes(),
            embedding=plane(features),
        )

    def outliers(self, distances: NDArray[np.float64], n_samples: int) -> Mask:
        """Return which samples of a class go, ``bool (n,)``.

        Args:
            distances: of the class, ``(n,)``, in robust standard deviations.
            n_samples: of the whole set.
        """
        if self.expected_rate is None:
            return distances > self.cutoff
        count = min(max(round(self.multiple * self.expected_rate * n_samples), 1), len(distances) // 2)
        gone = np.zeros(len(distances), dtype=np.bool_)
        gone[np.argsort(-distances, kind="stable")[:count]] = True
        return gone

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if self.expected_rate is None:
            return (
                f"no poison rate was given: samples beyond {self.cutoff:g} robust standard deviations were flagged, "
                "where the paper flags a number that follows from the rate",
            )
        return ("by the paper's rule, samples of every class were flagged, of clean ones too",)


def along_first_axis(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return where each row ``(n, F)`` lies along the first principal axis, ``(n,)``; the mean is at 0."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    along: NDArray[np.float64] = centred @ principal_axes(centred, 1)[0]
    return along
