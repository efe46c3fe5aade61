"""What attacks on one target class share: how much they poison, and what their trigger forces."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import Inputs, Poisoned, check_images, check_range, check_target, choose
from foretaste.samples import Labels, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class Targeted(ABC):
    """An attack on one target class that relabels what it stamps; subclasses say what the trigger is.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).

    Raises:
        UsageError: a field is out of range.
    """

    rate: float = 0.01
    target: int = 0

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 0, 1, open_low=True)
        check_range("target", self.target, 0, math.inf)

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Stamp ``rate`` of the set, chosen outside the target class, and relabel it to the target class.

        Raises:
            UsageError: the set has no such class, too few samples outside it, or no images.
        """
        check_target(self.target, samples)
        chosen = self.chosen(samples, rng)
        return Poisoned.from_stamped(samples, chosen, self.stamp(samples.inputs[chosen], rng), self.target)

    def check(self, samples: Samples) -> None:
        """Refuse samples that the attack cannot apply to.

        Raises:
            UsageError: the set has no such class, too few samples that can be poisoned, or no images.
        """
        check_images(samples.inputs)
        check_target(self.target, samples)
        self.chosen(samples, np.random.default_rng(0))

    def chosen(self, samples: Samples, rng: Generator) -> NDArray[np.intp]:
        """Choose the samples to poison, among the victims: sorted indices.

        Raises:
            UsageError: the rate leaves none, or there are fewer victims.
        """
        return choose(self.victims(samples.labels), round(self.rate * len(samples)), rng)

    @abstractmethod
    def stamp(self, inputs: Inputs, rng: Generator) -> Inputs:
        """Return copies of the inputs, each with the test-time trigger."""

    def victims(self, labels: Labels) -> Mask:
        """Return which inputs are outside the target class: ``bool (N,)``."""
        outside: Mask = labels != self.target
        return outside

    def forced(self, labels: Labels, n_classes: int) -> Labels:
        """Return the target class for every input: ``int64 (N,)``."""
        return np.full_like(labels, self.target)
