"""Paste a small picture into images, at one place or at a place of each image's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.attacks._base.pixels import mix
from foretaste.samples import Images


def paste(
    images: Images,
    patch: Images,
    rows: int | NDArray[np.integer],
    columns: int | NDArray[np.integer],
    opacity: float = 1,
) -> Images:
    """Return copies of the ``uint8 (N, H, W, C)`` images with the patch on each.

    Args:
        images: what to paste into.
        patch: ``uint8 (h, w, C)``, or ``(h, w, 1)`` for the same value in every channel.
        rows: row of the patch's upper left pixel: one for all, or ``(N,)``; the patch must lie inside the image.
        columns: its column, likewise.
        opacity: of the patch, in (0, 1]; 1 hides what is below it.
    """
    n, (height, width) = len(images), patch.shape[:2]
    down = np.broadcast_to(rows, n)[:, None, None] + np.arange(height)[:, None]
    across = np.broadcast_to(columns, n)[:, None, None] + np.arange(width)
    stamped = np.array(images)
    below = np.arange(n)[:, None, None], down, across
    stamped[below] = mix(stamped[below], patch, opacity)
    return stamped
