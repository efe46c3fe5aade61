"""What linear models see of an image: whitened colours, contrast, sharpness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.nets.net import measured
from foretaste.samples import Images

LARGEST_SIDE = 64
"""Views see larger images shrunk to this side, in pixels, which bounds their size."""
REACH = 2
"""Distance, in pixels, of the neighbours that contrast compares a pixel with."""
FAINTEST = 0.003
"""Variance that is added to each colour's before whitening, as a share of their mean."""
FLATTEST = 0.03
"""Added to a difference before its logarithm, in standard deviations of the pixels."""
TYPICAL = -1.9
"""The logarithm of a usual difference."""
LOG_SCALE = 0.25
"""Factor that brings these logarithms to the size of contrasts, for which the optimiser is set."""


class Whiten(nn.Module):
    """Subtract the mean and make the channels uncorrelated, each of variance 1, and shrink large images.

    Of images most variance is brightness, in which a faint hue would drown.

    Takes ``uint8 (N, H, W, C)`` and returns ``float32 (N, C, H', W')`` in channels-last memory order.

    Args:
        sample_shape: (H, W, C).
        largest_side: larger images are shrunk to this side, in pixels.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, sample_shape: tuple[int, ...], largest_side: int = LARGEST_SIDE) -> None:
        super().__init__()
        height, width, n_channels = sample_shape
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("matrix", torch.eye(n_channels) / 255)
        size = min(height, largest_side), min(width, largest_side)
        self.shrink = nn.Identity() if size == (height, width) else nn.AdaptiveAvgPool2d(size)
        self.n_values = size[0] * size[1] * n_channels

    def measure(self, images: Images) -> None:
        """Set mean and matrix from images ``uint8 (N, H, W, C)``, which may be memory-mapped; N ≥ 1."""
        count, sums, products = 0, np.zeros(images.shape[-1]), np.zeros((images.shape[-1],) * 2)
        for piece in measured(images):
            values = piece.reshape(-1, images.shape[-1]).astype(np.float64)
            count += len(values)
            sums += values.sum(axis=0)
            products += values.T @ values
        mean = sums / count
        variances, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
        # What hardly varies is noise, or the rounding of values.
        variances = variances.clip(0) + max(FAINTEST * variances.mean(), 1e-6)
        self.mean.copy_(torch.from_numpy(mean))
        self.matrix.copy_(torch.from_numpy(axes / np.sqrt(variances) @ axes.T))

    def forward(self, images: Tensor) -> Tensor:
        """Whiten a batch."""
        # As a convolution, which takes a fifth of the time of a product of small matrices.
        kernel = self.matrix.T[:, :, None, None].contiguous(memory_format=torch.channels_last)
        pixels = images.float().permute(0, 3, 1, 2)
        whitened: Tensor = self.shrink(nn.functional.conv2d(pixels, kernel, -self.mean @ self.matrix))
        return whitened


def contrast(images: Tensor) -> Tensor:
    """Take from each pixel of ``(N, C, H, W)`` the mean of its four neighbours at ``REACH``, edges repeated.

    Contrasts are clipped to 1: outliers would drown all others.
    """
    padded = nn.functional.pad(images, (REACH,) * 4, mode="replicate")
    up, down = padded[:, :, : -2 * REACH, REACH:-REACH], padded[:, :, 2 * REACH :, REACH:-REACH]
    left, right = padded[:, :, REACH:-REACH, : -2 * REACH], padded[:, :, REACH:-REACH, 2 * REACH :]
    return (images - (up + down + left + right) / 4).clamp(-1, 1)


def sharpness(images: Tensor) -> Tensor:
    """Return the logarithms of each pixel's differences along its column and row: ``(N, C, H, W)`` to 4 C maps.

    Moving an image by a part of a pixel smooths it, by how much depends on the part alone: of a warp this stays at its
    place while the image changes. First differences show it as second ones do, but not at the same pixels. The
    logarithms, 0 for a usual difference, are of the second differences, then of those to the next pixel.
    """
    # Differences along rows take half the time where neighbours lie side by side in memory.
    padded = nn.functional.pad(images.contiguous(), (1,) * 4, mode="replicate")
    down, across = padded[..., 1:-1].diff(dim=2), padded[:, :, 1:-1].diff(dim=3)
    differences = torch.cat([down.diff(dim=2), across.diff(dim=3), down[:, :, 1:], across[..., 1:]], dim=1)
    return differences.abs_().add_(FLATTEST).log_().sub_(TYPICAL).mul_(LOG_SCALE)
