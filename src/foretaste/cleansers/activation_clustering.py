"""Activation clustering: poison and clean samples of one class form two clusters in the victim's features."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.cleansers._base.axes import plane, principal_axes
from foretaste.cleansers._base.conclusion import conclude
from foretaste.cleansers._base.victim import OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress
from foretaste.samples import Mask, Samples
from foretaste.training import check

SILHOUETTE_SAMPLES = 2000
"""Of larger classes the silhouette is taken over this many samples: its cost grows with their square."""

FLATTEST = 1e-6
"""Axes with less than this share of the first one's variance are rounding errors, which whitening would blow up."""

LARGEST_SEED = 2**32
"""scikit-learn's random states are below this."""


@dataclass(frozen=True, kw_only=True)
class ActivationClustering(OnVictim):
    """Split each class's features in two and flag the small half if the split is clear (Chen et al. 2018).

    From arXiv:1811.03728: the features of each class are reduced to ``components`` dimensions and clustered by 2-means.
    The smaller cluster is poison if the clusters are well apart, by the silhouette, and if it is small.

    Works on images and on feature vectors.

    Attributes:
        reduction: "ica", independent components as in the paper, or "pca".
        components: dimensions to cluster in, ≥ 1; the paper has 10.
        silhouette: the class is condemned if the mean silhouette reaches this, in [-1, 1]; the paper finds 0.10 to 0.15
            to part poisoned from clean classes.
        largest_share: and if the smaller cluster is no more than this share of the class, in (0, 0.5]; the paper
            takes 0.35 for an unusually small cluster.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "activation-clustering"
    summary: ClassVar[str] = "the smaller of two clear clusters of a class's features (arXiv:1811.03728)"

    reduction: Literal["ica", "pca"] = "ica"
    components: int = 10
    silhouette: float = 0.10
    largest_share: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.reduction in ("ica", "pca"), "reduction must be ica or pca")
        check(self.components >= 1, "components must be 1 or more")
        check(-1 <= self.silhouette <= 1, "silhouette must be in [-1, 1]")
        check(0 < self.largest_share <= 0.5, "largest_share must be in (0, 0.5]")

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
        scores, suspects = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.bool_)
        silhouettes, shares = np.full(n_classes, -1.0), np.full(n_classes, 0.5)
        for label in np.unique(samples.labels):
            members = np.flatnonzero(samples.labels == label)
            reduced = self.reduce(features[members], seed)
            small, nearer, silhouettes[label] = two_clusters(reduced, seed)
            scores[members], suspects[members], shares[label] = nearer, small, small.mean()
        statistics = np.where(shares <= self.largest_share, silhouettes, -1.0)
        return conclude(
            self.name,
            samples,
            scores=scores,
            suspects=suspects,
            statistics=statistics,
            threshold=self.silhouette,
            reason=lambda label: (
                f"the smaller of two clusters has {shares[label]:.0%} of the class, and the silhouette is "
                f"{silhouettes[label]:.2f}"
            ),
            seed=seed,
            start=start,
            embedding=plane(features),
        )

    def reduce(self, features: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        """Return the features ``(n, F)`` of one class in fewer dimensions, ``(n, ≤ components)``."""
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        centred = features - features.mean(axis=0, dtype=np.float64)
        projected = centred @ principal_axes(centred, self.components).T
        variances = projected.var(axis=0)
        projected = projected[:, variances > FLATTEST * variances[0]]
        if self.reduction == "pca" or projected.shape[1] == 0:
            return np.asarray(projected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an unmixing that still moves clusters as well
            unmixed = FastICA(whiten="unit-variance", random_state=seed % LARGEST_SEED).fit_transform(projected)
        return np.asarray(unmixed)


def two_clusters(points: NDArray[np.float64], seed: int) -> tuple[Mask, NDArray[np.float64], float]:
    """Split points ``(n, D)`` by 2-means.

    Returns:
        Which are in the smaller cluster; how much nearer each is to its centre than to the other, ``(n,)``, in [-1, 1];
        and the mean silhouette, in [-1, 1], which is -1 if all points are the same.
    """
    from sklearn.cluster import KMeans

    if points.shape[1] == 0 or (points == points[0]).all():
        return np.zeros(len(points), dtype=np.bool_), np.zeros(len(points)), -1.0
    model = KMeans(2, n_init=10, random_state=seed % LARGEST_SEED).fit(points)
    smaller = int(np.bincount(model.labels_, minlength=2).argmin())
    to_centres = model.transform(points)
    to_small, to_large = to_centres[:, smaller], to_centres[:, 1 - smaller]
    nearer: NDArray[np.float64] = (to_large - to_small) / (to_large + to_small)
    return model.labels_ == smaller, nearer, mean_silhouette(points, model.labels_, seed)


def mean_silhouette(points: NDArray[np.float64], clusters: NDArray[np.intp], seed: int) -> float:
    """Return the mean silhouette of points ``(n, D)`` in two clusters, in [-1, 1], estimated if there are many.

    At most ``SILHOUETTE_SAMPLES`` are looked at, half of them of either cluster, so that a small one is not missed.
    """
    from sklearn.metrics import silhouette_samples

    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(clusters == cluster) for cluster in (0, 1)]
    most = len(points) if len(points) <= SILHOUETTE_SAMPLES else SILHOUETTE_SAMPLES // 2
    chosen = np.concatenate([rng.permutation(group)[:most] for group in groups])
    silhouettes = silhouette_samples(points[chosen], clusters[chosen])
    means = [silhouettes[clusters[chosen] == cluster].mean() for cluster in (0, 1)]
    return float(np.average(means, weights=[len(group) for group in groups]))
