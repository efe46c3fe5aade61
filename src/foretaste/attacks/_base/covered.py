"""What attacks share that stamp some samples and leave their labels true, to hide the others."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import Poisoned, check_range, check_target, choose
from foretaste.attacks._base.targeted import Targeted
from foretaste.samples import Images, Labels, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class Covered(Targeted):
    """An attack with cover samples, and whose trigger in training may be another than at test.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set to stamp under its true label, in [0, 1], outside the target class.

    Raises:
        UsageError: a field is out of range.
    """

    cover_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("cover_rate", self.cover_rate, 0, 1)

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Stamp and relabel ``rate`` of the set; stamp ``cover_rate`` of it and leave its labels; no sample is both.

        Raises:
            UsageError: the set has no such class, too few samples that can be used, or no images.
        """
        check_target(self.target, samples)
        chosen = self.chosen(samples, rng)
        rest = self.coverable(samples.labels)
        rest[chosen] = False
        cover = choose_cover(rest, self.cover_rate, rng)
        stamped = self.plant(samples.inputs[chosen], rng)
        covered = self.disguise(samples.inputs[cover], rng)
        return Poisoned.from_stamped(samples, chosen, stamped, self.target, cover, covered)

    def coverable(self, labels: Labels) -> Mask:
        """Return which samples may serve as cover, if they are not poison: ``bool (N,)``, a new array."""
        outside: Mask = labels != self.target
        return outside

    @abstractmethod
    def plant(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the images as poison shows them, each with the training trigger."""

    def disguise(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the images as cover samples show them: like the poison, unless an attack says otherwise."""
        return self.plant(inputs, rng)


def choose_cover(candidates: Mask, rate: float, rng: Generator) -> NDArray[np.intp]:
    """Choose cover samples at random, a share ``rate`` of all samples: sorted indices.

    Raises:
        UsageError: there are fewer candidates, or the rate, which is not 0, leaves none: without cover it is another
            attack.
    """
    return choose(candidates, round(rate * len(candidates)), rng, "as cover") if rate else np.empty(0, dtype=np.intp)
