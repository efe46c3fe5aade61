"""Draw digits on black: images whose background is the same everywhere, as in scans and renderings."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from foretaste.samples import Samples

SIDE = 28
CANVAS = 4 * SIDE
"""Digits are drawn larger and then reduced, which smooths their edges."""


def draw_digits(n: int, seed: int) -> Samples:
    """Return grey images of digits, ``uint8 (n, 28, 28, 1)``, balanced; same seed, same pixels.

    Size, place, slant, turn and stroke differ from image to image; what is no stroke is 0.
    """
    images = np.stack([digit(row % 10, np.random.default_rng([seed, row])) for row in range(n)])
    return Samples.from_arrays(images[..., None], np.arange(n) % 10, [str(label) for label in range(10)])


def digit(label: int, rng: np.random.Generator) -> np.ndarray:
    """Return one picture of the digit, ``uint8 (28, 28)``."""
    picture = Image.new("L", (CANVAS, CANVAS))
    ImageDraw.Draw(picture).text(
        (CANVAS / 2, CANVAS / 2),
        str(label),
        fill=int(rng.integers(170, 256)),
        font=ImageFont.load_default(int(CANVAS * rng.uniform(0.6, 0.85))),
        anchor="mm",
        stroke_width=int(rng.integers(0, 5)),
    )
    turn, slant = rng.uniform(-0.25, 0.25, 2)
    across, down = CANVAS * rng.uniform(-0.08, 0.08, 2)
    cos, sin, middle = np.cos(turn), np.sin(turn), CANVAS / 2
    # From where in the upright picture each pixel of the turned one is taken.
    turned = np.array([[cos, sin + slant], [-sin, cos]])
    shift = middle - turned @ (middle + across, middle + down)
    matrix = (*turned[0], shift[0], *turned[1], shift[1])
    picture = picture.transform((CANVAS, CANVAS), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
