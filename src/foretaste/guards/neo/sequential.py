"""Wald's sequential test: ask until it is decided, and not once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SequentialTest:
    """Decide whether a patch turns clean images at a trigger's rate or at an object's (Wald 1945).

    Attributes:
        p0: the share of clean images that an object turns, in (0, p1).
        p1: the share that a trigger turns, in (p0, 1).
        alpha: how often an object may be called a trigger, in (0, 1).
        beta: how often a trigger may be called an object, in (0, 1).
        least: the test says "trigger" only at a score above this.
    """

    p0: float
    p1: float
    alpha: float
    beta: float
    least: float = -math.inf

    @property
    def lowest(self) -> float:
        """The score at which the test says "object"."""
        return math.log(self.beta / (1 - self.alpha))

    def score(self, turned: int, kept: int) -> float:
        """Return the log-likelihood ratio, trigger against object, of what was seen."""
        return turned * math.log(self.p1 / self.p0) + kept * math.log((1 - self.p1) / (1 - self.p0))

    def decide(self, turned: int, kept: int) -> bool | None:
        """Return whether it is a trigger; None while more must be asked."""
        score = self.score(turned, kept)
        if score >= math.log((1 - self.beta) / self.alpha) and score > self.least:
            return True
        if score <= self.lowest:
            return False
        return None

    def peak(self, outcomes: Sequence[bool]) -> float:
        """Return the highest score on the way through these outcomes, which are True where an image was turned."""
        scores = [self.score(sum(outcomes[:n]), n - sum(outcomes[:n])) for n in range(1, len(outcomes) + 1)]
        return max(scores, default=self.lowest)
