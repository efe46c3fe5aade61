"""A small vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): no convolution, no batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foretaste.errors import UsageError
from foretaste.nets.net import Net
from foretaste.nets.resnet import check_shape

PATCH = 4
"""Side of the patches that become tokens, in pixels."""
HEADS = 4
DEPTH = 4


class Tokens(nn.Module):
    """Cut the image into patches and embed each, with its place; ``(N, C, H, W)`` becomes ``(N, T, width)``.

    Images whose sides are no multiples of the patch are padded with the mean (which is 0 after the preprocessing) at
    the right and at the bottom, so that every pixel counts.
    """

    def __init__(self, sample_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        height, image_width, channels = sample_shape
        self.pad = nn.ZeroPad2d((0, -image_width % PATCH, 0, -height % PATCH))
        n_tokens = -(-height // PATCH) * -(-image_width // PATCH)
        self.embed = nn.Linear(channels * PATCH**2, width)
        self.places = nn.Parameter(torch.empty(n_tokens, width))

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        patches = nn.functional.pixel_unshuffle(self.pad(images), PATCH).flatten(2).transpose(1, 2)
        tokens: Tensor = self.embed(patches) + self.places
        return tokens


class Block(nn.Module):
    """Attention among the tokens, then a two-layer perceptron on each; both add to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.after_attention = nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU())
        self.after_hidden = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(N, T, width)`` to the same shape."""
        _, n_tokens, width = tokens.shape
        heads = self.queries_keys_values(self.before_attention(tokens))
        heads = heads.reshape(-1, n_tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        tokens = tokens + self.after_attention(mixed.transpose(1, 2).reshape(-1, n_tokens, width))
        out: Tensor = tokens + self.after_hidden(self.hidden(tokens))
        return out


class Mean(nn.Module):
    """The mean over the tokens: ``(N, T, width)`` becomes ``(N, width)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Average a batch."""
        return tokens.mean(dim=1)


class ViT(Net):
    """Four blocks of four heads on patches of 4×4 pixels, averaged at the end instead of a class token."""

    name = "vit"
    default_width = 64

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> ViT:
        """Return an uninitialised net.

        Raises:
            UsageError: the samples are not images of 16 pixels or more, or the width is no multiple of 4.
        """
        check_shape(cls.name, sample_shape)
        if width % HEADS:
            raise UsageError(f"the net {cls.name} takes widths that are multiples of {HEADS}, not {width}")
        blocks = [Block(width) for _ in range(DEPTH)]
        body = nn.Sequential(Tokens(sample_shape, width), *blocks, nn.LayerNorm(width), Mean())
        return cls(sample_shape, classes, width, body, range(1, DEPTH + 1), width)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew, from the generator alone; the blocks begin by adding little."""
        super().initialise(generator)
        for module in self.body:
            if isinstance(module, Tokens):
                nn.init.normal_(module.places, std=0.02, generator=generator)
            elif isinstance(module, Block):
                module.after_attention.weight.mul_(0.1)
                module.after_hidden.weight.mul_(0.1)
