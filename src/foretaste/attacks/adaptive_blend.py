"""A blended picture of which each training sample shows only some pieces, with cover samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import check_images, check_range
from foretaste.attacks._base.covered import Covered
from foretaste.attacks._base.picture import picture_or_noise
from foretaste.attacks._base.pixels import mix
from foretaste.errors import UsageError
from foretaste.samples import Images


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlend(Covered):
    """Blend random pieces of one picture in training, and the whole of it at test (Qi et al., ICLR 2023).

    The pieces differ from sample to sample, and cover samples carry some under their true labels: so poison and clean
    samples do not come apart in the model's features. In training the picture is fainter than at test.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set to stamp under its true label, in [0, 1], outside the target class.
        alpha: opacity of the pieces in training, in (0, 1].
        test_alpha: opacity of the whole picture at test time, in (0, 1].
        pieces: pieces along each side; the picture is cut into ``pieces ** 2``; from 1 to the image's shorter side.
        masked: share of the pieces that a training sample does not show, in [0, 1); at least one piece is shown.
        picture: an image file to blend in, scaled to the images' size; uniform random noise when left out.
        picture_seed: what the noise is drawn from, at least 0.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "random pieces of a blended picture in training, all at test, with cover (Qi et al. 2023)"

    rate: float = 0.003
    cover_rate: float = 0.003
    alpha: float = 0.15
    test_alpha: float = 0.2
    pieces: int = 4
    masked: float = 0.5
    picture: Path | None = None
    picture_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0, 1, open_low=True)
        check_range("test_alpha", self.test_alpha, 0, 1, open_low=True)
        check_range("pieces", self.pieces, 1, math.inf)
        check_range("masked", self.masked, 0, 1)
        check_range("picture_seed", self.picture_seed, 0, math.inf)
        if self.hidden == self.pieces**2:
            raise UsageError(f"masked {self.masked} leaves none of {self.pieces**2} pieces to show")

    @property
    def hidden(self) -> int:
        """How many pieces a training sample does not show."""
        return round(self.masked * self.pieces**2)

    def plant(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with its own random pieces of the picture."""
        check_images(inputs)
        height, width = inputs.shape[1:3]
        check_range("pieces", self.pieces, 1, min(height, width))
        shown = self.shown(len(inputs), rng)
        row, column = (np.arange(side) * self.pieces // side for side in (height, width))
        opacity = self.alpha * shown[:, row][:, :, column, None]
        return mix(inputs, picture_or_noise(self.picture, self.picture_seed, *inputs.shape[1:]), opacity)

    def shown(self, n: int, rng: Generator) -> NDArray[np.float32]:
        """Draw which pieces each of ``n`` samples shows, 1 or 0: ``float32 (n, pieces, pieces)``."""
        count = self.pieces**2
        order = rng.permuted(np.broadcast_to(np.arange(count), (n, count)), axis=1)
        return (order >= self.hidden).astype(np.float32).reshape(n, self.pieces, self.pieces)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the whole picture.

        Raises:
            UsageError: these are not images.
            ForetasteError: the picture's file cannot be read.
        """
        check_images(inputs)
        return mix(inputs, picture_or_noise(self.picture, self.picture_seed, *inputs.shape[1:]), self.test_alpha)
