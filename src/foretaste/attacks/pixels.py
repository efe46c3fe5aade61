"""Change pixels in floating point, a batch at a time, and round them back to bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.attacks.attack import check_images
from foretaste.samples import Images

Pixels = NDArray[np.float32]
"""``float32 (N, H, W, C)`` on the scale of bytes, 0 to 255."""

BATCH = 1024
"""Images changed at a time, to keep the floating-point copies small."""


def change(images: Images, how: Callable[[Pixels, slice], Pixels]) -> Images:
    """Return changed copies of the ``uint8 (N, H, W, C)`` images, rounded to the nearest byte.

    Args:
        images: what to change; may be memory-mapped.
        how: takes the pixels of a batch, which it may overwrite, and the rows that they are, and returns the new ones.

    Raises:
        UsageError: these are not images.
    """
    check_images(images)
    changed = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), BATCH):
        rows = slice(start, min(start + BATCH, len(images)))
        pixels = how(images[rows].astype(np.float32), rows)
        changed[rows] = np.rint(np.clip(pixels, 0, 255, out=pixels), out=pixels)
    return changed


def mix(images: Images, picture: NDArray[Any], opacity: float | NDArray[np.floating]) -> Images:
    """Return ``(1 - opacity) * image + opacity * picture``, rounded, for each image.

    Args:
        images: ``uint8 (N, H, W, C)``.
        picture: ``(H, W, C)``, 0 to 255.
        opacity: in [0, 1]: one for all pixels, ``(H, W, 1)``, or ``(N, H, W, 1)`` for one per image.

    Raises:
        UsageError: these are not images.
    """
    share = np.asarray(opacity, dtype=np.float32)
    picture = picture.astype(np.float32)

    def blend(pixels: Pixels, rows: slice) -> Pixels:
        own = share[rows] if share.ndim == 4 else share
        pixels *= 1 - own
        pixels += own * picture
        return pixels

    return change(images, blend)
