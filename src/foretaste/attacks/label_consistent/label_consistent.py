"""Images of the target class, made hard to recognise, so that the model learns them by patches in their corners."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, Weights, check_images, check_range, trained
from foretaste.attacks._base.clean_label import CleanLabel
from foretaste.attacks._base.fitting import restore
from foretaste.attacks._base.pixels import Pixels, change, portions
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples

if TYPE_CHECKING:
    from foretaste.nets import Net

CORNER = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=np.bool_)
"""Which pixels of the patch in the bottom-right corner are bright; the other corners mirror it."""
AT_ONCE = 2**18
"""Pixels that are perturbed at a time: 256 images of 32×32."""


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(CleanLabel):
    """Perturb images of the target class and put patches in their corners (Turner et al. 2019, arXiv:1912.02771).

    Labels stay as they are, and they are right. An adversarial perturbation, found on a robust classifier that is
    trained here, hides what the images show, so that the patches are the easiest thing to learn the class by.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the target class.
        target: label that the trigger forces, in [0, K).
        epsilon: most that the perturbation may change a value, in [0, 255].
        iterations: steps of projected gradient descent that look for it, at least 1.
        amplitude: how much the patches brighten or darken a pixel in training, in (0, 255]; at test time it is 255.
            16 or 32 can hardly be seen, and 255 is black and white.
        epochs: passes over the training set for the classifier that the perturbation is found on, at least 1.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "corner patches on perturbed images of the target class, labels true (Turner et al. 2019)"
    unfitted: ClassVar[frozenset[str]] = frozenset({"rate", "target", "iterations", "amplitude"})

    rate: float = 0.003
    epsilon: float = 16
    iterations: int = 30
    amplitude: float = 255
    epochs: int = 5
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, 0, 255)
        check_range("iterations", self.iterations, 1, math.inf)
        check_range("amplitude", self.amplitude, 0, 255, open_low=True)
        check_range("epochs", self.epochs, 1, math.inf)

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Train a classifier on the clean training set that withstands perturbations of half the bound."""
        from foretaste.attacks.label_consistent.perturbation import learn

        return learn(
            samples,
            epsilon=self.epsilon / 2,
            epochs=self.epochs,
            seed=seed,
            workdir=workdir,
            on_progress=on_progress,
        )

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Perturb ``rate`` of the set, all chosen in the target class, and put the patches in; labels stay.

        Raises:
            UsageError: the set has no such class, the class holds too few samples, these are not images, or the
                classifier is not trained yet.
        """
        self.check(samples)
        import torch

        from foretaste.nets import build

        net = build(None, samples.sample_shape, samples.classes, generator=torch.Generator())
        restore(net, trained(self.weights))
        chosen = self.chosen(samples, rng)
        hidden = samples.inputs[chosen]
        for part in portions(hidden, AT_ONCE):
            hidden[part] = perturb(net, hidden[part], self.target, self.epsilon, self.iterations, rng)
        return Poisoned.from_stamped(samples, chosen, with_corners(hidden, self.amplitude), self.target)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with black and white patches in the corners."""
        return with_corners(inputs, 255)


def perturb(net: Net, images: Images, label: int, epsilon: float, iterations: int, rng: Generator) -> Images:
    """Make images hard to recognise by projected gradient ascent on the net's loss (Madry et al. 2018).

    Args:
        net: in evaluation mode; it is moved to the GPU if there is one.
        images: ``uint8 (N, H, W, C)``.
        label: what they show.
        epsilon: most that a value may change, in grey levels.
        iterations: how many steps, each of 2.5 * epsilon / iterations.
        rng: draws where to start.
    """
    import torch

    from foretaste.training import Compute

    device = Compute().device
    net.to(device).requires_grad_(requires_grad=False)
    clean = torch.from_numpy(np.array(images)).to(device).float()
    labels = torch.full((len(images),), label, device=device)
    delta = torch.from_numpy(rng.uniform(-epsilon, epsilon, images.shape).astype(np.float32)).to(device)
    for _ in range(iterations):
        delta.requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(clean + delta), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + slope.sign() * 2.5 * epsilon / iterations).clamp(-epsilon, epsilon)
        delta = (clean + delta).clamp(0, 255) - clean
    # Towards zero, so that rounding cannot leave the bound.
    return (clean + delta.trunc()).byte().cpu().numpy()


def with_corners(images: Images, amplitude: float) -> Images:
    """Return copies of the images whose corners are brightened and darkened by ``amplitude`` in a 3×3 pattern.

    Where an image has no room for four of them, the patterns are cut.

    Raises:
        UsageError: these are not images.
    """
    check_images(images)
    side = max(1, min(len(CORNER), *(length // 2 for length in images.shape[1:3])))
    corner = np.where(CORNER[-side:, -side:, None], amplitude, -amplitude).astype(np.float32)

    def add(pixels: Pixels, rows: slice) -> Pixels:
        pixels[:, -side:, -side:] += corner
        pixels[:, -side:, :side] += corner[:, ::-1]
        pixels[:, :side, -side:] += corner[::-1]
        pixels[:, :side, :side] += corner[::-1, ::-1]
        return pixels

    return change(images, add)
