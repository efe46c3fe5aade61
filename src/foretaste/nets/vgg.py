"""VGG for small images (Simonyan and Zisserman 2015, arXiv:1409.1556), with batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from foretaste.nets.net import Net
from foretaste.nets.resnet import check_shape, conv_norm

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Output channels of the convolutions of each stage, in multiples of the width: configuration A of the paper."""


class VGG11(Net):
    """VGG-11 as the literature uses it on small images: eight 3×3 convolutions and one linear layer.

    A stage begins with max pooling, except the first, so that its output has the resolution it works at. There are
    four poolings instead of five: of 28 pixels, the last stage still sees one.
    """

    name = "vgg11"
    default_width = 64

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> VGG11:
        """Return an uninitialised net."""
        check_shape(cls.name, sample_shape)
        layers: list[nn.Module] = []
        stage_ends: list[int] = []
        n_in = sample_shape[2]
        for number, stage in enumerate(STAGES):
            if number:
                layers.append(nn.MaxPool2d(2))
            for multiple in stage:
                layers += [conv_norm(n_in, multiple * width, 3), nn.ReLU()]
                n_in = multiple * width
            stage_ends.append(len(layers) - 1)
        body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return cls(sample_shape, classes, width, body, stage_ends, n_in)
