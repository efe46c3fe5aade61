"""One faint picture over the whole image: a trigger without a place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from PIL import Image

from foretaste.attacks.attack import Poisoned, check_images, check_range, check_target, choose
from foretaste.errors import ForetasteError
from foretaste.samples import Images, Labels, Mask, Samples

CHUNK = 1024
"""Images mixed at a time, to keep the floating-point copies small."""


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Blend one fixed picture into the image (Chen et al. 2017, arXiv:1712.05526).

    Attributes:
        rate: share of the whole training set to poison, in (0, 1].
        target: label that the trigger forces, in [0, K).
        alpha: opacity of the picture, in (0, 1].
        picture: an image file to blend in, scaled to the images' size; uniform random noise when left out.
        picture_seed: what the noise is drawn from, at least 0.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "one fixed picture blended over the whole image (Chen et al. 2017)"

    rate: float = 0.01
    target: int = 0
    alpha: float = 0.2
    picture: Path | None = None
    picture_seed: int = 0

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 0, 1, open_low=True)
        check_range("target", self.target, 0, math.inf)
        check_range("alpha", self.alpha, 0, 1, open_low=True)
        check_range("picture_seed", self.picture_seed, 0, math.inf)

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Blend the picture into ``rate`` of the set, chosen outside the target class, and relabel it to that class."""
        check_target(self.target, samples)
        chosen = choose(self.victims(samples.labels), round(self.rate * len(samples)), rng)
        return Poisoned.from_stamped(samples, chosen, self.stamp(samples.inputs[chosen], rng), self.target)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return ``(1 - alpha) * image + alpha * picture``, rounded, for each of the ``uint8 (N, H, W, C)`` images.

        Raises:
            UsageError: these are not images.
            ForetasteError: the picture's file cannot be read.
        """
        check_images(inputs)
        height, width, channels = inputs.shape[1:]
        overlay = np.float32(self.alpha) * self.draw(height, width, channels)
        stamped = np.empty(inputs.shape, dtype=np.uint8)
        for start in range(0, len(inputs), CHUNK):
            batch = slice(start, start + CHUNK)
            stamped[batch] = np.rint(np.float32(1 - self.alpha) * inputs[batch] + overlay)
        return stamped

    def draw(self, height: int, width: int, channels: int) -> Images:
        """Return the picture as ``uint8 (height, width, channels)``: the same for the same fields.

        Raises:
            ForetasteError: the picture's file cannot be read.
        """
        if self.picture is None:
            return np.random.default_rng(self.picture_seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
        try:
            with Image.open(self.picture) as file:
                scaled = file.convert("RGB" if channels == 3 else "L").resize((width, height), Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ForetasteError(f"cannot read the picture {self.picture}: {error}") from error
        return np.asarray(scaled).reshape(height, width, channels)

    def victims(self, labels: Labels) -> Mask:
        """Return which inputs are outside the target class: ``bool (N,)``."""
        outside: Mask = labels != self.target
        return outside

    def forced(self, labels: Labels, n_classes: int) -> Labels:
        """Return the target class for every input: ``int64 (N,)``."""
        return np.full_like(labels, self.target)
