import time
from itertools import combinations

import numpy as np
import pytest

from foretaste.errors import UsageError
from foretaste.io.signs import SIGNS, draw_plate, draw_signs
from foretaste.samples import Samples


@pytest.fixture(scope="module")
def signs() -> Samples:
    return draw_signs(160, seed=0)


def test_images_are_balanced_colour_and_named(signs: Samples) -> None:
    assert signs.images is not None
    assert signs.images.shape == (160, 32, 32, 3)
    assert signs.images.dtype == np.uint8
    assert signs.classes == tuple(SIGNS)
    assert len(SIGNS) == 16
    np.testing.assert_array_equal(np.bincount(signs.labels), np.full(16, 10))
    assert signs.ids[42] == "signs/0-00042"


def test_the_same_seed_gives_the_same_pixels_and_a_smaller_set_is_the_head_of_a_larger(signs: Samples) -> None:
    again = draw_signs(40, seed=0)
    assert again.inputs.tobytes() == signs.inputs[:40].tobytes()
    np.testing.assert_array_equal(again.labels, signs.labels[:40])
    np.testing.assert_array_equal(again.ids, signs.ids[:40])


def test_another_seed_gives_other_images_and_ids(signs: Samples) -> None:
    other = draw_signs(160, seed=1)
    assert (other.inputs != signs.inputs).any(axis=(1, 2, 3)).all()
    assert not set(other.ids) & set(signs.ids)


def test_no_two_images_are_alike(signs: Samples) -> None:
    assert len(np.unique(signs.inputs.reshape(160, -1), axis=0)) == 160


def test_images_of_a_class_vary_in_brightness_and_hold_detail(signs: Samples) -> None:
    for label in range(16):
        images = signs.inputs[signs.labels == label].astype(np.float64)
        # Ten draws of an exposure that is log-normal with deviation 0.35: far above noise, far from black or white.
        assert images.mean(axis=(1, 2, 3)).std() > 8
        assert 30 < images.mean() < 225
        assert images.std(axis=(1, 2)).mean() > 10


def test_every_sign_differs_from_every_other() -> None:
    plates = {name: np.asarray(draw_plate(draw), dtype=np.float64) for name, draw in SIGNS.items()}
    for name, plate in plates.items():
        assert plate[0, 0, 3] == 0, f"{name} fills the corner that should be transparent"
        assert plate[48, 48, 3] == 255, f"{name} is not opaque in the middle"
    for (one, first), (two, second) in combinations(plates.items(), 2):
        # The closest pair is 30 and 80, two gaps in one digit: about a hundred of the plate's 9,216 pixels.
        visible = int((np.abs(first - second).max(axis=2) > 64).sum())
        assert visible > 50, f"{one} looks like {two}"


def test_no_signs_are_an_empty_set() -> None:
    assert len(draw_signs(0)) == 0


def test_drawing_is_quick() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        draw_signs(300, seed=2)
        return time.perf_counter() - start

    # 6,000 in 20 s leaves 1 s for 300; twice that for a slow machine, and the best of five, for what else it does.
    assert min(seconds() for _ in range(5)) < 2


@pytest.mark.parametrize(("n", "seed"), [(-1, 0), (1, -1)])
def test_negative_numbers_are_refused(n: int, seed: int) -> None:
    with pytest.raises(UsageError, match="0 or more"):
        draw_signs(n, seed)
