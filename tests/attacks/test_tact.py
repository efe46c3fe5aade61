from typing import Any

import numpy as np
import pytest

from foretaste.attacks.tact import TaCT
from foretaste.attacks.trojan import with_square
from foretaste.errors import UsageError
from foretaste.samples import Samples


def draw(n: int = 1000, classes: int = 10) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % classes)


def test_poison_is_of_the_source_class_and_cover_of_the_cover_classes_both_with_the_square() -> None:
    clean = draw()
    poisoned = TaCT(rate=0.03, cover_rate=0.05).poison(clean, np.random.default_rng(0))
    assert (poisoned.poison.sum(), poisoned.cover.sum()) == (30, 50)
    assert (clean.labels[poisoned.poison] == 1).all()
    assert (poisoned.samples.labels[poisoned.poison] == 0).all()
    assert set(clean.labels[poisoned.cover]) == {5, 7}
    marked = poisoned.poison | poisoned.cover
    np.testing.assert_array_equal(poisoned.samples.inputs[marked], with_square(clean.inputs[marked], 0.25))


def test_only_the_source_class_is_turned() -> None:
    labels = np.arange(10)
    np.testing.assert_array_equal(TaCT(source=4).victims(labels), labels == 4)
    np.testing.assert_array_equal(TaCT(target=2).forced(labels, 10), np.full(10, 2))


def test_more_poison_than_the_source_class_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 150 samples to poison, but only 100"):
        TaCT(rate=0.15).poison(draw(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": 0}, "same class"),
        ({"source": 5}, "cover_classes"),
        ({"cover_classes": (3, 0)}, "cover_classes"),
        ({"cover_classes": ()}, "cover_classes"),
        ({"size": 0.95}, "size"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        TaCT(**fields)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [(TaCT(source=9), "source 9 is not one of the 8"), (TaCT(cover_classes=(5, 8)), "cover class 8 is not one of")],
)
def test_classes_that_are_not_there_are_refused(attack: TaCT, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        attack.poison(draw(classes=8), np.random.default_rng(0))
