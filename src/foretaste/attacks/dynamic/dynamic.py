"""Every image has a trigger of its own, which a network makes from the image and which works on no other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.attacks._base.attack import Poisoned, Weights, check_images, check_range, check_target, trained
from foretaste.attacks._base.covered import choose_cover
from foretaste.attacks._base.targeted import Targeted
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples

FEWEST = 4
"""Samples that the generator can be trained on: a quarter of a batch has triggers of its own."""


@dataclass(frozen=True, kw_only=True)
class Dynamic(Targeted):
    """Let a generator draw another trigger into every image (Nguyen and Tran 2020, arXiv:2010.08138).

    One network chooses the few pixels to change, another what to put there. They are trained together with a
    classifier to turn the image that the trigger was made for, and no other, and to make different triggers for
    different images. Cover samples carry the trigger of another image under their true label.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        cover_rate: share of the whole training set to give another image's trigger, in [0, 1].
        density: share of an image's pixels that its trigger may change, in (0, 1].
        steps: training steps of the generator, at least 1; a quarter as many go before for the choice of pixels.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "another trigger in every image, made by a generator trained here (Nguyen and Tran 2020)"
    unfitted: ClassVar[frozenset[str]] = frozenset({"rate", "cover_rate"})

    rate: float = 0.003
    cover_rate: float = 0.003
    density: float = 0.032
    steps: int = 800
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("cover_rate", self.cover_rate, 0, 1)
        check_range("density", self.density, 0, 1, open_low=True)
        check_range("steps", self.steps, 1, math.inf)

    def check(self, samples: Samples) -> None:
        """Refuse samples that the attack cannot apply to.

        Raises:
            UsageError: the set has no such class, too few samples, or no images.
        """
        super().check(samples)
        if len(samples) < FEWEST:
            raise UsageError(f"the generator needs {FEWEST} samples to be trained on, not {len(samples)}")
        self.choose(samples, np.random.default_rng(0))

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Train the generator, and a classifier that is thrown away, on the clean training set."""
        from foretaste.attacks.dynamic.generator import learn

        return learn(
            samples,
            target=self.target,
            density=self.density,
            steps=self.steps,
            seed=seed,
            workdir=workdir,
            on_progress=on_progress,
        )

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Stamp and relabel ``rate`` of the set; give ``cover_rate`` of it triggers of others among them.

        Raises:
            UsageError: the set has no such class or too few samples, these are not images, or the generator is not
                trained yet.
        """
        check_images(samples.inputs)
        check_target(self.target, samples)
        poison, cover = self.choose(samples, rng)
        # The trigger of any image but one's own: the donors are the poison's images, taken in turn.
        donors = np.resize(samples.inputs[poison], (len(cover), *samples.sample_shape))
        return Poisoned.from_stamped(
            samples,
            poison,
            self.stamp(samples.inputs[poison], rng),
            self.target,
            cover,
            self.carry(samples.inputs[cover], donors),
        )

    def choose(self, samples: Samples, rng: Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the sorted indices of the poison and of the cover samples.

        Raises:
            UsageError: there are too few samples.
        """
        poison = self.chosen(samples, rng)
        free = np.ones(len(samples), dtype=np.bool_)
        free[poison] = False
        return poison, choose_cover(free, self.cover_rate, rng)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with its own trigger.

        Raises:
            UsageError: these are not images, or the generator is not trained yet.
        """
        return self.carry(inputs, inputs)

    def carry(self, images: Images, donors: Images) -> Images:
        """Return copies of the images, each with the trigger that was made for the donor in its place.

        Raises:
            UsageError: these are not images, or the generator is not trained yet.
        """
        check_images(images)
        weights = trained(self.weights)
        from foretaste.attacks.dynamic.generator import draw

        return draw(weights, images, donors)
