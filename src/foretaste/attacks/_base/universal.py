"""One perturbation that moves all images of a kind towards a class, found on a classifier of the attacker's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foretaste.attacks._base.attack import Inputs, check_images
from foretaste.attacks._base.pixels import Pixels, change
from foretaste.errors import UsageError
from foretaste.nets import Net
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Images
from foretaste.training import Compute

BATCH = 64
"""Images that a step looks at."""
STEP = 0.1
"""Of a step, as a share of the bound; it falls to 0."""

Perturbation = NDArray[np.int16]
"""``int16 (H, W, C)``, in grey levels."""


def universal_perturbation(
    net: Net, images: Images, target: int, *, epsilon: float, steps: int, seed: int, on_progress: OnProgress
) -> Perturbation:
    """Return one change, of at most ``epsilon`` a value, under which the net takes images for the target class.

    Projected sign descent on the net's mean loss under that label, a random batch at a time (Shafahi et al. 2020,
    arXiv:1811.11304).

    Args:
        net: the classifier; it is put into evaluation mode.
        images: ``uint8 (N, H, W, C)``, N ≥ 1; may be memory-mapped.
        target: label in [0, K).
        epsilon: most that a value changes, in grey levels.
        steps: of the descent, at least 1.
        seed: where the batches come from.
        on_progress: called as the work goes on.
    """
    device = Compute().device
    net = net.to(device).eval().requires_grad_(requires_grad=False)
    perturbation = torch.zeros(images.shape[1:], device=device)
    report = Progress(phase="find a perturbation", done=0, total=steps)
    for step in range(steps):
        rng = np.random.default_rng([seed, 50, step])
        rows = np.sort(rng.choice(len(images), min(BATCH, len(images)), replace=False))
        batch = torch.from_numpy(images[rows]).to(device).float()
        labels = torch.full((len(rows),), target, device=device)
        perturbation.requires_grad_()
        loss = nn.functional.cross_entropy(net((batch + perturbation).clamp(0, 255)), labels)
        (slope,) = torch.autograd.grad(loss, perturbation)
        moved = perturbation.detach() - epsilon * STEP * (1 - step / steps) * slope.sign()
        perturbation = moved.clamp(-epsilon, epsilon)
        on_progress(replace(report, done=step + 1, note=f"loss {float(loss.detach()):.3g}"))
    # Towards zero, so that rounding cannot leave the bound.
    found: Perturbation = perturbation.trunc().cpu().numpy().astype(np.int16)
    return found


def added(images: Inputs, perturbation: Perturbation, scale: float = 1.0) -> Images:
    """Return copies of the images with ``scale`` times the perturbation on each, clipped to [0, 255] and rounded.

    Raises:
        UsageError: these are not images, or they have another shape than the perturbation.
    """
    check_images(images)
    if images.shape[1:] != perturbation.shape:
        raise UsageError("the trigger was made for images of another shape")

    def add(pixels: Pixels, rows: slice) -> Pixels:
        pixels += scale * perturbation
        return pixels

    return change(images, add)
