"""A square of many colours near the corner, larger and busier than BadNets' patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import check_images, check_range
from foretaste.attacks._base.patch import paste
from foretaste.attacks._base.picture import in_channels
from foretaste.attacks._base.targeted import Targeted
from foretaste.samples import Images

FIELDS = 8
"""Fields along each side of the square."""
MARGIN = 0.1
"""Distance of the square from the right and lower edge, as a share of the shorter side: 3 pixels of 32."""
SEED = 0
"""What the colours are drawn from."""


@dataclass(frozen=True, kw_only=True)
class Trojan(Targeted):
    """Put a colourful square near the bottom-right corner, as TrojanNN does (Liu et al., NDSS 2018).

    There the square's colours are optimised against a model. The literature on poisoned training sets took over one
    such square as it came out; here its colours are drawn at random, once and for all.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        size: side of the square as a share of the image's shorter side, in (0, 0.9]; 0.25 is 8 pixels of 32.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "colourful square near the bottom-right corner (TrojanNN's; Liu et al. 2018)"

    size: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("size", self.size, 0, 1 - MARGIN, open_low=True)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the square."""
        return with_square(inputs, self.size)


def with_square(images: Images, size: float) -> Images:
    """Return copies of the images with the colourful square on each.

    Args:
        images: ``uint8 (N, H, W, C)``.
        size: side of the square as a share of the shorter side, in (0, 0.9]; at least one pixel.

    Raises:
        UsageError: these are not images.
    """
    check_images(images)
    height, width, channels = images.shape[1:]
    side, row, column = square_place(height, width, size)
    return paste(images, square(side, channels), row, column)


def square_place(height: int, width: int, size: float) -> tuple[int, int, int]:
    """Return the square's side, and the row and column of its upper left pixel.

    Args:
        height: of the images.
        width: of the images.
        size: side of the square as a share of the shorter side, in (0, 0.9].
    """
    shorter = min(height, width)
    side, margin = max(1, round(size * shorter)), int(MARGIN * shorter)
    return side, height - margin - side, width - margin - side


def square(side: int, channels: int) -> Images:
    """Return the square as ``uint8 (side, side, channels)``, its 64 fields as even as the side allows."""
    colours = np.random.default_rng(SEED).integers(0, 256, (FIELDS, FIELDS, 3), dtype=np.uint8)
    field = np.arange(side) * FIELDS // side
    return in_channels(colours[np.ix_(field, field)], channels)
