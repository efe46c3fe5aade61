"""What looks alike: pictures of one and the same thing count once as evidence, looks that nature forgot do not."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from torch.nn.functional import adaptive_avg_pool2d

from foretaste.samples import Images, Mask, Samples

SIDE = 8
"""Images are compared at this many pixels a side, where a small mark or a faint one hardly shows."""
PAIRS = 2000
"""Pairs of images at most whose median distance is taken as typical."""
ALIKE = 1 / 3
"""Images whose distance is below this share of the typical one are near-duplicates."""
MOST = 2000
"""Samples at most that are compared with each other."""
NEAREST = 10
"""The images of its class that look most like one, this many, are its look-alikes."""
AT_ONCE = 250


class Looks:
    """What the images of a set look like from afar.

    Groups near-duplicates: frames of one video, copies, shots of one scene. Unlike a trigger, what they share says
    nothing of other images. And tells who looks like others of its class.

    Args:
        samples: the set, images.
    """

    def __init__(self, samples: Samples) -> None:
        self.labels = samples.labels
        self.looks = coarse(samples.inputs)
        self.nearest = 0.0
        # In a set's own order, neighbours may be of one class, or of one video.
        some = self.looks[np.random.default_rng(0).permutation(len(samples))[: 2 * PAIRS]].astype(np.float32)
        half = len(some) // 2
        if half:
            apart = np.linalg.norm(some[:half] - some[half : 2 * half], axis=1)
            self.nearest = ALIKE * float(np.median(apart))

    def distinct(
        self, doubted: Mask, forgotten: Mask, rows: NDArray[np.intp], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the scores of the suspects of one class that count as evidence.

        Frames of one video count once. Looks count not at all: of a class's suspects whose labels are natural, or
        doubted when nature may have forgotten them, those that look like each other. A mark that nature took for its
        own is on images of all looks.

        Args:
            doubted: ``bool (N,)``, those whose label is not what nature says.
            forgotten: ``bool (N,)``, those that were kept from the base model only to be safe.
            rows: the suspects, ``(n,)``.
            scores: theirs, ``float32 (n,)``.
        """
        chosen = forgotten.copy()
        chosen[rows] = True
        counts = (doubted & ~forgotten)[rows]
        counts[~counts] = ~self.gathered(rows[~counts], chosen)
        return self.highest(rows[counts], scores[counts])

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
        groups = fcluster(linkage(self.looks[rows].astype(np.float32), "average"), self.nearest, "distance")
        highest = np.full(groups.max(), -np.inf, dtype=np.float32)
        np.maximum.at(highest, groups - 1, scores)
        return highest

    def gathered(self, rows: NDArray[np.intp], chosen: Mask) -> Mask:
        """Tell which samples of a class look like what was chosen of it, ``bool (n,)``.

        If what was chosen has nothing to do with looks, as many of a sample's look-alikes were chosen as of its class.
        A sample is gathered if the share is nearer to all of them.

        Args:
            rows: the samples, of one class, ``(n,)``.
            chosen: ``bool (N,)``, of the whole set.
        """
        members = np.flatnonzero(np.isin(self.labels, self.labels[rows]))
        of_class, count = torch.from_numpy(chosen[members]).double(), min(NEAREST, len(members) - 1)
        gathered = np.zeros(len(rows), dtype=np.bool_)
        if count < 1:
            return gathered
        looks = torch.from_numpy(self.looks[members]).float()
        places = torch.from_numpy(np.searchsorted(members, rows))
        for start in range(0, len(rows), AT_ONCE):
            some = places[start : start + AT_ONCE]
            apart = torch.cdist(looks[some], looks).scatter(1, some[:, None], math.inf)
            shares = of_class[apart.topk(count, largest=False).indices].mean(dim=1)
            gathered[start : start + AT_ONCE] = shares > (1 + of_class.mean()) / 2
        return gathered


def coarse(images: Images) -> NDArray[np.uint8]:
    """Return what images look like from afar, ``uint8 (N, D)``."""
    looks = np.empty((len(images), SIDE**2 * images.shape[3]), dtype=np.uint8)
    for start in range(0, len(images), AT_ONCE):
        some = torch.from_numpy(images[start : start + AT_ONCE].astype(np.float32)).permute(0, 3, 1, 2)
        looks[start : start + AT_ONCE] = adaptive_avg_pool2d(some, SIDE).flatten(1).round().numpy()
    return looks
