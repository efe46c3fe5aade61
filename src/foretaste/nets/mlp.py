"""A multi-layer perceptron for feature vectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from foretaste.errors import UsageError
from foretaste.nets.net import Net


class MLP(Net):
    """Two hidden layers of ``width`` units with batch normalisation."""

    name = "mlp"
    default_width = 256

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> MLP:
        """Return an uninitialised net."""
        if len(sample_shape) != 1:
            raise UsageError("the net mlp takes feature vectors, and these samples are images; take compact-resnet")
        layers: list[nn.Module] = []
        for n_in in (sample_shape[0], width):
            layers += [nn.Linear(n_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        return cls(sample_shape, classes, width, nn.Sequential(*layers), (2, 5), width)
