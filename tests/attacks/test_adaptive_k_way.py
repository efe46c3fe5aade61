import numpy as np
import pytest

from foretaste.attacks.adaptive_k_way import DOTS, AdaptiveKWay
from foretaste.errors import UsageError

PLAIN = np.full((40, 32, 32, 3), 128, np.uint8)
PLACES = [(int(row * 32), int(column * 32)) for row, column, _ in DOTS]


def test_training_samples_carry_one_pixel_each_all_equally_often() -> None:
    planted = AdaptiveKWay().plant(PLAIN, np.random.default_rng(0))
    changed = (planted != 128).any(axis=3)
    assert (changed.sum(axis=(1, 2)) == 1).all()
    assert [int(changed[:, row, column].sum()) for row, column in PLACES] == [10, 10, 10, 10]
    for (row, column), (_, _, colour) in zip(PLACES, DOTS, strict=True):
        assert (planted[changed[:, row, column], row, column] == colour).all()


def test_test_inputs_carry_all_four() -> None:
    stamped = AdaptiveKWay().stamp(PLAIN, np.random.default_rng(0))
    for (row, column), (_, _, colour) in zip(PLACES, DOTS, strict=True):
        assert (stamped[:, row, column] == colour).all()
        stamped[:, row, column] = 128
    np.testing.assert_array_equal(stamped, PLAIN)


def test_dots_grow_with_the_image_and_lie_inside() -> None:
    images = np.zeros((1, 96, 64, 1), np.uint8)
    stamped = AdaptiveKWay(size=0.15).stamp(images, np.random.default_rng(0))
    assert (stamped != 0).sum() == 4 * 10**2


@pytest.mark.parametrize("size", [0.0, 0.2])
def test_a_size_out_of_range_is_refused(size: float) -> None:
    with pytest.raises(UsageError, match="size"):
        AdaptiveKWay(size=size)
