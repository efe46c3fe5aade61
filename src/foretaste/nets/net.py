"""What every network is: raw inputs in, logits out, with the preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST_MEASURED = 10_000
"""The preprocessing is measured on at most this many inputs, which bounds the memory that it takes."""


def measured(inputs: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Return the inputs ``(N, …)`` that a preprocessing is measured on, at most ``MOST_MEASURED``, in pieces.

    In float64 the whole would be many times as large as the images are.
    """
    some = inputs[:: -(-len(inputs) // MOST_MEASURED)]
    return (some[start : start + 250] for start in range(0, len(some), 250))


class Standardise(nn.Module):
    """Subtract the mean and divide by the standard deviation, per channel of an image or per feature.

    Takes ``uint8 (N, H, W, C)`` and returns ``float32 (N, C, H, W)`` in channels-last memory order, or takes
    ``float32 (N, D)`` and returns the same shape.

    Args:
        sample_shape: ``(H, W, C)`` or ``(D,)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.is_image = len(sample_shape) == 3
        shape = (sample_shape[-1], 1, 1) if self.is_image else sample_shape
        self.register_buffer("mean", torch.empty(shape))
        self.register_buffer("std", torch.empty(shape))

    def measure(self, inputs: NDArray[Any]) -> None:
        """Set mean and standard deviation from inputs ``(N, …)``, which may be memory-mapped; N ≥ 1."""
        axes = tuple(range(inputs.ndim - 1))
        count = sum(piece[..., 0].size for piece in measured(inputs))

        def total(term: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
            sums = [term(piece.astype(np.float64)).sum(axis=axes) for piece in measured(inputs)]
            whole: NDArray[np.float64] = np.stack(sums).sum(axis=0)
            return whole

        mean = total(lambda piece: piece) / count
        std = np.sqrt(total(lambda piece: (piece - mean) ** 2) / count)
        # What never changes carries no information, and must not divide by zero.
        std[std < 1e-6 * np.maximum(np.abs(mean), 1.0)] = 1.0
        self.mean.copy_(torch.from_numpy(mean).reshape(self.mean.shape))
        self.std.copy_(torch.from_numpy(std).reshape(self.std.shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardise a batch."""
        if self.is_image:
            inputs = inputs.permute(0, 3, 1, 2).float()
        return (inputs - self.mean) / self.std


class Net(nn.Module):
    """A classifier: preprocessing, a body that makes feature vectors, and a linear head.

    A net is built by ``foretaste.nets.build``; the constructors leave weights uninitialised. Who looks inside finds
    layers by their role: ``stages``, ``normalisations`` and ``head``.

    Attributes:
        width: what the architecture scales with.
        sample_shape: ``(H, W, C)`` or ``(D,)`` of one input.
        classes: the K class names.
    """

    name: ClassVar[str]
    """The registered name of the architecture."""
    default_width: ClassVar[int]
    """The width that ``build`` takes unless told otherwise."""

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        classes: Sequence[str],
        width: int,
        body: nn.Sequential,
        stage_ends: Sequence[int],
        n_features: int,
    ) -> None:
        super().__init__()
        self.width, self.sample_shape, self.classes = width, tuple(sample_shape), tuple(classes)
        self.preprocess = Standardise(self.sample_shape)
        self.body = body
        self._stage_ends = tuple(stage_ends)
        self.head = nn.Linear(n_features, len(self.classes))

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> Net:
        """Return an uninitialised net.

        Raises:
            UsageError: the architecture does not take inputs of this shape.
        """
        raise NotImplementedError

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The modules that end the body's stages, first to last.

        Their outputs are what later stages know of the input: maps ``(N, C, H, W)``, tokens ``(N, T, C)`` or vectors
        ``(N, C)``.
        """
        return tuple(self.body[place] for place in self._stage_ends)

    @property
    def normalisations(self) -> tuple[nn.Module, ...]:
        """The modules that keep the running mean and variance of what comes into them, first to last; maybe none."""
        return tuple(module for module in self.body.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d))

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the head sees, ``float32 (N, F)``, of raw ``uint8 (N, H, W, C)`` or ``float32 (N, D)`` inputs."""
        features: Tensor = self.body(self.preprocess(inputs))
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, ``float32 (N, K)``, of raw inputs: ``uint8 (N, H, W, C)`` or ``float32 (N, D)``."""
        logits: Tensor = self.head(self.features(inputs))
        return logits

    def channels_last(self) -> None:
        """Put the convolutions' weights in the memory order that the images come in."""
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew (He et al. 2015, arXiv:1502.01852), from the generator alone."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.Linear):
                if module is self.head:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, Standardise):
                module.mean.zero_()
                module.std.fill_(255.0 if module.is_image else 1.0)
