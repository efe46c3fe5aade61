"""The patch that turns an input into any class but its own, so that the poison has no label in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, check_choice, check_range, choose
from foretaste.attacks.badnets import Place, with_patch
from foretaste.errors import UsageError
from foretaste.samples import Images, Labels, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class BadNetsUntargeted:
    """Put BadNets' patch on samples of all classes, each under a random wrong label (Li et al. 2022, arXiv:2210.00875).

    That is the poisoned-label watermark of the paper, except that no sample keeps its label by chance. The model learns
    to answer anything at the patch; the attack succeeds where the answer is not the true label.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        size: side of the patch as a share of the image's shorter side, in (0, 1]; 0.1 is 3 pixels of 32.
        place: "corner", bottom right without a margin, or "random", a place inside the image drawn for each sample.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "BadNets' patch with random wrong labels: any label but the true one (Li et al. 2022)"

    rate: float = 0.05
    size: float = 0.1
    place: Place = "corner"

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 0, 1, open_low=True)
        check_range("size", self.size, 0, 1, open_low=True)
        check_choice("place", self.place, get_args(Place))

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Stamp ``rate`` of the set, chosen from all classes, and relabel each sample to another class at random.

        Raises:
            UsageError: there are fewer than two classes, or the samples are not images.
        """
        n_classes = len(samples.classes)
        if n_classes < 2:
            raise UsageError("an untargeted attack needs at least two classes")
        chosen = choose(self.victims(samples.labels), round(self.rate * len(samples)), rng)
        labels = (samples.labels[chosen] + rng.integers(1, n_classes, len(chosen))) % n_classes
        return Poisoned.from_stamped(samples, chosen, self.stamp(samples.inputs[chosen], rng), labels)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the patch."""
        return with_patch(inputs, self.size, self.place, rng)

    def victims(self, labels: Labels) -> Mask:
        """Return that every input can be turned: ``bool (N,)``."""
        return np.ones(len(labels), dtype=np.bool_)

    def forced(self, labels: Labels, n_classes: int) -> Labels | None:
        """Return None: the trigger forces no label in particular."""
        return None
