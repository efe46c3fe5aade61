import numpy as np
import pytest

from foretaste.attacks._base.attack import Poisoned, check_images, check_range, check_target, choose
from foretaste.errors import UsageError
from foretaste.samples import Samples


def samples() -> Samples:
    images = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4, 1)
    return Samples.from_arrays(images, np.array([0, 1, 2, 0, 1, 2]))


def test_poisoned_from_stamped_puts_poison_and_cover_in_place_and_leaves_the_clean_set_alone() -> None:
    clean = samples()
    before = clean.inputs.copy()
    stamped, covered = np.full((2, 4, 4, 1), 255, np.uint8), np.full((1, 4, 4, 1), 7, np.uint8)
    poisoned = Poisoned.from_stamped(clean, np.array([1, 4]), stamped, 2, np.array([0]), covered)

    np.testing.assert_array_equal(poisoned.poison, [False, True, False, False, True, False])
    np.testing.assert_array_equal(poisoned.cover, [True, False, False, False, False, False])
    np.testing.assert_array_equal(poisoned.samples.labels, [0, 2, 2, 0, 2, 2])
    np.testing.assert_array_equal(poisoned.original_labels, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(poisoned.samples.inputs[[1, 4]], stamped)
    np.testing.assert_array_equal(poisoned.samples.inputs[[0]], covered)
    np.testing.assert_array_equal(poisoned.samples.inputs[[2, 3, 5]], before[[2, 3, 5]])
    np.testing.assert_array_equal(poisoned.samples.ids, clean.ids)
    np.testing.assert_array_equal(clean.inputs, before)


def test_poisoned_from_stamped_takes_features_and_one_label_per_sample() -> None:
    clean = Samples.from_arrays(np.zeros((3, 5), np.float32), np.array([0, 1, 2]))
    poisoned = Poisoned.from_stamped(clean, np.array([0, 2]), np.ones((2, 5), np.float32), np.array([1, 0]))
    assert poisoned.samples.features is not None
    np.testing.assert_array_equal(poisoned.samples.features.sum(axis=1), [5, 0, 5])
    np.testing.assert_array_equal(poisoned.samples.labels, [1, 1, 0])


def test_choose_gives_distinct_sorted_candidates() -> None:
    candidates = np.array([True, False] * 50)
    chosen = choose(candidates, 20, np.random.default_rng(0))
    assert len(chosen) == 20
    assert (np.diff(chosen) > 0).all()
    assert candidates[chosen].all()


@pytest.mark.parametrize("count", [0, 3])
def test_choose_refuses_to_choose_none_or_more_than_there_are(count: int) -> None:
    with pytest.raises(UsageError):
        choose(np.array([True, True, False]), count, np.random.default_rng(0))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_check_range_refuses_what_is_outside(value: float) -> None:
    with pytest.raises(UsageError, match="rate must be in"):
        check_range("rate", value, 0, 1)


def test_check_range_includes_both_ends_unless_the_low_one_is_open() -> None:
    check_range("rate", 0, 0, 1)
    check_range("rate", 1, 0, 1, open_low=True)
    with pytest.raises(UsageError, match=r"\(0, 1\]"):
        check_range("rate", 0, 0, 1, open_low=True)


@pytest.mark.parametrize("target", [-1, 3])
def test_check_target_refuses_a_class_that_is_not_there(target: int) -> None:
    with pytest.raises(UsageError, match="3 classes"):
        check_target(target, samples())


def test_check_images_refuses_features() -> None:
    check_images(samples().inputs)
    with pytest.raises(UsageError, match="images only"):
        check_images(np.zeros((3, 5), np.float32))
