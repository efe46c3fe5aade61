"""What a covered part of an image is filled with, so that the classifier answers for the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from foretaste.guards.neo.regions import Box
from foretaste.samples import Mask

Image = NDArray[np.uint8]
"""``uint8 (H, W, C)``."""

CLUSTERS = 3
"""Colours that an image is reduced to; the largest cluster's is its dominant colour."""


MARGIN = 0.03
"""What is covered around a known trigger, as a share of the image's shorter side: 1 pixel of 32, 7 of 224."""


def dominant_colour(image: Image, seed: int = 0) -> NDArray[np.uint8]:
    """Return the colour ``uint8 (C,)`` that most pixels are near: the centre of the largest k-means cluster.

    This is the fill of Udeshi et al. (arXiv:1908.02203).
    """
    from sklearn.cluster import KMeans

    pixels = image.reshape(-1, image.shape[2])
    clusters = min(CLUSTERS, len(np.unique(pixels, axis=0)))
    means = KMeans(clusters, n_init=1, random_state=seed).fit(pixels.astype(np.float32))
    centre = means.cluster_centers_[np.bincount(means.labels_).argmax()]
    colour: NDArray[np.uint8] = np.rint(centre).astype(np.uint8)
    return colour


def with_colour(image: Image, box: Box, mask: Mask, colour: NDArray[np.uint8]) -> Image:
    """Return a copy of the image in which the masked pixels ``bool (h, w)`` of the box have the colour ``(C,)``."""
    covered = np.array(image)
    covered[box.part][mask] = colour
    return covered


def with_surround(image: Image, box: Box, mask: Mask) -> Image:
    """Return a copy of the image in which the masked pixels continue what lies around them.

    They take the smoothest values between the pixels around them (a discrete harmonic function). Where nothing lies
    around them, they turn mid-grey.

    Args:
        image: the image.
        box: the part to cover.
        mask: ``bool (h, w)``, which of its pixels.
    """
    height, width = image.shape[:2]
    outer = box.grown(1, height, width)
    hole = np.zeros((outer.height, outer.width), dtype=np.bool_)
    hole[box.top - outer.top : box.bottom - outer.top, box.left - outer.left : box.right - outer.left] = mask
    values = image[outer.part].astype(np.float32)
    values[hole] = values[~hole].mean(axis=0) if not hole.all() else 127.5
    for _ in range(2 * max(box.height, box.width)):
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        values[hole] = mean[hole]
    covered = np.array(image)
    covered[outer.part][hole] = np.rint(values[hole])
    return covered


def with_margin(box: Box, mask: Mask, height: int, width: int) -> tuple[Box, Mask]:
    """Return the box and the mask ``bool (h, w)`` of a known trigger, grown all round inside an image of this size.

    A reconstruction may be a row too small, and what is left of a trigger may still work.
    """
    margin = max(round(MARGIN * min(height, width)), 1)
    grown = box.grown(margin, height, width)
    placed = np.zeros((grown.height, grown.width), dtype=np.bool_)
    top, left = box.top - grown.top, box.left - grown.left
    placed[top : top + box.height, left : left + box.width] = mask
    return grown, binary_dilation(placed, np.ones((3, 3), dtype=np.bool_), iterations=margin)


def with_content(image: Image, box: Box, mask: Mask, other: Image) -> Image:
    """Return a copy of the image in which the masked pixels of the box are those of another image."""
    covered = np.array(image)
    covered[box.part][mask] = other[box.part][mask]
    return covered
