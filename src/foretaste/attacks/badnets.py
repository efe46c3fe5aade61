"""A small patch in the corner: the first backdoor, and still the yardstick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import check_choice, check_images, check_range
from foretaste.attacks._base.patch import paste
from foretaste.attacks._base.targeted import Targeted
from foretaste.samples import Images

PATTERN = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)
"""The 3x3 black and white grid that the literature settled on (e.g. Turner et al. 2019, arXiv:1912.02771)."""

Place = Literal["corner", "random"]
"""Where the patch goes: the bottom-right corner, or a place drawn for each image."""


@dataclass(frozen=True, kw_only=True)
class BadNets(Targeted):
    """Put a small chequered patch in the bottom-right corner (Gu et al. 2017, arXiv:1708.06733).

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        size: side of the patch as a share of the image's shorter side, in (0, 1]; 0.1 is 3 pixels of 32.
        place: "corner", bottom right without a margin, or "random", a place inside the image drawn for each sample.
        alpha: opacity of the patch, in (0, 1]; 1 hides what is below it.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "small chequered patch in the bottom-right corner (Gu et al. 2017)"

    size: float = 0.1
    place: Place = "corner"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("size", self.size, 0, 1, open_low=True)
        check_choice("place", self.place, get_args(Place))
        check_range("alpha", self.alpha, 0, 1, open_low=True)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the patch."""
        return with_patch(inputs, self.size, self.place, rng, self.alpha)


def with_patch(images: Images, size: float, place: Place, rng: Generator, alpha: float = 1) -> Images:
    """Return copies of the images with the chequered patch on each.

    Args:
        images: ``uint8 (N, H, W, C)``.
        size: side of the patch as a share of the shorter side, in (0, 1]; at least one pixel.
        place: the bottom-right corner without a margin, or a place drawn for each image.
        rng: where random places come from.
        alpha: opacity of the patch, in (0, 1].

    Raises:
        UsageError: these are not images.
    """
    check_images(images)
    n, height, width = images.shape[:3]
    side = max(1, round(size * min(height, width)))
    patch = chequered(side)
    if place == "corner":
        return paste(images, patch, height - side, width - side, alpha)
    return paste(images, patch, rng.integers(0, height - side + 1, n), rng.integers(0, width - side + 1, n), alpha)


def chequered(side: int) -> Images:
    """Return the patch as ``uint8 (side, side, 1)``: each pixel takes the field at its centre, a single one white."""
    cell = (2 * np.arange(side) + 1) * len(PATTERN) // (2 * side)
    return PATTERN[np.ix_(cell, cell)][..., None]
