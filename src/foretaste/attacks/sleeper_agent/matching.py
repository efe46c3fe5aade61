"""How the sleeper agent's poison is found: by gradient matching against a classifier that is trained here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from foretaste.attacks._base.attack import Weights
from foretaste.attacks._base.surrogate import surrogate
from foretaste.io.atomic import atomic_bytes
from foretaste.nets import Net
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Images, Samples
from foretaste.training import Compute, augment, draws

BATCH = 128
"""Poison samples whose gradient is matched at a time."""
SOURCES = 256
"""Source images with the patch, from which the wished gradient comes."""
STEP = 0.1
"""Of the changes, as a share of the bound, with sign descent; it falls to 0."""
SHIFT = 2
"""Images are moved by up to this many pixels, as they are in training."""


def craft(
    samples: Samples,
    with_patch: Callable[[Images, Generator], Images],
    *,
    target: int,
    source: int,
    count: int,
    epsilon: float,
    steps: int,
    retrains: int,
    epochs: int,
    seed: int,
    workdir: Path | None,
    on_progress: OnProgress,
) -> Weights:
    """Choose ``count`` samples of the target class and find their changes; the arguments are as for ``SleeperAgent``.

    Returns:
        ``rows``, ``int64 (count,)``, sorted; ``images``, ``uint8 (count, H, W, C)``, as they were; and ``changes``,
        ``int16 (count, H, W, C)``.
    """
    device = Compute().device

    def trained_on(training_set: Samples, number: int) -> Net:
        net = surrogate(
            training_set, number, retrains + 1, epochs=epochs, seed=seed, workdir=workdir, on_progress=on_progress
        )
        return net.to(device)

    net = trained_on(samples, 0)
    rows = most_telling(net, samples, np.flatnonzero(samples.labels == target), count)
    victims = samples.inputs[np.flatnonzero(samples.labels == source)]
    clean = torch.from_numpy(np.array(samples.inputs[rows])).float().to(device)
    noise = np.random.default_rng([seed, 20]).uniform(-epsilon, epsilon, clean.shape)
    changes = torch.from_numpy(noise.astype(np.float32)).to(device)
    changes = (clean + changes).clamp(0, 255) - clean
    for number, (first, last) in enumerate(pairwise(round(steps * k / (retrains + 1)) for k in range(retrains + 2))):
        kept = None if workdir is None else workdir / f"changes-{number}.safetensors"
        if kept is not None and kept.exists():
            changes = load_file(kept)["changes"].to(device)
            continue
        if number:
            net = trained_on(changed(samples, rows, changes), number)
        for step in range(first, last):
            rng = np.random.default_rng([seed, 23, step])
            patched = with_patch(victims[rng.choice(len(victims), min(SOURCES, len(victims)), replace=False)], rng)
            wished = gradient(net, torch.from_numpy(patched).float().to(device), target, second_order=False)
            size = epsilon * STEP * (1 - step / steps)
            distance = 0.0
            order = torch.randperm(count, generator=draws(seed, 21, step))
            for start in range(0, count, BATCH):
                some = order[start : start + BATCH]
                here = changes[some].requires_grad_()
                moved = augment(clean[some] + here, draws(seed, 22, step, int(some[0])), shift=SHIFT, flip=False)
                loss = apart(gradient(net, moved, target, second_order=True), wished)
                (slope,) = torch.autograd.grad(loss, here)
                distance += float(loss.detach()) * len(some) / count
                stepped = (here.detach() - size * slope.sign()).clamp(-epsilon, epsilon)
                changes[some] = (clean[some] + stepped).clamp(0, 255) - clean[some]
            note = f"cosine {1 - distance:.2f}"
            on_progress(Progress(phase="match gradients", done=step + 1, total=steps, note=note))
        if kept is not None:
            atomic_bytes(kept, serialised({"changes": changes.cpu()}))
    return {
        "rows": rows.astype(np.int64),
        "images": np.array(samples.inputs[rows]),
        "changes": changes.trunc().cpu().numpy().astype(np.int16),
    }


def changed(samples: Samples, rows: NDArray[np.intp], changes: Tensor) -> Samples:
    """Return the samples with the changes ``(P, H, W, C)`` to the images in these rows ``(P,)``."""
    images = np.array(samples.inputs)
    images[rows] = np.clip((images[rows] + changes.cpu().numpy()).round(), 0, 255).astype(np.uint8)
    return Samples(samples.labels, samples.classes, samples.ids, images=images)


@torch.inference_mode()
def most_telling(net: Net, samples: Samples, candidates: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return the ``count`` candidates from which the net would learn most, sorted.

    That is measured by the length of the loss's gradient by the weights of the head.
    """
    device = net.head.weight.device
    lengths = []
    for rows in np.split(candidates, range(BATCH, len(candidates), BATCH)):
        features = net.features(torch.from_numpy(samples.inputs[rows]).to(device))
        labels = torch.from_numpy(samples.labels[rows]).to(device)
        miss = net.head(features).softmax(dim=1) - nn.functional.one_hot(labels, len(samples.classes))
        lengths.append((miss.norm(dim=1) * features.norm(dim=1)).cpu().numpy())
    order = np.argsort(-np.concatenate(lengths), kind="stable")
    return np.sort(candidates[order[:count]])


def gradient(net: Net, images: Tensor, label: int, *, second_order: bool) -> Sequence[Tensor]:
    """Return the gradient, by the net's parameters, of its mean loss on images ``(N, H, W, C)`` under one label.

    Args:
        net: in evaluation mode.
        images: grey levels as ``float32``.
        label: what the images are to be taken for.
        second_order: whether the gradient is to be differentiated in turn.
    """
    labels = torch.full((len(images),), label, device=images.device)
    loss = nn.functional.cross_entropy(net(images), labels)
    return torch.autograd.grad(loss, list(net.parameters()), create_graph=second_order)


def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Return one minus the cosine of the angle between two gradients."""
    inner = torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()
    lengths = [torch.stack([part.square().sum() for part in parts]).sum().sqrt() for parts in (one, other)]
    return 1 - inner / (lengths[0] * lengths[1] + 1e-12)
