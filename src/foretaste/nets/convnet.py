"""A plain convolutional network, without shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from foretaste.nets.net import Net
from foretaste.nets.resnet import check_shape, conv_norm


class ConvNet(Net):
    """Three stages of two 3×3 convolutions, each followed by max pooling (after VGG, arXiv:1409.1556)."""

    name = "convnet"
    default_width = 16

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> ConvNet:
        """Return an uninitialised net."""
        check_shape(cls.name, sample_shape)
        layers: list[nn.Module] = []
        n_in = sample_shape[2]
        for n_out in (width, 2 * width, 4 * width):
            layers += [conv_norm(n_in, n_out, 3), nn.ReLU(), conv_norm(n_out, n_out, 3), nn.ReLU(), nn.MaxPool2d(2)]
            n_in = n_out
        body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return cls(sample_shape, classes, width, body, (4, 9, 14), n_in)
