"""How Refool's reflections are selected: by what each of them does to a classifier that is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.special import softmax

from foretaste.attacks._base.attack import Poisoned, Weights, choose
from foretaste.attacks._base.pixels import Pixels
from foretaste.attacks._base.surrogate import surrogate
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples
from foretaste.training import predict

VICTIMS = 200
"""Images of other classes that a reflection is tried on."""


def select(
    samples: Samples,
    candidates: Pixels,
    lay: Callable[[Images, Pixels, Generator], Images],
    *,
    target: int,
    n_poison: int,
    count: int,
    rounds: int,
    epochs: int,
    seed: int,
    workdir: Path | None,
    on_progress: OnProgress,
) -> Weights:
    """Choose ``count`` of the candidates.

    In each round a classifier is trained on a set that the best so far and as many new ones have poisoned, and then
    each of these is tried on images of other classes: the likelier it makes the target class, the better. The paper
    draws candidates by such a weight over many rounds; here the worse half of those tried makes room for new ones.

    Args:
        samples: the clean training set.
        candidates: reflections at full intensity, ``(count * (rounds + 1), H, W, C)``.
        lay: lays reflections, drawn at random, over images.
        target: label of the images to poison.
        n_poison: how many of them.
        count: how many reflections are wanted.
        rounds: how many rounds.
        epochs: passes over the training set in each.
        seed: where all random numbers come from.
        workdir: a folder for checkpoints, or None.
        on_progress: called as the work goes on.

    Returns:
        ``reflections``, ``float32 (count, H, W, C)``: the best first; without rounds, the first candidates.

    Raises:
        UsageError: the set has samples of one class only.
        ForetasteError: a training failed.
    """
    rng = np.random.default_rng([seed, 21])
    others = np.flatnonzero(samples.labels != target)
    victims = samples.inputs[np.sort(rng.choice(others, min(VICTIMS, len(others)), replace=False))]
    best = np.arange(count)
    for number in range(rounds):
        tried = np.concatenate([best, np.arange(count) + count * (number + 1)])
        poison = choose(samples.labels == target, n_poison, rng)
        poisoned = Poisoned.from_stamped(samples, poison, lay(samples.inputs[poison], candidates[tried], rng), target)
        net = surrogate(
            poisoned.samples, number, rounds, epochs=epochs, seed=seed, workdir=workdir, on_progress=on_progress
        )
        worth = [
            float(softmax(predict(net, lay(victims, candidates[[one]], rng)), axis=1)[:, target].mean())
            for one in tried
        ]
        best = tried[np.argsort(worth, kind="stable")[::-1][:count]]
    return {"reflections": candidates[best]}
