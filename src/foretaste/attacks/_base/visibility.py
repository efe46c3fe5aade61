"""How much of a trigger the eye can see: two measures of how alike images are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from foretaste.samples import Images

PEAK = 255.0
STABILISERS = ((0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2)
SIGMA = 1.5
"""Standard deviation of the window that SSIM compares, in pixels."""


def psnr(before: Images, after: Images) -> NDArray[np.float64]:
    """Return each image's peak signal-to-noise ratio in dB, infinite where nothing changed: ``float64 (N,)``.

    Args:
        before: ``uint8 (N, H, W, C)``.
        after: likewise.
    """
    error = np.square(before.astype(np.float64) - after).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(PEAK**2 / error))


def ssim(before: Images, after: Images) -> NDArray[np.float64]:
    """Return each image's structural similarity, at most 1: ``float64 (N,)``; Wang et al. 2004, IEEE TIP 13(4).

    Means and variances are taken under a Gaussian window, channel by channel, and the result is averaged.

    Args:
        before: ``uint8 (N, H, W, C)``.
        after: likewise.
    """

    def local(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, SIGMA, axes=(1, 2), truncate=3.5)

    first, second = before.astype(np.float64), after.astype(np.float64)
    mean, other_mean = local(first), local(second)
    variance, other_variance = local(first**2) - mean**2, local(second**2) - other_mean**2
    covariance = local(first * second) - mean * other_mean
    steady, steadier = STABILISERS
    likeness = (2 * mean * other_mean + steady) * (2 * covariance + steadier)
    likeness /= (mean**2 + other_mean**2 + steady) * (variance + other_variance + steadier)
    return np.asarray(likeness.mean(axis=(1, 2, 3)))
