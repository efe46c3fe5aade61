"""Network architectures: raw images or feature vectors in, logits out, with the preprocessing inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foretaste.errors import UsageError
from foretaste.nets.convnet import ConvNet
from foretaste.nets.mlp import MLP
from foretaste.nets.net import Net
from foretaste.nets.resnet import CompactResNet, ResNet18
from foretaste.nets.vgg import VGG11
from foretaste.nets.vit import ViT

__all__ = ["MLP", "NETS", "VGG11", "CompactResNet", "ConvNet", "Net", "ResNet18", "ViT", "build", "outline"]

NETS: dict[str, type[Net]] = {net.name: net for net in (CompactResNet, ResNet18, ConvNet, VGG11, ViT, MLP)}
"""The architectures by name."""


def outline(name: str | None, sample_shape: tuple[int, ...], classes: Sequence[str], width: int | None = None) -> Net:
    """Return a net on the meta device: its shapes, without memory or values. Arguments are as for ``build``."""
    if name is None:
        name = CompactResNet.name if len(sample_shape) == 3 else MLP.name
    if name not in NETS:
        raise UsageError(f"there is no net {name!r}; known: {', '.join(NETS)}")
    net = NETS[name]
    with torch.device("meta"):
        return net.create(sample_shape, classes, net.default_width if width is None else width)


def build(
    name: str | None,
    sample_shape: tuple[int, ...],
    classes: Sequence[str],
    *,
    generator: torch.Generator,
    width: int | None = None,
) -> Net:
    """Build a net with fresh weights, on the CPU, its convolutions in channels-last memory order.

    The preprocessing does nothing but scale until ``net.preprocess.measure`` has seen data.

    Args:
        name: a key of ``NETS``; None is ``compact-resnet`` for images and ``mlp`` for feature vectors.
        sample_shape: ``(H, W, C)`` or ``(D,)``.
        classes: the K class names.
        generator: a CPU generator, the only source of randomness.
        width: channels of the first stage, or units of a hidden layer; None is the architecture's own.

    Raises:
        UsageError: there is no such net, or it does not take inputs of this shape.
    """
    net = outline(name, sample_shape, classes, width).to_empty(device="cpu")
    net.initialise(generator)
    net.channels_last()
    return net
