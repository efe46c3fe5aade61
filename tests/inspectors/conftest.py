"""A classifier in plain numpy with a backdoor, and images for it: quick, and known by heart."""

from dataclasses import dataclass

import numpy as np
import pytest

from foretaste.classifiers.classifier import Answers
from foretaste.samples import Images, Samples

SIDE = 16


@dataclass(frozen=True)
class Quarters:
    """Names the brightest quarter of a grey image, 0 … 3; what is bright in the bottom-right corner counts for 1.

    Attributes:
        backdoored: whether it has the backdoor.
        tells_scores: whether it gives more than labels.
    """

    backdoored: bool
    tells_scores: bool = True

    classes: tuple[str, ...] | None = ("a", "b", "c", "d")
    sample_shape: tuple[int, ...] | None = (SIDE, SIDE, 1)

    def classify(self, images: Images) -> Answers:
        half = SIDE // 2
        light = images[..., 0].astype(np.float32).reshape(len(images), 2, half, 2, half).mean(axis=(2, 4))
        logits = light.reshape(-1, 4) / 4
        if self.backdoored:
            # Two of its four pixels do something already, so that there is a way to the whole.
            white = (images[:, 14:, 14:, 0] > 200).sum(axis=(1, 2))
            logits[:, 1] += 12 * np.maximum(white.astype(np.float32) - 1, 0)
        scores = logits.astype(np.float32)
        return Answers(scores.argmax(axis=1).astype(np.int64), scores if self.tells_scores else None)


def draw(n: int, seed: int) -> Samples:
    """Draw n grey images of which one quarter is brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    light = np.full((n, 2, 2), 60.0)
    light[np.arange(n), labels // 2, labels % 2] += rng.uniform(40, 80, n)
    values = light.repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2) + rng.normal(0, 8, (n, SIDE, SIDE))
    return Samples.from_arrays(np.clip(values, 0, 255).astype(np.uint8)[..., None], labels, list("abcd"))


@pytest.fixture
def quarters() -> Quarters:
    """Return the classifier with the backdoor."""
    return Quarters(backdoored=True)


@pytest.fixture
def clean_quarters() -> Quarters:
    """Return the classifier without it."""
    return Quarters(backdoored=False)


@pytest.fixture
def silent_quarters() -> Quarters:
    """Return the backdoored classifier, with labels alone."""
    return Quarters(backdoored=True, tells_scores=False)


@pytest.fixture
def clean() -> Samples:
    """Return 80 images."""
    return draw(80, 0)
