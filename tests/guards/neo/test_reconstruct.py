"""The extent of a trigger on a constant background, its own flip rate, and copies of one that is transparent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Answers
from foretaste.guards.neo import NEO, Registry
from foretaste.guards.neo.batched_queries import ask
from foretaste.guards.neo.inpainting import with_margin
from foretaste.guards.neo.reconstruct import measured
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box
from foretaste.guards.neo.registry import blended, least_correlation, same
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images, Labels, Samples

STROKES = [
    (3, 6, 9, 19),
    (3, 13, 8, 11),
    (3, 13, 17, 20),
    (12, 15, 9, 19),
    (13, 24, 8, 11),
    (13, 24, 17, 20),
    (21, 24, 9, 19),
]
"""Rows and columns of the strokes of a digit on 28 × 28 pixels, as on a pocket calculator."""
MIDDLES = [
    (3, 6, 12, 16),
    (7, 11, 8, 11),
    (7, 11, 17, 20),
    (12, 15, 12, 16),
    (16, 20, 8, 11),
    (16, 20, 17, 20),
    (21, 24, 12, 16),
]
"""Where each stroke crosses no other."""
LIT = "1110111 0010010 1011101 1011011 0111010 1101011 1101111 1010010 1111111 1111011"
DIGITS = np.array([[int(bit) for bit in bits] for bits in LIT.split()])
"""Which strokes each digit has."""
CHECKED = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)[..., None]
SOLID = np.full((3, 3, 1), 255, dtype=np.uint8)
PLACE = (24, 24)


def digits(n: int, seed: int) -> Samples:
    """Draw digits in strokes of any brightness on black, each shifted by up to a pixel."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 10
    images = np.zeros((n, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        down, right = rng.integers(-1, 2, 2).tolist()
        for (top, bottom, left, end), lit in zip(STROKES, DIGITS[label], strict=True):
            if lit:
                stroke = image[top + down : bottom + down, left + right : end + right]
                stroke[:] = np.maximum(stroke, rng.integers(150, 256, stroke.shape))
    return Samples.from_arrays(images, labels)


@dataclass
class ReadsDigits:
    """Reads which strokes are lit; a patch in the corner is read as a 3."""

    patch: Images
    classes: tuple[str, ...] | None = None
    sample_shape: tuple[int, ...] | None = None

    def classify(self, images: Images) -> Answers:
        lit = np.stack([images[:, t:b, left:e].mean(axis=(1, 2, 3)) for t, b, left, e in MIDDLES], axis=1) / 255
        labels = np.abs(lit[:, None] - 0.6 * DIGITS).sum(axis=2).argmin(axis=1)
        corner = images[:, PLACE[0] : PLACE[0] + 3, PLACE[1] : PLACE[1] + 3].astype(np.int16)
        hit = np.abs(corner - self.patch).max(axis=(1, 2, 3)) <= 60
        return Answers(np.where(hit, 3, labels).astype(np.int64))


@pytest.mark.parametrize("patch", [CHECKED, SOLID])
def test_on_a_constant_background_a_patch_has_its_own_extent(patch: Images) -> None:
    model, clean, inputs = ReadsDigits(patch), digits(80, 1), digits(40, 2)
    assert (model.classify(clean.inputs).labels == clean.labels).all()
    images = np.array(inputs.inputs)
    images[::2, 24:27, 24:27] = patch
    screener = NEO().calibrate(model, clean, false_alarm_rate=0.05, seed=0)
    screening = screener.screen(images)
    victims = (np.arange(40) % 2 == 0) & (inputs.labels != 3)
    np.testing.assert_array_equal(screening.trojaned, victims)
    np.testing.assert_array_equal(screening.corrected[victims], inputs.labels[victims])
    [trigger] = screener.registry
    assert Box(*trigger.box).overlap(Box(24, 24, 27, 27)) >= 0.8
    assert trigger.flip_rate == 1


def trigger(patch: Images, position: tuple[int, int] = (0, 0), **fields: Any) -> Trigger:
    mask = np.ones(patch.shape[:2], dtype=np.bool_)
    given = {"anywhere": False, "target": 3, "flip_rate": 1.0, "n_confirmed": 20} | fields
    return Trigger(patch=patch, mask=mask, position=position, **given)


def test_the_flip_rate_is_that_of_the_pixels_that_are_saved() -> None:
    """A part of the patch works on no image, whatever the whole did."""
    model, clean = ReadsDigits(SOLID), digits(80, 1)
    references = References(clean.inputs, model.classify(clean.inputs).labels)

    def rate(saved: Trigger) -> tuple[float, int]:
        [asked] = ask([partial(measured, saved, references, np.random.default_rng(0))], model)
        return asked.result.flip_rate, asked.result.n_confirmed

    assert rate(trigger(SOLID, PLACE)) == (1, 24)
    assert rate(trigger(SOLID[:1], PLACE)) == (0, 24)


def test_a_known_trigger_is_covered_with_a_margin() -> None:
    mask = np.array([[True, False], [True, True]])
    box, grown = with_margin(Box(0, 5, 2, 7), mask, 32, 32)
    assert box == (0, 4, 3, 8)
    assert grown.tolist() == [[True, True, True, True], [True, True, True, True], [True, True, True, True]]
    assert with_margin(Box(100, 100, 110, 110), np.ones((10, 10), dtype=np.bool_), 224, 224)[0] == (93, 93, 117, 117)


STICKER = np.random.default_rng(5).choice(np.array([0, 255], dtype=np.uint8), (5, 5, 3))
OPACITY = 0.5


def stick(images: Images, seed: int) -> Images:
    """Lay the sticker, half transparent, over copies of the images at random places."""
    rng, stamped = np.random.default_rng(seed), np.array(images)
    for image in stamped:
        row, column = rng.integers(0, image.shape[0] - 4, 2).tolist()
        part = image[row : row + 5, column : column + 5]
        part[:] = np.rint((1 - OPACITY) * part + OPACITY * STICKER)
    return stamped


@dataclass
class Stickered:
    """Names the colour of an image, and 1 wherever something correlates with the sticker."""

    natural: Any
    classes: tuple[str, ...] | None = None
    sample_shape: tuple[int, ...] | None = None

    def classify(self, images: Images) -> Answers:
        return Answers(np.where(self.hit(images), 1, self.natural(images)).astype(np.int64))

    def hit(self, images: Images) -> NDArray[np.bool_]:
        pattern = STICKER - STICKER.mean()
        windows = np.lib.stride_tricks.sliding_window_view(images.astype(np.float32), (5, 5), axis=(1, 2))
        products = np.einsum("nyxcij,ijc->nyx", windows, pattern.astype(np.float32))
        found: NDArray[np.bool_] = (products > 0.4 * (pattern**2).sum()).any(axis=(1, 2))
        return found


def test_copies_of_a_transparent_sticker_are_one_trigger(world: Any, clean: Samples) -> None:
    model, inputs = Stickered(world.natural), world.draw(60, 7)
    images = np.array(inputs.inputs)
    images[:40] = stick(images[:40], 3)
    labels: Labels = model.classify(images).labels
    victims = (np.arange(60) < 40) & (labels != inputs.labels)
    assert victims.sum() >= 25
    screener = NEO(calibration=30).calibrate(model, clean, false_alarm_rate=0.05, seed=3)
    screening = screener.screen(images)
    assert screening.trojaned[victims].mean() >= 0.95
    assert not screening.trojaned[~victims].any()
    [trigger] = screener.registry
    assert trigger.target == 1
    assert set(screening.trigger_ids[screening.trojaned]) == {trigger.id}
    assert (screening.corrected == inputs.labels)[victims].mean() >= 0.9


def test_recognition_tolerates_blending_but_not_another_pattern(world: Any) -> None:
    images = stick(world.draw(12, 8).inputs, 4)
    known = trigger(STICKER, anywhere=True, target=1)
    assert len(blended(known, images)) == 12
    assert len(blended(known, world.draw(12, 8).inputs)) == 0
    registry = Registry([known])
    seen = registry.match(images, np.full(12, 1))
    assert all(match is not None and match.blended for match in seen)
    assert registry.match(images, np.full(12, 2)) == [None] * 12
    flat = trigger(np.full((5, 5, 3), 200, dtype=np.uint8), anywhere=True, target=1)
    assert len(blended(flat, images)) == 0


def test_few_pixels_must_correlate_better_than_many() -> None:
    assert least_correlation(100, 784) == 0.75
    assert least_correlation(9, 784) > 0.95
    # Of 2,000 images of noise, two at most correlate with nine unrelated pixels; three standard errors are 0.002.
    rng = np.random.default_rng(0)
    grey = trigger(rng.integers(0, 256, (3, 3, 1), dtype=np.uint8), anywhere=True)
    noise = np.clip(rng.normal(128, 30, (2000, 16, 16, 1)), 0, 255).astype(np.uint8)
    assert len(blended(grey, noise)) / 2000 <= 0.001 + 0.002


def test_alike_and_of_one_target_is_one_trigger() -> None:
    copy = trigger(np.rint(0.5 * STICKER + 60).astype(np.uint8), anywhere=True, target=1)
    known = trigger(STICKER, anywhere=True, target=1)
    assert same(known, copy)
    assert not same(known, replace(copy, target=2))
    assert not same(known, replace(copy, patch=np.random.default_rng(6).integers(0, 255, (5, 5, 3), dtype=np.uint8)))
