"""SCAn: a class whose features are a mixture of two identities, once nature's variation is taken out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from foretaste.cleansers._base.axes import plane, regular
from foretaste.cleansers._base.conclusion import anomaly_index, conclude, references
from foretaste.cleansers._base.victim import OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Labels, Mask, Samples
from foretaste.training import check

Matrix = NDArray[np.float64]

RIDGE = 1e-4
"""Share of the mean variance that is added to the diagonal of a covariance, so that it can be inverted."""


@dataclass(frozen=True, kw_only=True)
class SCAn(OnVictim):
    """Test whether a class is one group of features or two (Tang et al. 2021, arXiv:1908.00686).

    A feature vector is its class's *identity* plus a *variation* that is distributed alike in all classes. The
    covariances of both are estimated by expectation maximisation, from the clean set if there is one. Then each class
    of the inspected set is split in two groups by a linear discriminant under the variation's covariance. The
    likelihood ratio of two groups against one, normalised, is compared over the classes by robust standard deviations.

    Works on images and on feature vectors. With two classes none can be unusual, and nothing is ever flagged.

    Attributes:
        anomaly: a class is condemned if its statistic is this many robust standard deviations above the median of the
            classes, > 0; the paper has e².
        iterations: of each of the two estimations at most, ≥ 1.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 1.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "scan"
    summary: ClassVar[str] = "classes whose features are a mixture of two groups (arXiv:1908.00686)"

    anomaly: float = 7.389
    iterations: int = 50
    substitute: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.anomaly > 0, "anomaly must be above 0")
        check(self.iterations >= 1, "iterations must be 1 or more")
        check(self.substitute >= 1, "substitute must be 1 or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``.

        Raises:
            UsageError: no class has two clean samples.
        """
        start = time.perf_counter()
        trusted, notes = references(samples, clean, self.substitute, np.random.default_rng(seed))
        if np.bincount(trusted.labels).max() < 2:
            raise UsageError(f"{self.name} sees how clean samples of a class vary, and needs two of some class or more")
        victim = self.victim(samples, seed, workdir, on_progress)
        features = victim.activations(samples, on_progress).features
        known = victim.activations(trusted, on_progress).features
        return self.judge(samples, features, trusted.labels, known, seed=seed, start=start, notes=notes)

    def judge(
        self,
        samples: Samples,
        features: NDArray[np.float32],
        trusted_labels: Labels,
        trusted_features: NDArray[np.float32],
        *,
        seed: int,
        start: float,
        notes: tuple[str, ...] = (),
    ) -> Verdict:
        """Judge the samples by their features, ``float32 (N, F)``, and those of trusted ones, ``float32 (M, F)``."""
        n_classes = len(samples.classes)
        variation = decompose(np.asarray(trusted_features, dtype=np.float64), trusted_labels, self.iterations)
        scores, suspects = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.bool_)
        present = np.unique(samples.labels)
        statistics = np.zeros(n_classes)
        for label in present:
            members = np.flatnonzero(samples.labels == label)
            own = np.asarray(features[members], dtype=np.float64)
            second, along = untangle(own, variation, self.iterations)
            scores[members], suspects[members] = along, second
            # The statistic is chi-squared with F degrees of freedom if the class is one group.
            n_features = own.shape[1]
            statistics[label] = (likelihood_ratio(own, second, variation) - n_features) / np.sqrt(2 * n_features)
        anomalies = np.zeros(n_classes)
        anomalies[present] = anomaly_index(statistics[present])
        return conclude(
            self.name,
            samples,
            scores=scores,
            suspects=suspects,
            statistics=anomalies,
            threshold=self.anomaly,
            reason=lambda label: (
                f"the likelihood ratio of two groups against one is {anomalies[label]:.1f} robust standard deviations "
                "above the median of the classes"
            ),
            seed=seed,
            start=start,
            notes=notes,
            embedding=plane(features),
        )


def decompose(features: Matrix, labels: Labels, iterations: int) -> Matrix:
    """Return the covariance of the variation, ``(F, F)``, by expectation maximisation (after arXiv:1908.00686, §4).

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``.
        iterations: at most; it ends earlier when the covariance moves by less than a thousandth.
    """
    centred = features - features.mean(axis=0)
    present, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(present), centred.shape[1]))
    np.add.at(sums, places, centred)
    identities = sums / counts[:, None]
    within = centred - identities[places]
    variation = regular(within.T @ within / len(centred), RIDGE)
    identity = regular(identities.T @ identities / len(present), RIDGE)
    scatter = centred.T @ centred
    for _ in range(iterations):
        # The posterior of an identity is normal: this is its mean, and its covariance for a class of this size.
        expected = np.empty_like(identities)
        identity_scatter, uncertain = np.zeros_like(variation), np.zeros_like(variation)
        for place, count in enumerate(counts):
            gain = identity @ np.linalg.inv(identity + variation / count)
            expected[place] = gain @ (sums[place] / count)
            # Equal to identity - gain @ identity, in which rounding leaves little where classes are small.
            covariance = gain @ variation / count
            identity_scatter += np.outer(expected[place], expected[place]) + covariance
            uncertain += count * covariance
        cross = sums.T @ expected
        weighted = (expected * counts[:, None]).T @ expected
        renewed = regular((scatter - cross - cross.T + weighted + uncertain) / len(centred), RIDGE)
        identity = regular(identity_scatter / len(present), RIDGE)
        moved = np.linalg.norm(renewed - variation) / np.linalg.norm(variation)
        variation = renewed
        if moved < 1e-3:
            break
    return variation


def untangle(features: Matrix, variation: Matrix, iterations: int) -> tuple[Mask, NDArray[np.float64]]:
    """Split the features of a class, ``(n, F)``, in two groups by a linear discriminant.

    Returns:
        Which are in the smaller group, and how far each is towards it, ``(n,)``, from the boundary at 0.
    """
    factor = cho_factor(variation)
    centred = features - features.mean(axis=0)
    # Begin along the direction that varies most beyond the variation.
    whitened = np.linalg.solve(np.linalg.cholesky(variation), centred.T).T
    axis = np.linalg.eigh(whitened.T @ whitened)[1][:, -1]
    along = whitened @ axis
    second = along > np.median(along)
    for _ in range(iterations):
        if second.all() or not second.any():
            break
        means = features[~second].mean(axis=0), features[second].mean(axis=0)
        direction = cho_solve(factor, means[1] - means[0])
        along = (features - (means[0] + means[1]) / 2) @ direction
        renewed = along > 0
        if (renewed == second).all():
            break
        second = renewed
    if second.mean() > 0.5:
        second, along = ~second, -along
    return second, along


def likelihood_ratio(features: Matrix, second: Mask, variation: Matrix) -> float:
    """Return twice the log likelihood that a class gains if its features ``(n, F)`` are two groups instead of one."""
    if second.all() or not second.any():
        return 0.0
    # Between two groups of one covariance, the gain is the weighted squared distance of their means.
    difference = features[second].mean(axis=0) - features[~second].mean(axis=0)
    weight = second.sum() * (~second).sum() / len(second)
    return float(weight * difference @ cho_solve(cho_factor(variation), difference))
