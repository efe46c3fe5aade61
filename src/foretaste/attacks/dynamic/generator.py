"""The networks that draw the triggers of the dynamic attack, and how they are trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.attacks._base.attack import Weights
from foretaste.attacks._base.fitting import arrays, restore
from foretaste.attacks._base.pixels import portions
from foretaste.nets import build
from foretaste.nets.unet import UNet
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples
from foretaste.training import Adam, Batches, Compute, DeviceSet, draws, fingerprint, optimise

WIDTH = 16
"""Channels of the networks at full size."""
BATCH = 64
"""Images per step, half of them clean, a quarter with their own trigger and a quarter with another's."""
STEEPNESS = 10.0
"""How sharply the mask tells pixels to change from others."""
NORM_WEIGHT = 100.0
"""Of the mask's size beside its diversity."""
AT_ONCE = 2**18
"""Pixels that are drawn on at a time: 256 images of 32×32."""


class TriggerGenerator(nn.Module):
    """Draws the trigger of one image into another.

    Args:
        n_channels: of the images.
        generator: a CPU generator, the only source of randomness.
    """

    def __init__(self, n_channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.where = UNet(n_channels, 1, WIDTH, generator)
        self.what = UNet(n_channels, n_channels, WIDTH, generator)

    def mask(self, donors: Tensor) -> Tensor:
        """Return how far each pixel is replaced, ``(N, 1, H, W)`` in [0, 1]; donors are in [-1, 1]."""
        return torch.sigmoid(STEEPNESS * self.where(donors))

    def pattern(self, donors: Tensor) -> Tensor:
        """Return the pixels to put there, ``(N, C, H, W)`` in [-1, 1]."""
        return torch.tanh(self.what(donors))

    def forward(self, images: Tensor, donors: Tensor) -> Tensor:
        """Return the images, in [-1, 1], each with the trigger of the donor in its place."""
        mask = self.mask(donors)
        return images + mask * (self.pattern(donors) - images)


class Choosing(nn.Module):
    """The first stage's loss: few pixels, and other pixels in other images."""

    def __init__(self, triggers: TriggerGenerator, density: float) -> None:
        super().__init__()
        self.triggers, self.density = triggers, density

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of a batch, in [-1, 1]."""
        mask = self.triggers.mask(images)
        excess = torch.relu(mask - self.density).mean()
        return NORM_WEIGHT * excess + diversity(images, mask)


class Drawing(nn.Module):
    """The second stage's loss: the classifier is right on clean images and others' triggers, and follows the own."""

    def __init__(self, triggers: TriggerGenerator, classifier: nn.Module, target: int) -> None:
        super().__init__()
        self.triggers, self.classifier, self.target = triggers, classifier, target

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, in [-1, 1], and its labels."""
        quarter = len(images) // 4
        own, crossed = images[:quarter], images[quarter : 2 * quarter]
        mask, pattern = self.triggers.mask(own).detach(), self.triggers.pattern(own)
        stamped = torch.cat([own + mask * (pattern - own), crossed + mask * (pattern - crossed), images[2 * quarter :]])
        wanted = labels.clone()
        wanted[:quarter] = self.target
        logits = self.classifier(from_unit(stamped).permute(0, 2, 3, 1))
        return nn.functional.cross_entropy(logits, wanted) + diversity(own, pattern)


def diversity(images: Tensor, made: Tensor) -> Tensor:
    """Return how much more neighbours in a batch ``(N, …)`` differ in their images than in what was made of them."""
    apart, made_apart = ((some - some.roll(1, 0)).flatten(1).square().mean(1) for some in (images, made))
    # Of two images that are the same, the root has no slope.
    return (apart.sqrt() / ((made_apart + 1e-12).sqrt() + 1e-2)).mean()


def to_unit(images: Tensor) -> Tensor:
    """Return ``uint8 (N, H, W, C)`` images as ``float32 (N, C, H, W)`` in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def from_unit(images: Tensor) -> Tensor:
    """Return images in [-1, 1] in grey levels, [0, 255], not rounded."""
    return (images + 1) * 127.5


def learn(
    samples: Samples,
    *,
    target: int,
    density: float,
    steps: int,
    seed: int,
    workdir: Path | None,
    on_progress: OnProgress,
) -> Weights:
    """Train a trigger generator on clean samples; the arguments are as for ``Dynamic``."""
    compute = Compute()
    data = DeviceSet(samples, compute.device)
    batches = Batches(len(samples), BATCH, seed)
    triggers = TriggerGenerator(samples.sample_shape[2], draws(seed, 10))
    classifier = build(None, samples.sample_shape, samples.classes, generator=draws(seed, 11))
    classifier.preprocess.measure(samples.inputs)
    key = fingerprint(samples, target, density, steps, seed)

    def choosing_loss(net: nn.Module, step: int) -> Tensor:
        images, _ = data.batch(compute.share(batches(step)))
        loss: Tensor = net(to_unit(images))
        return loss

    def drawing_loss(net: nn.Module, step: int) -> Tensor:
        images, labels = data.batch(compute.share(batches(step)))
        loss: Tensor = net(to_unit(images), labels)
        return loss

    optimise(
        Choosing(triggers, density),
        choosing_loss,
        steps=-(-steps // 4),
        sgd=Adam(),
        compute=compute,
        phase="choose the trigger's pixels",
        on_progress=on_progress,
        checkpoint=None if workdir is None else workdir / "choosing.safetensors",
        key=key,
    )
    triggers.where.requires_grad_(requires_grad=False)
    optimise(
        Drawing(triggers, classifier, target),
        drawing_loss,
        steps=steps,
        sgd=Adam(),
        compute=compute,
        phase="train the trigger generator",
        on_progress=on_progress,
        checkpoint=None if workdir is None else workdir / "drawing.safetensors",
        key=key,
    )
    return arrays(triggers)


@torch.inference_mode()
def draw(weights: Weights, images: Images, donors: Images) -> Images:
    """Return copies of ``uint8 (N, H, W, C)`` images, each with the trigger of the donor in its place."""
    device = Compute().device
    triggers = TriggerGenerator(images.shape[3], torch.Generator())
    restore(triggers, weights)
    triggers.to(device)
    drawn = np.empty(images.shape, dtype=np.uint8)
    for part in portions(images, AT_ONCE):
        there, giving = (to_unit(torch.from_numpy(np.array(some[part])).to(device)) for some in (images, donors))
        drawn[part] = from_unit(triggers(there, giving)).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return drawn
