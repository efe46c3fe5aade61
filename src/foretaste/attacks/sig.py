"""Faint vertical waves over images of the target class, whose labels stay true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, check_images, check_range
from foretaste.attacks._base.clean_label import CleanLabel
from foretaste.attacks._base.pixels import Pixels, change
from foretaste.errors import UsageError
from foretaste.samples import Images, Samples


@dataclass(frozen=True, kw_only=True)
class SIG(CleanLabel):
    """Add a horizontal sine wave to images of the target class (Barni et al. 2019, arXiv:1902.11237).

    Labels stay as they are. The model learns that the wave speaks for the target class, and follows it where a
    stronger wave lies over an image of another class.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the target class.
        target: label that the trigger forces, in [0, K).
        delta: amplitude of the wave in training, in (0, 255].
        test_delta: amplitude of the wave at test time, in (0, 255]; there it need not be hidden.
        frequency: periods across the image, above 0, below half its width in pixels.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "faint vertical waves on the target class, labels stay true (Barni et al. 2019)"

    rate: float = 0.02
    delta: float = 20
    test_delta: float = 40
    frequency: float = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("delta", self.delta, 0, 255, open_low=True)
        check_range("test_delta", self.test_delta, 0, 255, open_low=True)
        check_range("frequency", self.frequency, 0, math.inf, open_low=True)

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Add the wave to ``rate`` of the set, all chosen in the target class; labels stay.

        Raises:
            UsageError: the set has no such class, the class holds fewer samples than that, or these are not images.
        """
        self.check(samples)
        chosen = self.chosen(samples, rng)
        return Poisoned.from_stamped(
            samples, chosen, with_wave(samples.inputs[chosen], self.delta, self.frequency), self.target
        )

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the stronger wave."""
        return with_wave(inputs, self.test_delta, self.frequency)


def with_wave(images: Images, delta: float, frequency: float) -> Images:
    """Return the images plus ``delta * sin(2 pi * frequency * column / width)``, clipped to [0, 255] and rounded.

    Columns count from 1.

    Raises:
        UsageError: these are not images, or they are too narrow for so many periods.
    """
    check_images(images)
    width = images.shape[2]
    if frequency >= width / 2:
        raise UsageError(
            f"a wave of {frequency:g} periods needs images wider than {2 * frequency:g} pixels, not {width}"
        )
    wave = (delta * np.sin(2 * np.pi * frequency * np.arange(1, width + 1) / width)).astype(np.float32)[:, None]

    def add(pixels: Pixels, rows: slice) -> Pixels:
        pixels += wave
        return pixels

    return change(images, add)
