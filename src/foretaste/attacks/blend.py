"""One faint picture over the whole image: a trigger without a place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from numpy.random import Generator

from foretaste.attacks._base.attack import check_images, check_range
from foretaste.attacks._base.picture import picture_or_noise
from foretaste.attacks._base.pixels import mix
from foretaste.attacks._base.targeted import Targeted
from foretaste.samples import Images


@dataclass(frozen=True, kw_only=True)
class Blend(Targeted):
    """Blend one fixed picture into the image (Chen et al. 2017, arXiv:1712.05526).

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        alpha: opacity of the picture, in (0, 1].
        picture: an image file to blend in, scaled to the images' size; uniform random noise when left out.
        picture_seed: what the noise is drawn from, at least 0.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "one fixed picture blended over the whole image (Chen et al. 2017)"

    alpha: float = 0.2
    picture: Path | None = None
    picture_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0, 1, open_low=True)
        check_range("picture_seed", self.picture_seed, 0, math.inf)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return ``(1 - alpha) * image + alpha * picture``, rounded, for each of the ``uint8 (N, H, W, C)`` images.

        Raises:
            UsageError: these are not images.
            ForetasteError: the picture's file cannot be read.
        """
        check_images(inputs)
        return mix(inputs, self.draw(*inputs.shape[1:]), self.alpha)

    def draw(self, height: int, width: int, channels: int) -> Images:
        """Return the picture as ``uint8 (height, width, channels)``: the same for the same fields.

        Raises:
            ForetasteError: the picture's file cannot be read.
        """
        return picture_or_noise(self.picture, self.picture_seed, height, width, channels)
