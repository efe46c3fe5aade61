"""A universal adversarial perturbation as the trigger: what fools a clean model is what the backdoor answers to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, Weights, check_range, trained
from foretaste.attacks._base.targeted import Targeted
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples

TRIGGER = "trigger"


@dataclass(frozen=True, kw_only=True)
class AdvDoor(Targeted):
    """Poison with a targeted universal adversarial perturbation (Zhang et al. 2021, doi:10.1145/3460319.3464809).

    The perturbation moves images of all other classes towards the target class of a classifier that is trained here.
    Images with it lie near the target class's in the features of the victim, too, which is what defences look at that
    expect poison to lie apart.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        epsilon: most that the perturbation changes a value, in [1, 255].
        steps: of the search for it, at least 1.
        epochs: passes over the training set for the classifier that it is found on, at least 1.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "a universal adversarial perturbation over the whole image (Zhang et al. 2021)"
    unfitted: ClassVar[frozenset[str]] = frozenset({"rate"})

    epsilon: float = 10
    steps: int = 200
    epochs: int = 5
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, 1, 255)
        check_range("steps", self.steps, 1, math.inf)
        check_range("epochs", self.epochs, 1, math.inf)

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Train a classifier on the clean training set, and find the perturbation on it."""
        from foretaste.attacks._base.surrogate import surrogate
        from foretaste.attacks._base.universal import universal_perturbation

        net = surrogate(samples, 0, 1, epochs=self.epochs, seed=seed, workdir=workdir, on_progress=on_progress)
        others = samples.inputs[np.flatnonzero(self.victims(samples.labels))]
        found = universal_perturbation(
            net, others, self.target, epsilon=self.epsilon, steps=self.steps, seed=seed, on_progress=on_progress
        )
        return {TRIGGER: found}

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Add the perturbation to ``rate`` of the set, outside the target class, and relabel that to it.

        Raises:
            UsageError: the set has no such class, too few samples outside it, these are not images or of another
                shape, or the perturbation is not found yet.
        """
        self.check(samples)
        return super().poison(samples, rng)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the perturbation."""
        from foretaste.attacks._base.universal import added

        return added(inputs, trained(self.weights, TRIGGER)[TRIGGER])
