"""The base model of Confusion Training: what each image's label would naturally be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from foretaste.cleansers.confusion_training.evidence import Probabilities, calibrate
from foretaste.cleansers.confusion_training.run import Run, Stream
from foretaste.nets import Net, build
from foretaste.nets.resnet import check_shape, conv_norm
from foretaste.progress import OnProgress
from foretaste.samples import Labels, Mask
from foretaste.training import (
    Batches,
    TrainingPlan,
    augment,
    cutmix,
    draws,
    noisy,
    optimise,
    predict,
    side_by_side,
)

FEWEST_PASSES, MOST_PASSES = 3, 20
"""Over the set: with fewer the base model would not know the classes, with more it would learn rare marks."""
LATER = 2 / 3
"""Of these steps are enough in later rounds, whose images are not altered."""
SHIFT = 3
"""Images are moved by up to this many pixels each way, which hides small marks at one place."""


class BaseNetwork(Net):
    """Four 3×3 convolutions, the middle two followed by max pooling, and the maximum over all places.

    In as many steps it learns more than ``compact-resnet``, in two thirds of the time.
    """

    name = "base"
    default_width = 16

    @classmethod
    def create(cls, sample_shape: tuple[int, ...], classes: Sequence[str], width: int) -> BaseNetwork:
        """Return an uninitialised net."""
        check_shape(cls.name, sample_shape)
        body = nn.Sequential(
            *(conv_norm(sample_shape[2], width, 3, stride=2), nn.ReLU()),
            *(conv_norm(width, 2 * width, 3), nn.MaxPool2d(2), nn.ReLU()),
            *(conv_norm(2 * width, 4 * width, 3), nn.MaxPool2d(2), nn.ReLU()),
            *(conv_norm(4 * width, 4 * width, 3), nn.ReLU()),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        )
        return cls(sample_shape, classes, width, body, (1, 4, 7, 9), 4 * width)


def natural(run: Run, number: int, excluded: Mask) -> Probabilities:
    """Return how likely each label is by nature, for every sample and then every clean one, ``float64 (N + C, K)``.

    The base model is two networks, trained side by side. In the first round one learns from images with a piece of
    another image in each, which hides marks of any size at one place, the other from images with noise, which hides
    faint marks. Later rounds, whose suspects are excluded, do without.

    Each is calibrated, and the geometric mean taken: a mark which one of them learnt is not natural to the other. The
    mean of logits would go by the more confident one, which learns marks more readily as well.

    Args:
        run: the inspection.
        number: of the round, from 0.
        excluded: ``bool (N,)``, samples that it is not trained on.
    """
    augmentations = (pasted, noised) if number == 0 else (plain, plain)

    def task(member: int) -> Callable[[OnProgress], Probabilities]:
        return lambda on_progress: network(run, number, member, augmentations[member], excluded, on_progress)

    members = side_by_side(
        [task(0), task(1)],
        compute=run.compute,
        phase=f"round {number + 1}: train the base model",
        on_progress=run.on_progress,
    )
    agreed: Probabilities = softmax(np.mean(np.log(members), axis=0), axis=1)
    return agreed


Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator, float], Tensor]
"""Of a network, a batch of images and labels, a generator, and the standard deviation of noise."""


def network(
    run: Run, number: int, member: int, loss_of: Loss, excluded: Mask, on_progress: OnProgress
) -> Probabilities:
    """Train one network of the base model, and return how likely each label is to it, for every sample, clean last."""
    method, samples, compute = run.method, run.samples, run.compute
    rows = torch.from_numpy(balanced(np.flatnonzero(~excluded), samples.labels))
    plan = TrainingPlan()
    batches = Batches(len(rows), plan.batch_size, run.seed + member)
    steps = np.clip(method.base_steps, FEWEST_PASSES * batches.per_epoch, MOST_PASSES * batches.per_epoch)
    if number > 0:
        steps *= LATER

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        images, labels = run.data.batch(compute.share(rows[batches(step)]))
        generator = draws(run.seed, Stream.BASE, number, member, step, compute.rank)
        images = augment(images, generator, shift=SHIFT, flip=False)
        return loss_of(net, images, labels, generator, method.base_noise)

    net = build(
        BaseNetwork,
        samples.sample_shape,
        samples.classes,
        generator=draws(run.seed, Stream.BASE_WEIGHTS, number, member),
    )
    net.preprocess.load_state_dict(run.standardise)
    optimise(
        net,
        loss_of_step,
        steps=round(steps),
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


def plain(net: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    """Return the cross-entropy on the images as they are."""
    return nn.functional.cross_entropy(net(images), labels)


def noised(net: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    """Return the cross-entropy on images with normal noise."""
    return nn.functional.cross_entropy(net(noisy(images, generator, noise)), labels)


def pasted(net: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    """Return the cross-entropy on images with a piece of another image in each."""
    mixed, others, share = cutmix(images, generator)
    outputs = net(mixed)
    own, of_piece = (nn.functional.cross_entropy(outputs, some) for some in (labels, labels[others]))
    return share * own + (1 - share) * of_piece


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
