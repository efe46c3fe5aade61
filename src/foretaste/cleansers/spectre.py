"""SPECTRE: spectral signatures after the clean samples' own variation is whitened away, robustly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.stats import chi2

from foretaste.cleansers._base.axes import plane, principal_axes, regular
from foretaste.cleansers._base.conclusion import anomaly_index, conclude
from foretaste.cleansers._base.victim import OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress
from foretaste.samples import Samples
from foretaste.training import check

Matrix = NDArray[np.float64]

RIDGE = 1e-6
"""Share of the mean variance that is added to the diagonal of a covariance, so that it can be inverted."""


@dataclass(frozen=True, kw_only=True)
class SPECTRE(OnVictim):
    """Whiten each class's features by a robust covariance and flag what still stands out (Hayase et al. 2021).

    From arXiv:2104.11315: the features of a class are projected on their first principal axes. Mean and covariance are
    estimated from the samples that fit best, so that they are the clean ones', and the features are whitened by them.
    What then still varies more than it should is poison, and quantum entropy (QUE) scores point along all directions
    in which it does. How many axes, and which class, are chosen by the mean QUE score.

    Departing from the paper, the robust estimate is by concentration steps (as in Rousseeuw and Van Driessen's fast
    minimum covariance determinant) instead of a filter over all pairs of dimensions, which takes minutes per class.

    Works on images and on feature vectors. With two classes none can be unusual, and only ``expected_rate`` finds
    anything.

    Attributes:
        dimensions: numbers of principal axes to try, each ≥ 1.
        alpha: how much the QUE scores prefer the directions of the largest excess variance, ≥ 0; the paper has 4.
        expected_rate: share of the whole set that is poison, in (0, 1); None if nothing is known.
        multiple: with ``expected_rate``, this many times the expected poison goes from the most unusual class, but no
            more than half of it, ≥ 1; the paper has 1.5.
        trimmed: without ``expected_rate``, share of a class that the robust estimate leaves out, in (0, 0.5].
        anomaly: without ``expected_rate``, a class is condemned if its mean QUE score is this many robust standard
            deviations above the median of the classes, > 0; e², as SCAn has it.
        tail: and its samples go that are farther from the robust mean than this share of normal ones, in (0, 1).

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "spectre"
    summary: ClassVar[str] = "what stands out after robust whitening of a class's features (arXiv:2104.11315)"

    dimensions: tuple[int, ...] = (4, 8, 16, 32)
    alpha: float = 4.0
    expected_rate: float | None = None
    multiple: float = 1.5
    trimmed: float = 0.25
    anomaly: float = 7.389
    tail: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.dimensions) and min(self.dimensions) >= 1, "dimensions must be numbers of 1 or more")
        check(self.alpha >= 0, "alpha must be 0 or more")
        check(self.expected_rate is None or 0 < self.expected_rate < 1, "expected_rate must be in (0, 1), or none")
        check(self.multiple >= 1, "multiple must be 1 or more")
        check(0 < self.trimmed <= 0.5, "trimmed must be in (0, 0.5]")
        check(self.anomaly > 0, "anomaly must be above 0")
        check(0 < self.tail < 1, "tail must be in (0, 1)")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``. The clean set is not used."""
        start = time.perf_counter()
        features = self.victim(samples, seed, workdir, on_progress).activations(samples, on_progress).features
        return self.judge(samples, features, seed=seed, start=start)

    def judge(self, samples: Samples, features: NDArray[np.float32], *, seed: int, start: float) -> Verdict:
        """Judge the samples by their features, ``float32 (N, F)``."""
        n_classes, present = len(samples.classes), np.unique(samples.labels)
        scores, suspects = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.bool_)
        strengths = np.zeros(n_classes)
        for label in present:
            members = np.flatnonzero(samples.labels == label)
            own = np.asarray(features[members], dtype=np.float64)
            count = len(own)
            expected = None
            if self.expected_rate is not None:
                expected = min(max(round(self.multiple * self.expected_rate * len(samples)), 1), count // 2)
            trimmed = round(self.trimmed * count) if expected is None else expected
            whitened = self.whiten(own, count - trimmed)
            tried = [que_scores(points, self.alpha) for points in whitened]
            best = int(np.argmax([que.mean() for que in tried]))  # the number of axes at which most stands out
            que, points = tried[best], whitened[best]
            scores[members], strengths[label] = que, que.mean()
            if expected is None:
                limit = chi2.ppf(1 - self.tail, points.shape[1])
                suspects[members] = (points**2).sum(axis=1) > limit
            else:
                suspects[members[np.argsort(-que, kind="stable")[:expected]]] = True
        anomalies = np.zeros(n_classes)
        anomalies[present] = anomaly_index(strengths[present])
        if self.expected_rate is None:
            statistics, threshold = anomalies, self.anomaly
        else:
            statistics, threshold = strengths, float(strengths[present].max())
        return conclude(
            self.name,
            samples,
            scores=scores,
            suspects=suspects,
            statistics=statistics,
            threshold=threshold,
            reason=lambda label: (
                f"the mean QUE score is {strengths[label]:.2f}, {anomalies[label]:.1f} robust standard deviations "
                "above the median of the classes"
            ),
            seed=seed,
            start=start,
            notes=self.notes(),
            embedding=plane(features),
        )

    def whiten(self, features: Matrix, kept: int) -> list[Matrix]:
        """Return the features ``(n, F)`` of a class, whitened, for each number of axes.

        Args:
            features: of the class.
            kept: samples that the robust estimates are made from.
        """
        centred = features - np.median(features, axis=0)
        counts = sorted({min(count, centred.shape[1], max(kept // 4, 1)) for count in self.dimensions})
        axes = principal_axes(centred - centred.mean(axis=0), max(counts))
        projected = centred @ axes.T
        return [whitened_by(projected[:, :count], *robust_covariance(projected[:, :count], kept)) for count in counts]

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if self.expected_rate is None:
            return (
                "no poison rate was given: unusual classes were condemned, and what is no part of their bulk flagged, "
                "where the paper flags in one class a number that follows from the rate",
            )
        return ("by the paper's rule, samples of the most unusual class were flagged, poison or not",)


def robust_covariance(points: Matrix, kept: int) -> tuple[Matrix, Matrix]:
    """Return the mean ``(D,)`` and covariance ``(D, D)`` of the ``kept`` points ``(n, D)`` that fit them best.

    Concentration steps, from the coordinates' medians and robust deviations: estimate, keep the nearest, until they
    stay the same. The covariance is made consistent with normal points.
    """
    n, n_dimensions = points.shape
    centre = np.median(points, axis=0)
    deviations = np.median(np.abs(points - centre), axis=0) / 0.6745
    distances = (((points - centre) / np.maximum(deviations, 1e-12)) ** 2).sum(axis=1)
    nearest = np.sort(np.argsort(distances, kind="stable")[:kept])
    for _ in range(100):
        centre = points[nearest].mean(axis=0)
        covariance = regular(np.cov(points[nearest].T).reshape(n_dimensions, n_dimensions), RIDGE)
        away = points - centre
        distances = (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)
        renewed = np.sort(np.argsort(distances, kind="stable")[:kept])
        if (renewed == nearest).all():
            break
        nearest = renewed
    # The nearest share of normal points varies less than all of them; this is by how much.
    share = kept / n
    shrunk = chi2.cdf(chi2.ppf(share, n_dimensions), n_dimensions + 2) / share if kept < n else 1.0
    return centre, covariance / shrunk


def whitened_by(points: Matrix, centre: Matrix, covariance: Matrix) -> Matrix:
    """Return the points ``(n, D)`` so that ones with this mean and covariance would have 0 and the identity."""
    whitened: Matrix = np.linalg.solve(np.linalg.cholesky(covariance), (points - centre).T).T
    return whitened


def que_scores(points: Matrix, alpha: float) -> NDArray[np.float64]:
    """Return the quantum entropy score of each whitened point ``(n, D)``, ``(n,)``; 1 on average without outliers.

    Directions weigh by the matrix exponential of their excess variance over the largest (Dong et al. 2019,
    arXiv:1906.11366).
    """
    n_dimensions = points.shape[1]
    covariance = points.T @ points / len(points)
    excess = float(np.linalg.norm(covariance, 2)) - 1
    weights = np.eye(n_dimensions)
    if excess > 0:
        weights = expm(alpha * (covariance - np.eye(n_dimensions)) / excess)
    scores: NDArray[np.float64] = ((points @ weights) * points).sum(axis=1) / np.trace(weights)
    return scores
