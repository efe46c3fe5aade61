"""Samples that look alike: what a whole look shares is no mark, and its samples are not excluded together."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from foretaste.samples import Images, Labels, Mask

SIDE = 8
"""Images are compared at this many pixels a side, where a small mark or a faint one hardly shows."""
NEAREST = 10
"""Nearest neighbours in the set that a sample is compared with."""
CHANCE = 0.01
"""A sample is enriched if so many chosen neighbours are this unlikely."""
AT_ONCE = 250
COMPARED = 100_000
"""Samples of the set that are compared at a time, which bounds the memory."""


def enriched(images: Images, labels: Labels, chosen: Mask) -> Mask:
    """Return the chosen samples whose nearest neighbours were chosen, too, ``bool (N,)``.

    Of a sample's nearest neighbours in the set those of its own class count. If the choice had nothing to do with what
    images look like from afar, each would be chosen as often as samples of the class are, and more would be a matter of
    chance (binomial). More are chosen among frames of one video, copies, an odd but natural look. A trigger is on
    images of all looks, and the neighbours of poison that comes from other classes are of these.

    Args:
        images: ``uint8 (N, H, W, C)``, may be memory-mapped.
        labels: ``(N,)``.
        chosen: ``bool (N,)``.
    """
    found, rows = np.zeros(len(labels), dtype=np.bool_), np.flatnonzero(chosen)
    if not len(rows):
        return found
    looks = coarse(images)
    # Classes may be empty, and none of their samples is asked for.
    share = np.bincount(labels[rows], minlength=labels.max() + 1) / np.maximum(np.bincount(labels), 1)
    for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
        neighbours = nearest(looks, some)
        same = labels[neighbours] == labels[some][:, None]
        count, expected = np.count_nonzero(same & chosen[neighbours], axis=1), share[labels[some]]
        found[some] = binom.sf(count - 1, np.count_nonzero(same, axis=1), expected) < CHANCE
    return found


def nearest(looks: Tensor, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the rows of the ``NEAREST`` samples that look most like each of some, ``(n, NEAREST)`` or fewer.

    Args:
        looks: of all samples, ``uint8 (N, D)``.
        rows: of the samples in question, ``(n,)``.
    """
    these = torch.from_numpy(rows)
    own = looks[these].float()
    apart, neighbours = torch.empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64)
    for start in range(0, len(looks), COMPARED):
        others = looks[start : start + COMPARED].float()
        places = torch.arange(start, start + len(others))
        apart = torch.cat([apart, torch.cdist(own, others).masked_fill(places == these[:, None], math.inf)], dim=1)
        neighbours = torch.cat([neighbours, places.expand(len(rows), -1)], dim=1)
        apart, order = apart.topk(min(NEAREST, len(looks) - 1, apart.shape[1]), largest=False)
        neighbours = neighbours.gather(1, order)
    return neighbours.numpy()


def coarse(images: Images) -> Tensor:
    """Return what images look like from afar, ``uint8 (N, D)``."""
    looks = [
        adaptive_avg_pool2d(
            torch.from_numpy(images[start : start + AT_ONCE].astype(np.float32)).permute(0, 3, 1, 2), SIDE
        )
        for start in range(0, len(images), AT_ONCE)
    ]
    return torch.cat([look.flatten(1).round().to(torch.uint8) for look in looks])
