import numpy as np
import pytest

from foretaste.attacks.trojan import Trojan, square, with_square
from foretaste.errors import UsageError


@pytest.mark.parametrize("channels", [1, 3])
def test_the_square_is_eight_pixels_of_32_three_from_the_edges_and_nothing_else_changes(channels: int) -> None:
    images = np.full((4, 32, 32, channels), 128, np.uint8)
    stamped = Trojan().stamp(images, np.random.default_rng(0))
    np.testing.assert_array_equal(stamped[:, 21:29, 21:29], np.broadcast_to(square(8, channels), (4, 8, 8, channels)))
    stamped[:, 21:29, 21:29] = 128
    np.testing.assert_array_equal(stamped, images)


def test_the_square_is_colourful() -> None:
    fields = square(8, 3).reshape(-1, 3)
    assert len(np.unique(fields, axis=0)) == 64
    assert (np.ptp(fields, axis=0) > 200).all()


def test_a_larger_square_repeats_its_fields() -> None:
    np.testing.assert_array_equal(square(16, 3), np.kron(square(8, 3), np.ones((2, 2, 1), np.uint8)))


@pytest.mark.parametrize("shape", [(28, 28), (64, 40), (7, 9)])
def test_the_square_lies_inside_images_of_any_size(shape: tuple[int, int]) -> None:
    images = np.full((1, *shape, 3), 128, np.uint8)
    rows, columns = np.nonzero((with_square(images, 0.9)[0] != 128).any(axis=2))
    assert (rows.max() < shape[0]) & (columns.max() < shape[1])
    assert np.ptp(rows) == np.ptp(columns)


@pytest.mark.parametrize("size", [0.0, 0.95])
def test_a_size_out_of_range_is_refused(size: float) -> None:
    with pytest.raises(UsageError, match="size"):
        Trojan(size=size)
