"""What repairs do alike: train a model a little further, and count what it gets right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.errors import UsageError
from foretaste.nets import Net, build
from foretaste.progress import OnProgress
from foretaste.samples import Samples
from foretaste.training import Batches, Compute, DeviceSet, TrainingPlan, draws, optimise, supervised

AT_ONCE = 500
"""Samples in a forward pass."""

Loss = Callable[[nn.Module, int], Tensor]


def tune(
    net: nn.Module,
    samples: Samples,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    phase: str,
    on_progress: OnProgress,
    shift: int = 0,
    before_step: Callable[[], None] = lambda: None,
    loss: Callable[[Loss], Loss] = lambda plain: plain,
) -> None:
    """Train a model further, in place, with cross-entropy on the samples' labels.

    Args:
        net: the model; it ends on the CPU, in evaluation mode.
        samples: what to train on.
        epochs: passes over the samples, ≥ 0.
        batch_size: samples per step; a smaller set is one batch.
        learning_rate: the highest of a schedule that rises and falls, > 0.
        seed: where all random numbers come from.
        phase: what progress reports call it.
        on_progress: called as the work goes on.
        shift: images are moved by up to this many pixels each way.
        before_step: called before each step.
        loss: makes the loss of a step from the plain one.

    Raises:
        ForetasteError: the loss became infinite or NaN.
    """
    plan = TrainingPlan(epochs=max(epochs, 1), batch_size=batch_size, learning_rate=learning_rate, shift=shift)
    compute = Compute()
    plain = supervised(DeviceSet(samples, compute.device), plan, seed, compute)
    whole = loss(plain)

    def loss_of_step(wrapped: nn.Module, step: int) -> Tensor:
        before_step()
        return whole(wrapped, step)

    steps = epochs * Batches(len(samples), batch_size, seed).per_epoch
    optimise(net, loss_of_step, steps=steps, sgd=plan.sgd(), compute=compute, phase=phase, on_progress=on_progress)
    before_step()
    net.cpu().eval()


def logits_of(net: nn.Module, samples: Samples) -> NDArray[np.float32]:
    """Return the model's logits ``float32 (N, K)``; it is in evaluation mode afterwards."""
    net.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), AT_ONCE):
            parts.append(net(torch.from_numpy(np.array(samples.inputs[start : start + AT_ONCE]))).numpy())
    logits: NDArray[np.float32] = np.concatenate(parts)
    return logits


def accuracy_of(net: nn.Module, samples: Samples) -> float:
    """Return the share of the samples that the model gives their own label, in [0, 1]."""
    return float((logits_of(net, samples).argmax(axis=1) == samples.labels).mean())


def prune_most(net: nn.Module, clean: Samples, prune: Callable[[int], None], count: int, most_loss: float) -> int:
    """Prune as much of a model as its accuracy on clean samples allows, and return how much.

    Args:
        net: the model, pruned in place.
        clean: clean samples.
        prune: prunes the first so many, and nothing else.
        count: the most that may be pruned, ≥ 0.
        most_loss: accuracy that may be lost, in [0, 1).
    """
    least = accuracy_of(net, clean) - most_loss
    # Accuracy falls as more is pruned, but for noise: halving finds the count in few passes.
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        prune(middle)
        low, high = (middle, high) if accuracy_of(net, clean) >= least else (low, middle - 1)
    prune(low)
    return low


def batch_of(samples: Samples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs as ``float32`` and labels at CPU indices ``int64 (B,)``."""
    numbers = rows.numpy()
    return torch.from_numpy(samples.inputs[numbers]).float(), torch.from_numpy(samples.labels[numbers])


def fresh_like(net: nn.Module, method: str, seed: int) -> Net:
    """Return a net of the same architecture and preprocessing with fresh weights.

    Args:
        net: the model.
        method: what asks for it, for messages.
        seed: where the weights come from.

    Raises:
        UsageError: the model is none of foretaste's architectures.
    """
    if not isinstance(net, Net):
        raise UsageError(f"{method} trains anew, and needs a model that foretaste train wrote (model.safetensors)")
    fresh = build(net.name, net.sample_shape, net.classes, generator=draws(seed, 0), width=net.width)
    fresh.preprocess.load_state_dict(net.preprocess.state_dict())
    return fresh
