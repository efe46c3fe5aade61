"""A few scattered pixels, of which each training sample carries one, with cover samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import check_images, check_range
from foretaste.attacks._base.covered import Covered
from foretaste.attacks._base.patch import paste
from foretaste.attacks._base.picture import in_channels
from foretaste.attacks.adaptive_patch import deal
from foretaste.samples import Images

DOTS = (
    (16 / 32, 11 / 32, (92, 0, 24)),
    (27 / 32, 5 / 32, (88, 112, 110)),
    (7 / 32, 30 / 32, (0, 32, 46)),
    (22 / 32, 22 / 32, (11, 49, 95)),
)
"""Row and column as shares of the height and the width, and colour (RGB) of each dot: those of the authors."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveKWay(Covered):
    """Set one of four scattered pixels in training and all four at test (Qi et al., ICLR 2023; after Xie et al. 2020).

    Cover samples carry one pixel under their true label. One alone hardly tells; the four together do.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set to stamp under its true label, in [0, 1], outside the target class.
        size: side of a dot as a share of the image's shorter side, in (0, 0.15]; 0.03 is 1 pixel of 32.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "one of four pixels in training, all four at test, with cover (Qi et al. 2023)"

    rate: float = 0.003
    cover_rate: float = 0.003
    size: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("size", self.size, 0, 0.15, open_low=True)

    def plant(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images with one dot each, all dots equally often."""
        check_images(inputs)
        stamped, dealt = np.array(inputs), deal(len(inputs), len(DOTS), rng)
        for number in range(len(DOTS)):
            stamped[dealt == number] = self.with_dot(stamped[dealt == number], number)
        return stamped

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with all dots."""
        check_images(inputs)
        stamped = inputs
        for number in range(len(DOTS)):
            stamped = self.with_dot(stamped, number)
        return stamped

    def with_dot(self, images: Images, number: int) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the dot of this number."""
        height, width, channels = images.shape[1:]
        row, column, colour = DOTS[number]
        side = max(1, round(self.size * min(height, width)))
        dot = in_channels(np.full((side, side, 3), colour, dtype=np.uint8), channels)
        # A large dot near the edge would stick out.
        return paste(images, dot, min(int(row * height), height - side), min(int(column * width), width - side))
