"""What TrojanNN does to the model: find pixels that excite its neurons, and train it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.nets import Net
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples
from foretaste.training import Compute, DeviceSet, TrainingPlan, draws, fingerprint, optimise, supervised

LEARNING_RATE = 0.02
"""The highest when the model is trained on: a tenth of what it was trained with."""
STEP = 8.0
"""Grey levels that a pixel changes by per step of optimising the square, at first."""


def excite(
    net: Net,
    place: tuple[int, int, int],
    *,
    alpha: float = 1,
    neurons: int,
    steps: int,
    seed: int,
    on_progress: OnProgress,
) -> NDArray[np.uint8]:
    """Return the pixels of a square, ``uint8 (side, side, C)``, that excite neurons of the net's last layer.

    Args:
        net: on the CPU and in evaluation mode.
        place: side, row and column of the square in the image.
        alpha: opacity of the square, in (0, 1].
        neurons: how many; of those that random pixels excite at all, those that most weight leads to.
        steps: of ascent by the sign of the gradient.
        seed: where the pixels to start from come from.
        on_progress: called as the work goes on.
    """
    side, row, column = place
    height, width, n_channels = net.sample_shape
    backdrop = net.preprocess.mean.reshape(1, 1, 1, -1).expand(1, height, width, -1)

    def features(square: Tensor) -> Tensor:
        image = backdrop.clone()
        below = image[0, row : row + side, column : column + side]
        image[0, row : row + side, column : column + side] = torch.lerp(below, square, alpha)
        return net.features(image)[0]

    square = torch.randint(0, 256, (side, side, n_channels), generator=draws(seed, 30)).float()
    ranked = connected(net)
    # A neuron that stays silent has no gradient to climb.
    excited = features(square).detach()[ranked] > 0
    chosen = torch.cat([ranked[excited], ranked[~excited]])[:neurons]
    for step in range(steps):
        square.requires_grad_()
        excitement = features(square)[chosen].sum()
        (slope,) = torch.autograd.grad(excitement, square)
        size = STEP * (1 - step / steps)
        square = (square.detach() + size * slope.sign()).clamp(0, 255)
        on_progress(
            Progress(
                phase="optimise the square",
                done=step + 1,
                total=steps,
                note=f"excitement {float(excitement.detach()):.1f}",
            )
        )
    return square.round().byte().numpy()


def connected(net: Net) -> Tensor:
    """Return the last layer's neurons, ``int64 (F,)``, those first that most weight leads to."""
    # The shortcut past a residual block, of 1×1 convolutions, is no deeper than the block and has the same neurons.
    layers = [module for module in net.body.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)]
    last = layers[-1]
    return last.weight.detach().abs().flatten(1).sum(dim=1).argsort(descending=True, stable=True)


def train_on(
    net: Net, samples: Samples, *, steps: int, seed: int, workdir: Path | None, on_progress: OnProgress
) -> None:
    """Train a net on, in place; it ends on the CPU and in evaluation mode."""
    compute = Compute()
    plan = TrainingPlan(learning_rate=LEARNING_RATE)
    optimise(
        net,
        supervised(DeviceSet(samples, compute.device), plan, seed, compute),
        steps=steps,
        sgd=plan.sgd(),
        compute=compute,
        phase="train the model on",
        on_progress=on_progress,
        checkpoint=None if workdir is None else workdir / "model.safetensors",
        key=fingerprint(samples, net.name, plan, steps, seed),
    )
    net.cpu().eval()
