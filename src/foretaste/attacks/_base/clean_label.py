"""What clean-label attacks share: all poison is of the target class, and its labels stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import choose
from foretaste.attacks._base.targeted import Targeted
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True)
class CleanLabel(Targeted):
    """An attack that changes samples of the target class and leaves their labels; subclasses say how.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the target class.
        target: label that the trigger forces, in [0, K).

    Raises:
        UsageError: a field is out of range.
    """

    def chosen(self, samples: Samples, rng: Generator) -> NDArray[np.intp]:
        """Choose the samples to poison, in the target class: sorted indices.

        Raises:
            UsageError: the rate leaves none, or the target class holds fewer.
        """
        return choose(samples.labels == self.target, round(self.rate * len(samples)), rng)
