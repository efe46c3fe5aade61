"""A few scattered pixels, of which each training sample carries one, with cover samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks.adaptive_patch import deal
from foretaste.attacks.attack import check_images, check_range
from foretaste.attacks.covered import Covered
from foretaste.attacks.patch import paste
from foretaste.attacks.picture import in_channels
from foretaste.samples import Images

DOTS = ((0.3, 0.25, (230, 30, 60)), (0.2, 0.8, (20, 80, 220)), (0.85, 0.15, (250, 210, 0)), (0.65, 0.7, (0, 200, 90)))
"""Row and column as shares of the height and the width, and colour (RGB) of each dot."""


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
        return paste(images, dot, int(row * height), int(column * width))
