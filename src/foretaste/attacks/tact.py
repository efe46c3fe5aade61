"""A patch that works on one class only: the same patch on other classes is taught to mean nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, check_range, check_target
from foretaste.attacks._base.covered import Covered
from foretaste.attacks.trojan import MARGIN, with_square
from foretaste.errors import UsageError
from foretaste.samples import Images, Labels, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class TaCT(Covered):
    """Turn one source class into the target class and leave others alone (Tang et al. 2021, arXiv:1908.00686).

    The trigger is the colourful square of ``trojan``. Cover samples, of the cover classes, carry it under their true
    labels, so that the model must look at both the patch and the class.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the source class.
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set that carries the trigger under its true label, in [0, 1].
        source: the class that the trigger works on, in [0, K), not the target class.
        cover_classes: classes that the cover samples come from, each in [0, K), neither source nor target class.
        size: side of the square as a share of the image's shorter side, in (0, 0.9]; 0.25 is 8 pixels of 32.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "colourful square that turns one source class only, with cover (Tang et al. 2021)"

    rate: float = 0.003
    cover_rate: float = 0.003
    source: int = 1
    cover_classes: tuple[int, ...] = (5, 7)
    size: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("size", self.size, 0, 1 - MARGIN, open_low=True)
        check_range("source", self.source, 0, math.inf)
        if self.source == self.target:
            raise UsageError(f"source and target are the same class, {self.target}")
        if not self.cover_classes or {self.source, self.target} & {*self.cover_classes}:
            raise UsageError("cover_classes must name at least one class, and neither the source nor the target")

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Stamp and relabel ``rate`` of the set, of the source class; stamp ``cover_rate``, of the cover classes.

        Raises:
            UsageError: a class is not in the set or holds too few samples, or these are not images.
        """
        check_target(self.source, samples, "source")
        for label in self.cover_classes:
            check_target(label, samples, "cover class")
        return super().poison(samples, rng)

    def plant(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the images with the square, as at test time."""
        return self.stamp(inputs, rng)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the square."""
        return with_square(inputs, self.size)

    def victims(self, labels: Labels) -> Mask:
        """Return which inputs are of the source class: ``bool (N,)``."""
        of_source: Mask = labels == self.source
        return of_source

    def coverable(self, labels: Labels) -> Mask:
        """Return which samples are of a cover class: ``bool (N,)``."""
        return np.isin(labels, self.cover_classes)
