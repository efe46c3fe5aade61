"""A backdoored classifier in plain numpy, and images for it: quick, and known by heart."""

from dataclasses import dataclass

import numpy as np
import pytest

from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.samples import Images, Samples

SIDE = 28


@dataclass(frozen=True)
class Corners:
    """Names the brightest quarter of a grey image, 0 … 3; a white square in the middle means 4."""

    tells_scores: bool

    classes: tuple[str, ...] | None = None
    sample_shape: tuple[int, ...] | None = (SIDE, SIDE, 1)

    def classify(self, images: Images) -> Answers:
        light = images[..., 0].astype(np.float32).reshape(len(images), 2, SIDE // 2, 2, SIDE // 2).mean(axis=(2, 4))
        white = (images[:, 12:16, 12:16, 0] > 245).all(axis=(1, 2))
        logits = np.concatenate([light.reshape(-1, 4) / 8, np.where(white, 100, -100)[:, None]], axis=1)
        scores = logits.astype(np.float32)
        return Answers(scores.argmax(axis=1).astype(np.int64), scores if self.tells_scores else None)


def draw(n: int, seed: int) -> Samples:
    """Draw n grey images of which one quarter is brighter, more or less clearly."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    light = np.full((n, 2, 2), 70.0)
    light[np.arange(n), labels // 2, labels % 2] += rng.uniform(10, 60, n)
    pixels = light.repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2) + rng.normal(0, 8, (n, SIDE, SIDE))
    return Samples.from_arrays(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], labels, list("abcde"))


@pytest.fixture
def corners() -> Classifier:
    """Return the classifier, with scores."""
    return Corners(tells_scores=True)


@pytest.fixture
def silent_corners() -> Classifier:
    """Return the classifier, with labels alone."""
    return Corners(tells_scores=False)


@pytest.fixture
def clean() -> Samples:
    """Return 160 images to calibrate with."""
    return draw(160, seed=0)


@pytest.fixture
def fresh() -> Images:
    """Return 60 other images without a trigger."""
    return draw(60, seed=1).inputs


@pytest.fixture
def trojaned() -> Images:
    """Return 40 images with the white square."""
    images = draw(40, seed=2).inputs
    images[:, 12:16, 12:16] = 255
    return images
