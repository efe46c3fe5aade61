"""FLARE: poison is a cluster of its own in how unlikely its activations are, over all layers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.cleansers._base.axes import plane, principal_axes
from foretaste.cleansers._base.conclusion import conclude, robust_units
from foretaste.cleansers._base.victim import OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Samples
from foretaste.training import check

Rows = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FLARE(OnVictim):
    """Cluster all samples by the least likely activation in each layer (Hou et al. 2025, arXiv:2411.19479).

    Each batch normalisation knows mean and variance of what usually comes into it, so that layers can be compared. A
    sample is described by how unlikely its least likely value is in each layer. The set, all classes together, is
    clustered by density. The largest cluster is benign, every other is poison. If there is but one cluster, the last
    layers, in which clean classes part, are left out one after another.

    Departing from the paper, the layers are reduced by principal components and not by UMAP, and a cluster is one by
    the excess of mass (as HDBSCAN has it) and not by a gap of density of a fixed size.

    Works on images and on feature vectors. Refused for networks without batch normalisation.

    Attributes:
        components: dimensions to cluster in, ≥ 1.
        neighbours: samples whose distance is the measure of density, ≥ 2; the paper's UMAP has 40.
        smallest: share of the set that a cluster has at least, in (0, 0.5); the paper has 100 of 50,000 samples. It is
            never fewer than ``neighbours``.
        dropped: last layers that may be left out, ≥ 0.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "flare"
    summary: ClassVar[str] = "clusters of samples with unlikely activations in all layers (arXiv:2411.19479)"

    components: int = 3
    neighbours: int = 40
    smallest: float = 0.002
    dropped: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.components >= 1, "components must be 1 or more")
        check(self.neighbours >= 2, "neighbours must be 2 or more")
        check(0 < self.smallest < 0.5, "smallest must be in (0, 0.5)")
        check(self.dropped >= 0, "dropped must be 0 or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``. The clean set is not used.

        Raises:
            UsageError: the network has no batch normalisation.
        """
        start = time.perf_counter()
        victim = self.victim(samples, seed, workdir, on_progress)
        if not victim.net.normalisations:
            raise UsageError(
                f"flare compares layers by their batch normalisation, and the net {victim.net.name} has none; take "
                "another net"
            )
        likelihoods = victim.activations(samples, on_progress).likelihoods
        return self.judge(samples, likelihoods, seed=seed, start=start)

    def judge(self, samples: Samples, likelihoods: NDArray[np.float32], *, seed: int, start: float) -> Verdict:
        """Judge the samples by the log density of their least likely value in each layer, ``float32 (N, L)``.

        Raises:
            UsageError: there are fewer samples than ``neighbours``.
        """
        if len(samples) < self.neighbours:
            raise UsageError(
                f"{self.name} needs {self.neighbours} samples or more, not {len(samples)}; lower neighbours"
            )
        rows = comparable(likelihoods)
        n_layers, suspects = rows.shape[1], np.zeros(len(rows), dtype=np.bool_)
        for used in range(n_layers, max(n_layers - self.dropped, 1) - 1, -1):
            points = self.reduce(rows[:, :used])
            clusters = self.cluster(points)
            if clusters.max() > 0:
                benign = int(np.bincount(clusters[clusters >= 0]).argmax())
                suspects = (clusters >= 0) & (clusters != benign)
                break
        counts = np.bincount(samples.labels[suspects], minlength=len(samples.classes))
        away = np.linalg.norm(points - np.median(points[~suspects], axis=0), axis=1)
        return conclude(
            self.name,
            samples,
            scores=robust_units(away),
            suspects=suspects,
            statistics=counts.astype(np.float64),
            threshold=1.0,
            reason=lambda label: f"{counts[label]} samples are in clusters beside the largest one of the set",
            seed=seed,
            start=start,
            notes=(f"the first {used} of {n_layers} layers were used",),
            embedding=plane(points),
        )

    def reduce(self, rows: Rows) -> Rows:
        """Return the rows ``(N, L)`` on their first principal axes, ``(N, ≤ components)``."""
        centred = rows - rows.mean(axis=0)
        return np.asarray(centred @ principal_axes(centred, self.components).T)

    def cluster(self, points: Rows) -> NDArray[np.int64]:
        """Return the cluster of each point ``(N, D)``, ``(N,)``; -1 is none."""
        from sklearn.cluster import HDBSCAN

        size = max(round(self.smallest * len(points)), self.neighbours)
        method = HDBSCAN(size, min_samples=self.neighbours, allow_single_cluster=True, copy=True)
        clusters: NDArray[np.int64] = method.fit_predict(points).astype(np.int64)
        return clusters


def comparable(likelihoods: NDArray[np.float32]) -> Rows:
    """Return log densities ``(N, L)`` on a scale that is alike in all layers and does not run off in the tails.

    It is the logarithm of the distance from the most likely sample of the layer, in robust standard deviations.
    """
    unlikely = np.log1p(likelihoods.max(axis=0) - np.asarray(likelihoods, dtype=np.float64))
    medians = np.median(unlikely, axis=0)
    columns = [robust_units(np.abs(column)) * np.sign(column) for column in (unlikely - medians).T]
    return np.stack(columns, axis=1)
