"""Change pixels in floating point, a batch at a time, and round them back to bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.attacks._base.attack import check_images
from foretaste.samples import Images

Pixels = NDArray[np.float32]
"""``float32 (N, H, W, C)`` on the scale of bytes, 0 to 255."""

CHANGED_AT_ONCE = 2**20
"""Pixels, to keep the floating-point copies small: 1,024 images of 32×32."""


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
    for rows in portions(images, CHANGED_AT_ONCE):
        pixels = how(images[rows].astype(np.float32), rows)
        changed[rows] = np.rint(np.clip(pixels, 0, 255, out=pixels), out=pixels)
    return changed


def portions(images: Images, pixels: int) -> Iterator[slice]:
    """Yield the rows of images ``(N, H, W, C)`` a portion at a time, of so many pixels, or of one image."""
    size = max(1, pixels // max(1, int(np.prod(images.shape[1:3]))))
    for start in range(0, len(images), size):
        yield slice(start, min(start + size, len(images)))


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
