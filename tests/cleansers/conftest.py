from collections.abc import Callable

import numpy as np
import pytest

from foretaste.samples import Samples

Hills = Callable[..., Samples]
"""Draws so many images whose class is where their bright spot is."""


@pytest.fixture(scope="session")
def hills() -> Hills:
    """Return what draws images that are quick to draw and to learn."""

    def draw(n: int, seed: int = 0, side: int = 16, channels: int = 3, n_classes: int = 4) -> Samples:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % n_classes
        angle = 2 * np.pi * labels / n_classes
        x = side * (0.5 + 0.25 * np.cos(angle)) + rng.normal(0, 0.7, n)
        y = side * (0.5 + 0.25 * np.sin(angle)) + rng.normal(0, 0.7, n)
        places = np.arange(side)
        distance = (places[:, None] - y[:, None, None]) ** 2 + (places - x[:, None, None]) ** 2
        spot = np.exp(-distance / (2 * (side / 6) ** 2))[..., None]
        noise = rng.normal(0, 12, (n, side, side, channels))
        images = 60 + 120 * spot * rng.uniform(0.6, 1.2, (n, 1, 1, channels)) + noise
        return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels)

    return draw
