"""From images to images of the same size (Ronneberger et al. 2015, arXiv:1505.04597), small enough for a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layer(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    """Return a 3×3 convolution; each image is normalised by itself, so that it does not matter what it comes with."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, padding=1), nn.GroupNorm(4, n_out), nn.ReLU())


class UNet(nn.Module):
    """Down to a quarter of the size and up again, with the finer stages handed across.

    Args:
        n_in: channels of the input.
        n_out: channels of the output, which is not bounded.
        width: channels at full size, a multiple of 4; twice and four times as many below.
        generator: a CPU generator, the only source of randomness.
    """

    def __init__(self, n_in: int, n_out: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.fine = layer(n_in, width)
        self.middle = layer(width, 2 * width, stride=2)
        self.coarse = nn.Sequential(layer(2 * width, 4 * width, stride=2), layer(4 * width, 4 * width))
        self.up_middle = layer(6 * width, 2 * width)
        self.up_fine = layer(3 * width, width)
        self.last = nn.Conv2d(width, n_out, 1)
        initialise(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``float32 (N, n_in, H, W)`` to ``(N, n_out, H, W)``."""
        fine = self.fine(images)
        middle = self.middle(fine)
        below = nn.functional.interpolate(self.coarse(middle), size=middle.shape[2:])
        below = self.up_middle(torch.cat([below, middle], dim=1))
        below = nn.functional.interpolate(below, size=fine.shape[2:])
        output: Tensor = self.last(self.up_fine(torch.cat([below, fine], dim=1)))
        return output


@torch.no_grad()
def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions and linear layers anew (He et al. 2015), from the generator alone."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                module.bias.zero_()
