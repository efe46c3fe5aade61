"""The networks of Confusion Training that look for marks: by place, by what is sharp there, and by shape."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.nets.net import measured
from foretaste.samples import Images

LARGEST_SIDE = 64
"""The confused models see larger images shrunk to this side, in pixels, which bounds their size."""
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
WIDTH = 16
"""Channels of the convolutional model at full size."""


class Whiten(nn.Module):
    """Subtract the mean and make the channels uncorrelated, each of variance 1.

    Of images most variance is brightness, in which a faint hue would drown.

    Takes ``uint8 (N, H, W, C)`` and returns ``float32 (N, C, H, W)`` in channels-last memory order.

    Args:
        n_channels: C.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("matrix", torch.eye(n_channels) / 255)

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
        return ((images.float() - self.mean) @ self.matrix).permute(0, 3, 1, 2)


class ConfusedModel(nn.Module):
    """A map of raw images to K + 1 outputs that knows nothing when it is new: all outputs are 0.

    The first K outputs are added to nature's logits; the last is taken from the logit of nature's answer.

    Args:
        sample_shape: (H, W, C) of the images.
        body: from whitened images ``float32 (N, C, H', W')``, sides at most ``LARGEST_SIDE``, to features.
        n_features: how many.
        n_classes: K.
    """

    def __init__(self, sample_shape: tuple[int, ...], body: nn.Module, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.whiten = Whiten(sample_shape[2])
        self.shrink = shrunk(sample_shape)
        self.body = body
        self.linear = nn.Linear(n_features, n_classes + 1, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``float32 (N, K + 1)`` of raw images ``uint8 (N, H, W, C)``."""
        outputs: Tensor = self.linear(self.body(self.shrink(self.whiten(images))))
        return outputs

    @torch.inference_mode()
    def outputs(self, inputs: Tensor) -> NDArray[np.float32]:
        """Return the outputs as an array."""
        outputs: NDArray[np.float32] = self(inputs).float().cpu().numpy()
        return outputs


def placed(sample_shape: tuple[int, ...], n_classes: int) -> ConfusedModel:
    """Return a model that is linear in each pixel's contrast: it sees marks that stay at their place."""
    height, width = seen(sample_shape)
    body = nn.Sequential(Contrast(), nn.Flatten())
    return ConfusedModel(sample_shape, body, height * width * sample_shape[2], n_classes)


def resampled(sample_shape: tuple[int, ...], n_classes: int) -> ConfusedModel:
    """Return a model that is linear in each pixel's sharpness: it sees what was warped, blurred or drawn anew there."""
    height, width = seen(sample_shape)
    body = nn.Sequential(Sharpness(), nn.Flatten())
    return ConfusedModel(sample_shape, body, 4 * height * width * sample_shape[2], n_classes)


def moving(sample_shape: tuple[int, ...], n_classes: int, generator: torch.Generator) -> ConfusedModel:
    """Return a convolutional model: it sees what marks look like, wherever they are.

    Args:
        sample_shape: (H, W, C) of the images.
        n_classes: K.
        generator: a CPU generator, the only source of randomness.
    """
    n_in, layers = 2 * sample_shape[2], list[nn.Module]([WithContrast()])
    for n_out, stride in ((WIDTH, 1), (WIDTH, 2), (2 * WIDTH, 1), (2 * WIDTH, 2), (4 * WIDTH, 1)):
        convolution = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False, device="meta").to_empty(device="cpu")
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        # The memory order that the images come in.
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        layers += [convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        n_in = n_out
    body = nn.Sequential(*layers, MeanAndMost())
    return ConfusedModel(sample_shape, body, 2 * n_in, n_classes)


def detector(sample_shape: tuple[int, ...]) -> ConfusedModel:
    """Return a model of one output that is linear in contrast and sharpness, to tell poison from the rest."""
    height, width = seen(sample_shape)
    return ConfusedModel(sample_shape, ContrastAndSharpness(), 5 * height * width * sample_shape[2], 0)


class ContrastAndSharpness(nn.Module):
    """Take the contrasts and the sharpness of images, ``(N, C, H, W)`` to ``(N, 5 C H W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.contrast, self.sharpness = Contrast(), Sharpness()

    def forward(self, images: Tensor) -> Tensor:
        """Return contrasts and sharpness side by side."""
        return torch.cat([self.contrast(images), self.sharpness(images)], dim=1).flatten(1)


class WithContrast(nn.Module):
    """Put the contrasts of images ``(N, C, H, W)`` beside them: ``(N, 2 C, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.contrast = Contrast()

    def forward(self, images: Tensor) -> Tensor:
        """Return images and contrasts."""
        return torch.cat([images, self.contrast(images)], dim=1)


class MeanAndMost(nn.Module):
    """Pool maps ``(N, C, H, W)`` to ``(N, 2 C)``: the mean shows textures, the maximum a small patch anywhere."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return means and maxima."""
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


class Contrast(nn.Module):
    """Take from each pixel of ``(N, C, H, W)`` the mean of its four neighbours at ``REACH``, edges repeated."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the contrasts, no further than 1 from 0: outliers would drown everybody else."""
        padded = nn.functional.pad(images, (REACH,) * 4, mode="replicate")
        up, down = padded[:, :, : -2 * REACH, REACH:-REACH], padded[:, :, 2 * REACH :, REACH:-REACH]
        left, right = padded[:, :, REACH:-REACH, : -2 * REACH], padded[:, :, REACH:-REACH, 2 * REACH :]
        return (images - (up + down + left + right) / 4).clamp(-1, 1)


class Sharpness(nn.Module):
    """Take the logarithms of each pixel's differences along its column and row: ``(N, C, H, W)`` to 4 C maps.

    Moving an image by a part of a pixel smooths it, by how much depends on the part alone: of a warp this stays at its
    place while the image changes. First differences show it as second ones do, but not at the same pixels.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms, 0 for a usual difference: of second differences, then of those to the next pixel."""
        # Differences along rows take half the time where neighbours lie side by side in memory.
        padded = nn.functional.pad(images.contiguous(), (1,) * 4, mode="replicate")
        down, across = padded[..., 1:-1].diff(dim=2), padded[:, :, 1:-1].diff(dim=3)
        differences = torch.cat([down.diff(dim=2), across.diff(dim=3), down[:, :, 1:], across[..., 1:]], dim=1)
        return differences.abs_().add_(FLATTEST).log_().sub_(TYPICAL).mul_(LOG_SCALE)


def seen(sample_shape: tuple[int, ...], largest: int = LARGEST_SIDE) -> tuple[int, int]:
    """Return the height and width that images of this shape are seen at, no side above the largest."""
    return min(sample_shape[0], largest), min(sample_shape[1], largest)


def shrunk(sample_shape: tuple[int, ...], largest: int = LARGEST_SIDE) -> nn.Module:
    """Return what shrinks images of this shape, ``(N, C, H, W)``, to the size that they are seen at."""
    size = seen(sample_shape, largest)
    return nn.Identity() if size == sample_shape[:2] else nn.AdaptiveAvgPool2d(size)
