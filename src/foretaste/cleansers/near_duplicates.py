"""What looks alike: pictures of one and the same thing count once as evidence, looks that nature forgot do not."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from torch.nn.functional import adaptive_avg_pool2d

from foretaste.samples import Mask, Samples

SIDE = 8
"""Images are compared at this many pixels a side, where a small mark or a faint one hardly shows."""
PAIRS = 2000
"""Pairs of images at most whose median distance is taken as typical."""
ALIKE = 1 / 3
"""Images whose distance is below this share of the typical one are near-duplicates."""
MOST = 2000
"""Samples at most that are compared with each other."""
AT_ONCE = 250
NEAREST = 10
"""The samples of its class that look most like a sample, this many, are what it lies among."""


class NearDuplicates:
    """Groups the near-duplicates in a set of images: frames of one video, copies, shots of one scene.

    Unlike a trigger, what they share says nothing of other images.

    Args:
        samples: the set, images.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.nearest = 0.0
        # In a set's own order, neighbours may be of one class, or of one video.
        looks = self.coarse(np.random.default_rng(0).permutation(len(samples))[: 2 * PAIRS])
        half = len(looks) // 2
        if half:
            apart = np.linalg.norm(looks[:half] - looks[half : 2 * half], axis=1)
            self.nearest = ALIKE * float(np.median(apart))

    def coarse(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return what these images look like from afar, ``float32 (n, D)``."""
        looks = np.empty((len(rows), SIDE**2 * self.samples.sample_shape[2]), dtype=np.float32)
        for start in range(0, len(rows), AT_ONCE):
            images = torch.from_numpy(self.samples.inputs[rows[start : start + AT_ONCE]]).permute(0, 3, 1, 2)
            looks[start : start + AT_ONCE] = adaptive_avg_pool2d(images.float(), SIDE).flatten(1).numpy()
        return looks

    def highest(self, rows: NDArray[np.intp], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the highest score of each group of near-duplicates.

        Args:
            rows: the samples to group, ``(n,)``; of more than ``MOST`` of them only some are taken.
            scores: their scores, ``float32 (n,)``.
        """
        if len(rows) < 2:
            return scores
        step = -(-len(rows) // MOST)
        rows, scores = rows[::step], scores[::step]
        # Average linkage: single linkage would chain things that merely resemble each other.
        groups = fcluster(linkage(self.coarse(rows), "average"), self.nearest, "distance")
        highest = np.full(groups.max(), -np.inf, dtype=np.float32)
        np.maximum.at(highest, groups - 1, scores)
        return highest

    def gathered(self, chosen: Mask) -> Mask:
        """Tell which of the chosen samples lie among others that were chosen, ``bool (N,)``.

        If what was chosen has nothing to do with looks, so many of a sample's nearest were chosen as of its whole
        class. A sample lies among chosen ones if the share is nearer to all of them.

        Args:
            chosen: ``bool (N,)``.
        """
        labels, gathered = self.samples.labels, np.zeros_like(chosen)
        for label in np.unique(labels[chosen]):
            members = np.flatnonzero(labels == label)
            looks, of_class = self.coarse(members), chosen[members]
            count = min(NEAREST, len(members) - 1)
            halfway = (1 + of_class.mean()) / 2
            places = np.flatnonzero(of_class)
            for start in range(0, len(places) if count else 0, AT_ONCE):
                some = places[start : start + AT_ONCE]
                distances = cdist(looks[some], looks, "sqeuclidean")
                distances[np.arange(len(some)), some] = np.inf
                nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
                gathered[members[some]] = of_class[nearest].mean(axis=1) > halfway
        return gathered
