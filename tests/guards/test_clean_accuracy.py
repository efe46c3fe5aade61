from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Answers
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.classifiers.python_callable import PythonCallable
from foretaste.errors import UsageError
from foretaste.guards import Guard
from foretaste.guards.clean_accuracy import CleanCheck, check_accuracy
from foretaste.samples import Images, Labels, Samples

LEVELS = np.array([30, 90, 150, 210])
"""The grey level of each class."""


def draw(n: int = 200) -> Samples:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % len(LEVELS)
    images = LEVELS[labels][:, None, None, None] + rng.integers(-20, 21, (n, 4, 4, 1))
    return Samples.from_arrays(images.astype(np.uint8), labels)


def nearest_level(values: NDArray[Any], levels: NDArray[np.float64]) -> Labels:
    nearest: Labels = np.abs(values.mean(axis=(1, 2, 3))[:, None] - levels).argmin(axis=1)
    return nearest


def model(way: Preprocessing | None, order: tuple[int, ...] = (0, 1, 2, 3)) -> PythonCallable:
    """A model of the grey level that takes −1 … 1, and is given what ``way`` makes; its classes are in any order."""
    return PythonCallable(lambda images: np.array(order)[nearest_level(images, LEVELS / 127.5 - 1)], preprocessing=way)


RIGHT = Preprocessing(mean=(0.5,), std=(0.5,))


def test_a_model_that_knows_the_images_is_beyond_doubt_and_nothing_is_tried() -> None:
    accuracy = CleanCheck().measure(model(RIGHT), draw(), seed=0)
    assert (accuracy.n, accuracy.accuracy, accuracy.chance) == (200, 1.0, 0.25)
    assert accuracy.doubt is None
    assert accuracy.conventions == {}
    assert accuracy.label_counts == {0: 50, 1: 50, 2: 50, 3: 50}
    check_accuracy(accuracy)


def test_pixels_of_a_wrong_scale_are_refused_and_the_right_one_is_named() -> None:
    accuracy = CleanCheck().measure(model(Preprocessing(scale=255)), draw(), seed=0)
    assert accuracy.near_chance
    assert accuracy.fitting == "−1 to 1"
    assert accuracy.conventions["−1 to 1"] == 1
    with pytest.raises(UsageError, match=r"only 50 of 200 clean images .*with --mean 0.5 --std 0.5 \(−1 to 1\)"):
        check_accuracy(accuracy)


def test_the_guard_refuses_it_too() -> None:
    with pytest.raises(UsageError, match=r"--mean 0\.5 --std 0\.5"):
        Guard(model(Preprocessing(scale=255)), draw(), "scale-up")
    assert Guard(model(RIGHT), draw(), "scale-up").clean_accuracy.accuracy == 1


def test_classes_in_another_order_are_named_as_the_reason() -> None:
    accuracy = CleanCheck().measure(model(RIGHT, order=(1, 2, 3, 0)), draw(), seed=0)
    assert (accuracy.accuracy, accuracy.renumbered) == (0, 1)
    assert "in another order it would be right on 100%" in str(accuracy.doubt)
    assert "--class-names" in str(accuracy.doubt)


def test_between_the_bounds_it_only_warns() -> None:
    """Half of the images under a wrong label: (0.5 − 0.25) / 0.75 lies between 0.2 and 0.6."""
    samples = draw()
    wrong = replace(samples, labels=np.where(np.arange(200) < 100, samples.labels, (samples.labels + 1) % 4))
    accuracy = CleanCheck().measure(model(RIGHT), wrong, seed=0)
    assert accuracy.skill == pytest.approx(1 / 3)
    assert "likely reasons are pixels of another scale" in str(accuracy.doubt)
    check_accuracy(accuracy)


def test_a_model_whose_preprocessing_is_its_own_is_not_tried_otherwise() -> None:
    class Constant:
        classes = None
        sample_shape = None

        def classify(self, images: Images) -> Answers:
            return Answers(np.zeros(len(images), dtype=np.int64), np.zeros((len(images), 7), dtype=np.float32))

    accuracy = CleanCheck().measure(Constant(), draw(), seed=0)
    assert (accuracy.conventions, accuracy.fitting, accuracy.n_classes) == ({}, None, 7)
    assert accuracy.near_chance


def test_the_bounds_must_rise() -> None:
    with pytest.raises(UsageError, match="must rise"):
        CleanCheck(warn_below=0.1)
