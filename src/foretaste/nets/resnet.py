"""Residual networks for small images (He et al. 2016, arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foretaste.errors import UsageError
from foretaste.nets.net import Net

SMALLEST_SIDE = 16
"""Images smaller than this, in pixels, leave the last stage nothing to see."""


def conv_norm(n_in: int, n_out: int, side: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalisation; ``side`` is the kernel's, odd."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, side, stride, padding=side // 2, bias=False), nn.BatchNorm2d(n_out))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added, projected by 1×1 where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = conv_norm(n_in, n_out, 3, stride)
        self.second = conv_norm(n_out, n_out, 3)
        self.shortcut = nn.Identity() if stride == 1 and n_in == n_out else conv_norm(n_in, n_out, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, n_in, H, W)`` to ``(N, n_out, H / stride, W / stride)``."""
        hidden = torch.relu(self.first(inputs))
        # Not by the convolution's own stride: oneDNN 3.12 then writes outside of its memory where the processor has no
        # AVX-512 and the channels are no multiple of 8.
        seen = inputs[:, :, :: self.stride, :: self.stride]
        return torch.relu(self.second(hidden) + self.shortcut(seen))


def resnet(n_channels: int, width: int, *, stem_stride: int, blocks: int) -> nn.Sequential:
    """Return a body of four stages, ``width`` to ``8 * width`` channels, that ends in the average over all places."""
    stages: list[nn.Module] = [conv_norm(n_channels, width, 3, stem_stride), nn.ReLU()]
    n_in = width
    for stage in range(4):
        for block in range(blocks):
            n_out = width * 2**stage
            stages.append(BasicBlock(n_in, n_out, stride=2 if stage > 0 and block == 0 else 1))
            n_in = n_out
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def stage_ends(blocks: int) -> tuple[int, ...]:
    """Return the places in the body of ``resnet`` of each stage's last block; the stem takes the first two."""
    return tuple(1 + stage * blocks for stage in range(1, 5))


def check_shape(name: str, sample_shape: tuple[int, ...]) -> None:
    """Refuse inputs that are not images, or too small.

    Raises:
        UsageError: they are.
    """
    if len(sample_shape) != 3:
        raise UsageError(f"the net {name} takes images, and these samples are feature vectors; take the net mlp")
    if min(sample_shape[:2]) < SMALLEST_SIDE:
        raise UsageError(
            f"the net {name} takes images of {SMALLEST_SIDE} pixels or more, not {sample_shape[1]}×{sample_shape[0]}"
        )


class ResNet18(Net):
    """ResNet-18 as the literature uses it on 32×32 images: a 3×3 stem at full resolution, two blocks per stage."""

    name = "resnet18"
    default_width = 64

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> ResNet18:
        """Return an uninitialised net."""
        check_shape(cls.name, sample_shape)
        body = resnet(sample_shape[2], width, stem_stride=1, blocks=2)
        return cls(sample_shape, classes, width, body, stage_ends(blocks=2), 8 * width)


class CompactResNet(Net):
    """Ten layers with a stem of stride 2 and one block per stage: trains in minutes on two CPU cores."""

    name = "compact-resnet"
    default_width = 16

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> CompactResNet:
        """Return an uninitialised net."""
        check_shape(cls.name, sample_shape)
        body = resnet(sample_shape[2], width, stem_stride=2, blocks=1)
        return cls(sample_shape, classes, width, body, stage_ends(blocks=1), 8 * width)
