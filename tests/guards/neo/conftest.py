"""A classifier whose every answer is known, and images that it is right about."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Answers
from foretaste.samples import Images, Samples

SIDE = 32
COLOURS = np.array(
    [[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30], [200, 30, 200], [30, 200, 200]], dtype=np.int16
)
PATCH = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)[..., None].repeat(3, axis=2)


def draw(n: int, seed: int) -> Samples:
    """Draw ``n`` images: noise around grey, and in the middle a square in the class's colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(COLOURS)
    images = rng.integers(60, 160, (n, SIDE, SIDE, 3))
    top, left = rng.integers(7, 13, (2, n))
    for image, label, row, column in zip(images, labels, top, left, strict=True):
        square = image[row : row + 13, column : column + 13]
        square[:] = COLOURS[label] + rng.integers(-20, 20, square.shape)
    return Samples.from_arrays(images.astype(np.uint8), labels)


def stamp(images: Images, place: tuple[int, int] | None, seed: int = 0) -> Images:
    """Put the patch on copies of the images: at one place, or at random places."""
    rng, stamped = np.random.default_rng(seed), np.array(images)
    for image in stamped:
        row, column = place or tuple(rng.integers(0, SIDE - len(PATCH) + 1, 2).tolist())
        image[row : row + 3, column : column + 3] = PATCH
    return stamped


@dataclass
class Backdoored:
    """Names the colour that most pixels are near to; unless the patch is there.

    Attributes:
        target: what the patch forces; None if it moves each label to the next.
        place: where it has to be; None is anywhere.
        asked: how many images were asked about.
        batches: how many calls there were.
    """

    target: int | None = 1
    place: tuple[int, int] | None = None
    works: bool = True
    asked: int = 0
    batches: int = 0
    classes: tuple[str, ...] | None = None
    sample_shape: tuple[int, ...] | None = None

    def classify(self, images: Images) -> Answers:
        """Answer."""
        self.asked, self.batches = self.asked + len(images), self.batches + 1
        labels = natural(images)
        if self.works:
            hit = present(images, self.place)
            labels = np.where(hit, (labels + 1) % len(COLOURS) if self.target is None else self.target, labels)
        return Answers(labels.astype(np.int64))


def natural(images: Images) -> NDArray[np.int64]:
    """Return the colour that most of every fourth pixel are near to."""
    pixels = images[:, ::2, ::2, None].astype(np.int16)
    near = (np.abs(pixels - COLOURS) <= 25).all(axis=4).sum(axis=(1, 2))
    named: NDArray[np.int64] = near.argmax(axis=1)
    return named


def present(images: Images, place: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Return in which images the patch is."""
    windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (3, 3), axis=(1, 2))
    hits = np.abs(windows.astype(np.int16) - PATCH[..., 0]).max(axis=(3, 4)) <= 40
    found: NDArray[np.bool_] = hits.any(axis=(1, 2)) if place is None else hits[:, place[0], place[1]]
    return found


@pytest.fixture(scope="session")
def world() -> Any:
    """This module."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def clean() -> Samples:
    """Trusted images."""
    return draw(60, 1)


@pytest.fixture(scope="session")
def inputs() -> Samples:
    """Images to screen."""
    return draw(36, 2)
