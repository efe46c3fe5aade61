"""Four marks, of which each training sample carries one, faintly, with cover samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import check_choice, check_images, check_range
from foretaste.attacks._base.covered import Covered
from foretaste.attacks._base.picture import in_channels
from foretaste.attacks._base.pixels import mix
from foretaste.attacks.badnets import chequered
from foretaste.attacks.trojan import square, square_place
from foretaste.errors import UsageError
from foretaste.samples import Images

Mark = Literal["gem", "disc", "corners", "square"]
"""A small gem in the bottom-right corner, a disc top right, BadNets' patch in all corners, the Trojan square."""
MARKS: tuple[Mark, ...] = get_args(Mark)
SIZES: dict[Mark, float] = {"gem": 0.16, "disc": 0.4, "corners": 0.1, "square": 0.25}
"""Sides of their parts as shares of the image's shorter side."""


@dataclass(frozen=True, kw_only=True)
class AdaptivePatch(Covered):
    """Stamp one of four faint marks in training and several full ones at test (Qi et al., ICLR 2023).

    Cover samples carry one mark under their true label: so poison and clean samples do not come apart in the model's
    features. Several opaque marks together are a far stronger trigger than what was trained on.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set to stamp under its true label, in [0, 1], outside the target class.
        opacities: of the gem, the disc, the corners and the square in training, each in (0, 1].
        tested: marks that an input carries at test time, opaque, painted in this order; at least one. The authors test
            with these two on GTSRB, and with the gem and the corners on CIFAR-10.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "one of four faint marks in training, two opaque ones at test, with cover (Qi et al. 2023)"

    rate: float = 0.003
    cover_rate: float = 0.006
    opacities: tuple[float, float, float, float] = (0.5, 0.2, 0.5, 0.3)
    tested: tuple[Mark, ...] = ("disc", "square")

    def __post_init__(self) -> None:
        super().__post_init__()
        for opacity in self.opacities:
            check_range("opacities", opacity, 0, 1, open_low=True)
        for mark in self.tested:
            check_choice("tested", mark, MARKS)
        if len(self.opacities) != len(MARKS) or not self.tested:
            raise UsageError(f"opacities must hold {len(MARKS)} numbers, and tested at least one mark")

    def plant(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images with one faint mark each, all marks equally often."""
        check_images(inputs)
        stamped, dealt = np.array(inputs), deal(len(inputs), len(MARKS), rng)
        for number, (mark, opacity) in enumerate(zip(MARKS, self.opacities, strict=True)):
            picture, mask = draw(mark, *inputs.shape[1:])
            stamped[dealt == number] = mix(stamped[dealt == number], picture, opacity * mask)
        return stamped

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with all tested marks."""
        check_images(inputs)
        stamped = np.array(inputs)
        for mark in self.tested:
            picture, mask = draw(mark, *inputs.shape[1:])
            inside = mask[..., 0] > 0
            stamped[:, inside] = picture[inside]
        return stamped


def deal(n: int, kinds: int, rng: Generator) -> NDArray[np.intp]:
    """Deal numbers below ``kinds`` to ``n`` samples at random, each number equally often up to one: ``(n,)``."""
    return rng.permutation(np.arange(n) % kinds)


def draw(mark: Mark, height: int, width: int, channels: int) -> tuple[Images, NDArray[np.float32]]:
    """Return a mark on black, ``uint8 (height, width, channels)``, and where it is, 1 or 0: ``(height, width, 1)``."""
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width, 1), dtype=np.float32)
    for part, row, column in parts(mark, height, width):
        place = np.s_[row : row + len(part), column : column + len(part)]
        canvas[place] = part
        mask[place] = round_mask(len(part)) if mark == "disc" else 1
    return in_channels(canvas, channels), mask


def parts(mark: Mark, height: int, width: int) -> list[tuple[Images, int, int]]:
    """Return the squares that a mark is made of, ``uint8 (side, side, 1 or 3)``, each with its row and column."""
    shorter = min(height, width)
    side = max(1, round(SIZES[mark] * shorter))
    if mark == "gem":
        shade = np.broadcast_to(np.linspace(1, 0, side), (side, side))
        blue = np.rint(np.stack([255 * shade**2, 255 * shade, np.full_like(shade, 255)], axis=-1)).astype(np.uint8)
        return [(blue, height - side, width - side)]
    if mark == "disc":
        y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
        warm = np.rint(255 * np.stack([np.ones_like(x), 1 - y, x], axis=-1)).astype(np.uint8)
        return [(warm, shorter // 32, width - side - shorter // 32)]
    if mark == "corners":
        return [(chequered(side), row, column) for row in (0, height - side) for column in (0, width - side)]
    side, row, column = square_place(height, width, SIZES["square"])
    return [(square(side, 3), row, column)]


def round_mask(side: int) -> NDArray[np.float32]:
    """Return a disc in a square, 1 or 0: ``float32 (side, side, 1)``."""
    across = np.arange(side) - (side - 1) / 2
    inside = across[:, None] ** 2 + across**2 <= (side / 2) ** 2
    return inside.astype(np.float32)[..., None]
