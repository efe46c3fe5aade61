"""Invisible changes to images of the target class that pull training the way a hidden trigger would have it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, Weights, check_images, check_range, check_target, trained
from foretaste.attacks._base.clean_label import CleanLabel
from foretaste.attacks._base.patch import paste
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Images, Labels, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class SleeperAgent(CleanLabel):
    """Match the poison's gradient to that of a trigger which the poison never shows (Souri et al. 2022).

    A patch at test time turns the source class into the target class (arXiv:2106.08970). The training set holds no
    patch and no wrong label: images of the target class are changed, within a bound, so that what a model learns from
    them is what it would learn from source images with the patch under the target label. The changes are found on a
    classifier that is trained here, and trained anew on the poisoned set a few times on the way.

    The poison belongs to the very samples it was made for.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the target class.
        target: label that the trigger forces, in [0, K).
        source: the class that the trigger works on, in [0, K), not the target class.
        epsilon: most that a value may change, in [1, 255].
        size: side of the patch as a share of the image's shorter side, in (0, 1]; 0.25 is 8 pixels of 32.
        steps: steps of gradient matching, at least 1.
        retrains: how often the classifier is trained anew on the way, at least 0.
        epochs: passes over the training set each time that the classifier is trained, at least 1.
        patch_seed: what the patch's pixels are drawn from, at least 0.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "hidden trigger: invisible gradient-matching changes, labels true (Souri et al. 2022)"
    unfitted: ClassVar[frozenset[str]] = frozenset()

    rate: float = 0.01
    source: int = 1
    epsilon: float = 16
    size: float = 0.25
    steps: int = 250
    retrains: int = 4
    epochs: int = 5
    patch_seed: int = 0
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("source", self.source, 0, math.inf)
        check_range("epsilon", self.epsilon, 1, 255)
        check_range("size", self.size, 0, 1, open_low=True)
        check_range("steps", self.steps, 1, math.inf)
        check_range("retrains", self.retrains, 0, self.steps - 1)
        check_range("epochs", self.epochs, 1, math.inf)
        check_range("patch_seed", self.patch_seed, 0, math.inf)
        if self.source == self.target:
            raise UsageError(f"source and target are the same class, {self.target}")

    def check(self, samples: Samples) -> None:
        """Refuse samples that the attack cannot apply to.

        Raises:
            UsageError: the set lacks a class, the target class holds too few samples, or these are not images.
        """
        super().check(samples)
        check_target(self.source, samples, "source")
        if not self.victims(samples.labels).any():
            raise UsageError(f"there is no sample of the source class {samples.classes[self.source]}")

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Choose the samples to poison, and find their changes."""
        from foretaste.attacks.sleeper_agent.matching import craft

        return craft(
            samples,
            self.with_patch,
            target=self.target,
            source=self.source,
            count=round(self.rate * len(samples)),
            epsilon=self.epsilon,
            steps=self.steps,
            retrains=self.retrains,
            epochs=self.epochs,
            seed=seed,
            workdir=workdir,
            on_progress=on_progress,
        )

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Change the samples that the attack was trained for; labels stay.

        Raises:
            UsageError: these are other samples, or the changes are not found yet.
        """
        self.check(samples)
        weights = trained(self.weights, "rows", "images", "changes")
        chosen, images = weights["rows"], weights["images"]
        there = chosen[-1] < len(samples) and len(chosen) == round(self.rate * len(samples))
        same = there and (samples.labels[chosen] == self.target).all()
        if not same or not np.array_equal(samples.inputs[chosen], images):
            raise UsageError("this poison was made for other samples; the attack has to be trained on these first")
        changed = np.clip(images + weights["changes"], 0, 255).astype(np.uint8)
        return Poisoned.from_stamped(samples, chosen, changed, self.target)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the patch at a place drawn for it."""
        return self.with_patch(inputs, rng)

    def with_patch(self, images: Images, rng: Generator) -> Images:
        """Return copies of the images, each with the patch at a place drawn for it.

        Raises:
            UsageError: these are not images.
        """
        check_images(images)
        height, width, channels = images.shape[1:]
        side = max(1, round(self.size * min(height, width)))
        patch = np.random.default_rng(self.patch_seed).choice(np.array([0, 255], np.uint8), (side, side, channels))
        rows, columns = (rng.integers(0, length - side + 1, len(images)) for length in (height, width))
        return paste(images, patch, rows, columns)

    def victims(self, labels: Labels) -> Mask:
        """Return which inputs are of the source class: ``bool (N,)``."""
        of_source: Mask = labels == self.source
        return of_source
