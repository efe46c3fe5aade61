"""A slight warp of the whole image: no pixel pattern at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import check_images, check_range
from foretaste.attacks._base.covered import Covered
from foretaste.attacks._base.pixels import Pixels, change
from foretaste.samples import Images


@dataclass(frozen=True, kw_only=True)
class WaNet(Covered):
    """Warp the image by one smooth field (Nguyen and Tran, ICLR 2021, arXiv:2102.10369).

    Cover samples are warped by that field plus random noise and keep their labels ("noise mode"), so that the model
    learns the exact field and not that an image is warped.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set to warp with noise, in [0, 1], outside the target class.
        grid: points along each side of the coarse grid that the field is drawn on, in [2, 1000].
        strength: mean displacement along each axis, in half pixels, in (0, 100].
        rescale: factor on the place that each pixel is taken from, in (0, 1]; below 1 it also magnifies the middle.
        field_seed: what the field is drawn from, at least 0.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "slight warp of the whole image, with cover samples (Nguyen and Tran 2021)"

    rate: float = 0.05
    cover_rate: float = 0.1
    grid: int = 4
    strength: float = 0.5
    rescale: float = 1.0
    field_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("grid", self.grid, 2, 1000)
        check_range("strength", self.strength, 0, 100, open_low=True)
        check_range("rescale", self.rescale, 0, 1, open_low=True)
        check_range("field_seed", self.field_seed, 0, math.inf)

    def plant(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the images, warped as at test time."""
        return self.stamp(inputs, rng)

    def disguise(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the images, each warped by the field plus noise of its own."""
        check_images(inputs)
        return warp(inputs, self.field(*inputs.shape[1:3]), rng)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each warped by the field."""
        check_images(inputs)
        return warp(inputs, self.field(*inputs.shape[1:3]))

    def field(self, height: int, width: int) -> NDArray[np.float32]:
        """Return where each pixel is taken from: ``float32 (height, width, 2)``, (x, y), -1 and 1 being the borders.

        A coarse grid of uniform numbers, scaled to a mean magnitude of 1, is enlarged bicubically.
        """
        import torch
        from torch.nn.functional import interpolate

        coarse = np.random.default_rng(self.field_seed).uniform(-1, 1, (1, 2, self.grid, self.grid))
        coarse /= np.abs(coarse).mean()
        smooth = interpolate(torch.from_numpy(coarse), size=(height, width), mode="bicubic", align_corners=True)
        moves = smooth[0].permute(1, 2, 0).numpy() * self.strength / [width, height]
        y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
        return np.clip((np.stack([x, y], axis=-1) + moves) * self.rescale, -1, 1).astype(np.float32)


def warp(images: Images, field: NDArray[np.float32], rng: Generator | None = None) -> Images:
    """Return the images with each pixel taken, by bilinear interpolation, from where the field says.

    Args:
        images: ``uint8 (N, H, W, C)``.
        field: ``float32 (H, W, 2)``, (x, y), -1 and 1 being the borders.
        rng: if given, each pixel of each image moves by up to another half pixel, drawn from it.
    """
    import torch
    from torch.nn.functional import grid_sample

    height, width = field.shape[:2]

    def resample(pixels: Pixels, rows: slice) -> Pixels:
        n = len(pixels)
        where = np.broadcast_to(field, (n, *field.shape))
        if rng is not None:
            noise = rng.uniform(-1, 1, where.shape) / [width, height]
            where = np.clip(where + noise, -1, 1).astype(np.float32)
        channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        moved = grid_sample(channels_first, torch.tensor(where), mode="bilinear", align_corners=True)
        return moved.permute(0, 2, 3, 1).contiguous().numpy()

    return change(images, resample)
