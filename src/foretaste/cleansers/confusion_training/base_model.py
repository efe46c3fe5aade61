"""The base model of Confusion Training: what each image's label would naturally be."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.cleansers.confusion_training.evidence import Probabilities, calibrate
from foretaste.cleansers.confusion_training.run import Run, Stream
from foretaste.nets import build
from foretaste.progress import OnProgress
from foretaste.samples import Labels, Mask
from foretaste.training import (
    Batches,
    TrainingPlan,
    augment,
    draws,
    noisy,
    optimise,
    patchwork,
    predict,
    side_by_side,
)


def natural(run: Run, number: int, excluded: Mask) -> Probabilities:
    """Return how likely each label is by nature, for every sample and then every clean one, ``float32 (N + C, K)``.

    The base model is two networks, trained side by side and each calibrated; theirs is the geometric mean. In the first
    round they learn from patchworks of four images, whose labels count by area, and with noise. So what takes up little
    of an image can speak for little of its label, however many samples carry it, and faint marks are hidden: a network
    that one kind of mark is not hidden from learns it within a few passes, and then it is natural to both. Later
    rounds, whose suspects are excluded, do without.

    Args:
        run: the inspection.
        number: of the round, from 0.
        excluded: ``bool (N,)``, samples that it is not trained on.
    """
    first, second = side_by_side(
        [partial(network, run, number, member, excluded) for member in range(2)],
        compute=run.compute,
        phase=f"round {number + 1}: train the base model",
        on_progress=run.on_progress,
    )
    agreed: Probabilities = np.sqrt(first * second)
    agreed /= agreed.sum(axis=1, keepdims=True)
    return agreed


def network(run: Run, number: int, member: int, excluded: Mask, on_progress: OnProgress) -> Probabilities:
    """Train one network of the base model, and return how likely each label is to it, for every sample, clean last."""
    method, samples, compute = run.method, run.samples, run.compute
    rows = torch.from_numpy(balanced(np.flatnonzero(~excluded), samples.labels))
    plan = TrainingPlan()
    batches = Batches(len(rows), plan.batch_size, run.seed + member)

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        images, labels = run.data.batch(compute.share(rows[batches(step)]))
        generator = draws(run.seed, Stream.BASE, number, member, step, compute.rank)
        images = augment(images, generator, shift=method.shift, flip=False)
        if number > 0:
            return nn.functional.cross_entropy(net(images), labels)
        return altered(net, images, labels, generator, method.base_noise)

    net = build(
        method.net,
        samples.sample_shape,
        samples.classes,
        generator=draws(run.seed, Stream.BASE_WEIGHTS, number, member),
    )
    net.preprocess.load_state_dict(run.standardise)
    optimise(
        net,
        loss_of_step,
        steps=math.ceil(method.base_steps * math.cbrt(len(samples) / 10_000)),
        sgd=plan.sgd(),
        compute=compute,
        phase=f"base network {member + 1}",
        on_progress=on_progress,
        checkpoint=run.checkpoint(f"base-{number}-{member}"),
        key=run.key_of_round,
    )
    logits = predict(net, samples.inputs)
    if run.clean is not None:
        logits = np.concatenate([logits, predict(net, run.clean.inputs)])
    return calibrate(logits, samples.labels, method.label_noise)


def altered(net: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    """Return the cross-entropy on patchworks with normal noise, whose labels count as much as they have of the area."""
    made, sources, shares = patchwork(images, generator)
    outputs = net(noisy(made, generator, noise))
    losses = [nn.functional.cross_entropy(outputs, labels[source]) for source in sources]
    return (torch.stack(losses) * torch.tensor(shares, device=outputs.device)).sum()


def balanced(rows: NDArray[np.intp], labels: Labels) -> NDArray[np.intp]:
    """Return the rows with those of rare classes repeated, so that the base model learns these classes too.

    Each class that has rows gets at least half as many as classes have on average.

    Args:
        rows: indices of samples, ``(M,)``.
        labels: of all samples, ``(N,)``.
    """
    present, counts = np.unique(labels[rows], return_counts=True)
    fewest = math.ceil(counts.mean() / 2)
    added = [
        np.resize(rows[labels[rows] == label], fewest - count)
        for label, count in zip(present, counts, strict=True)
        if count < fewest
    ]
    return np.concatenate([rows, *added])
