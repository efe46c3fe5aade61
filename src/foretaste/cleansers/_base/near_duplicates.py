"""Samples that look alike: what a whole look shares is no mark, and its samples are not excluded together."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from foretaste.samples import Images, Labels, Mask

SIDE = 8
"""Images are compared at this many pixels a side, where a small mark or a faint one hardly shows."""
NEAREST = 10
"""Nearest neighbours in its class that a sample is compared with."""
AT_ONCE = 250


def enriched(images: Images, labels: Labels, chosen: Mask) -> Mask:
    """Return the chosen samples whose nearest neighbours were chosen, too, ``bool (N,)``.

    If the choice had nothing to do with what images look like from afar, as many of a sample's neighbours in its class
    would be chosen as of the class. A sample is enriched if the share is nearer to all of them: frames of one video,
    copies, an odd but natural look. A trigger is on images of all looks.

    Args:
        images: ``uint8 (N, H, W, C)``.
        labels: ``(N,)``.
        chosen: ``bool (N,)``.
    """
    found = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels[chosen]):
        members = np.flatnonzero(labels == label)
        of_class = torch.from_numpy(chosen[members]).double()
        looks = torch.from_numpy(coarse(images, members))
        count = min(NEAREST, len(members) - 1)
        if not count:
            continue
        for places in torch.split(torch.from_numpy(np.flatnonzero(chosen[members])), AT_ONCE):
            apart = torch.cdist(looks[places], looks).scatter(1, places[:, None], math.inf)
            shares = of_class[apart.topk(count, largest=False).indices].mean(dim=1)
            found[members[places.numpy()]] = (shares > (1 + of_class.mean()) / 2).numpy()
    return found


def coarse(images: Images, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return what these images look like from afar, ``float32 (n, D)``."""
    looks = [
        adaptive_avg_pool2d(torch.from_numpy(images[some].astype(np.float32)).permute(0, 3, 1, 2), SIDE).flatten(1)
        for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE))
    ]
    return torch.cat(looks).numpy()
