"""A faint perturbation on a few images of the target class, in the direction in which all of the class lies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, Weights, check_range, trained
from foretaste.attacks._base.clean_label import CleanLabel
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples

TRIGGER = "trigger"


@dataclass(frozen=True, kw_only=True)
class Narcissus(CleanLabel):
    """Add to images of the target class what makes them more of it still (Zeng et al. 2023, arXiv:2204.05255).

    Labels stay as they are. One perturbation is sought that lowers a classifier's loss on all images of the target
    class at once: it points into the class, so a model learns it readily from very few images, and follows it where
    it lies, magnified, over an image of another class.

    The paper's attacker knows the target class only, and trains the classifier on public images, then on that class;
    here it is trained on the clean training set, which is more than that attacker has.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the target class.
        target: label that the trigger forces, in [0, K).
        epsilon: most that the perturbation changes a value in training, in [1, 255].
        scale: how many times as strong it is at test time, where it need not be hidden, in (0, 255].
        steps: of the search for it, at least 1.
        epochs: passes over the training set for the classifier that it is found on, at least 1.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "faint perturbation into the target class, labels stay true (Zeng et al. 2023)"
    unfitted: ClassVar[frozenset[str]] = frozenset({"rate", "scale"})

    rate: float = 0.005
    epsilon: float = 16
    scale: float = 3
    steps: int = 200
    epochs: int = 5
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, 1, 255)
        check_range("scale", self.scale, 0, 255, open_low=True)
        check_range("steps", self.steps, 1, math.inf)
        check_range("epochs", self.epochs, 1, math.inf)

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Train a classifier on the clean training set, and find the perturbation on it."""
        from foretaste.attacks._base.surrogate import surrogate
        from foretaste.attacks._base.universal import universal_perturbation

        net = surrogate(samples, 0, 1, epochs=self.epochs, seed=seed, workdir=workdir, on_progress=on_progress)
        own = samples.inputs[np.flatnonzero(samples.labels == self.target)]
        found = universal_perturbation(
            net, own, self.target, epsilon=self.epsilon, steps=self.steps, seed=seed, on_progress=on_progress
        )
        return {TRIGGER: found}

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Add the perturbation to ``rate`` of the set, all chosen in the target class; labels stay.

        Raises:
            UsageError: the set has no such class, the class holds too few samples, these are not images or of another
                shape, or the perturbation is not found yet.
        """
        from foretaste.attacks._base.universal import added

        self.check(samples)
        chosen = self.chosen(samples, rng)
        changed = added(samples.inputs[chosen], trained(self.weights, TRIGGER)[TRIGGER])
        return Poisoned.from_stamped(samples, chosen, changed, self.target)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the magnified perturbation."""
        from foretaste.attacks._base.universal import added

        return added(inputs, trained(self.weights, TRIGGER)[TRIGGER], self.scale)
