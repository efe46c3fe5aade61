"""A message hidden in every image, invisible and different in each, as steganography hides it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, Weights, check_images, check_range, trained
from foretaste.attacks._base.targeted import Targeted
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples


@dataclass(frozen=True, kw_only=True)
class ISSBA(Targeted):
    """Hide one message in each image by an encoder that is trained here (Li et al. 2021, arXiv:2012.03816).

    The encoder (after StegaStamp, Tancik et al. 2020, arXiv:1904.05343) learns together with a decoder that has to
    read any message back. It writes into each image in another way, and hardly visibly.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        bits: length of the message, at least 1.
        strength: most that the encoder may change a value, in (1, 255], in whole grey levels, rounded towards zero; 12
            keeps the peak signal-to-noise ratio above 26 dB.
        steps: training steps, at least 1.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "an invisible message, hidden in every image in its own way (Li et al. 2021)"
    unfitted: ClassVar[frozenset[str]] = frozenset({"rate", "target"})

    rate: float = 0.02
    bits: int = 16
    strength: float = 12
    steps: int = 800
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("bits", self.bits, 1, 4096)
        check_range("strength", self.strength, 1, 255, open_low=True)
        check_range("steps", self.steps, 1, math.inf)

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Train the encoder on the clean images, and draw the message."""
        from foretaste.attacks.issba.encoder import learn

        return learn(
            samples,
            bits=self.bits,
            strength=self.strength,
            steps=self.steps,
            seed=seed,
            workdir=workdir,
            on_progress=on_progress,
        )

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Hide the message in ``rate`` of the set, chosen outside the target class, and relabel it to that class.

        Raises:
            UsageError: the set has no such class or too few samples outside it, these are not images, or the encoder
                is not trained yet.
        """
        self.check(samples)
        return super().poison(samples, rng)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the message.

        Raises:
            UsageError: these are not images, or the encoder is not trained yet.
        """
        check_images(inputs)
        weights = trained(self.weights)
        from foretaste.attacks.issba.encoder import hide

        return hide(weights, inputs, self.strength)
