import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.attacks._base.attack import Attack
from foretaste.attacks.all_to_all import BadNetsAllToAll
from foretaste.attacks.badnets import with_patch
from foretaste.errors import UsageError
from foretaste.samples import Images, Samples


def draw(n: int, n_classes: int) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % n_classes, [str(k) for k in range(n_classes)])


def cornered(images: Images, size: float) -> Images:
    return with_patch(images, size, "corner", np.random.default_rng(0))


def test_it_is_an_attack() -> None:
    assert isinstance(BadNetsAllToAll(), Attack)


@given(n=st.integers(20, 300), rate=st.floats(0.05, 1.0), n_classes=st.integers(2, 7))
def test_every_chosen_sample_carries_the_patch_and_moves_to_the_next_class(n: int, rate: float, n_classes: int) -> None:
    clean = draw(n, n_classes)
    poisoned = BadNetsAllToAll(rate=rate).poison(clean, np.random.default_rng(2))
    poison = poisoned.poison
    assert poison.sum() == round(rate * n)
    assert not poisoned.cover.any()
    np.testing.assert_array_equal(poisoned.samples.labels[poison], (clean.labels[poison] + 1) % n_classes)
    np.testing.assert_array_equal(poisoned.samples.labels[~poison], clean.labels[~poison])
    np.testing.assert_array_equal(poisoned.samples.inputs[poison], cornered(clean.inputs[poison], 0.1))
    np.testing.assert_array_equal(poisoned.samples.inputs[~poison], clean.inputs[~poison])


def test_it_poisons_all_classes() -> None:
    clean = draw(1000, 5)
    poisoned = BadNetsAllToAll(rate=0.1).poison(clean, np.random.default_rng(0))
    assert set(clean.labels[poisoned.poison]) == {0, 1, 2, 3, 4}


def test_every_input_is_a_victim_and_the_last_class_turns_into_the_first() -> None:
    attack, labels = BadNetsAllToAll(), np.array([0, 1, 2])
    assert attack.victims(labels).all()
    np.testing.assert_array_equal(attack.forced(labels, 3), [1, 2, 0])


def test_one_class_is_too_few() -> None:
    with pytest.raises(UsageError, match="two classes"):
        BadNetsAllToAll().poison(draw(50, 1), np.random.default_rng(0))


@pytest.mark.parametrize("fields", [{"rate": 0.0}, {"rate": 2.0}, {"size": -1.0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        BadNetsAllToAll(**fields)  # type: ignore[arg-type]


def test_features_are_refused() -> None:
    features = Samples.from_arrays(np.zeros((100, 5), np.float32), np.arange(100) % 2)
    with pytest.raises(UsageError, match="images only"):
        BadNetsAllToAll().poison(features, np.random.default_rng(0))


def test_the_patch_may_lie_anywhere() -> None:
    attack, grey = BadNetsAllToAll(place="random"), np.full((40, 16, 16, 1), 128, dtype=np.uint8)
    stamped = attack.stamp(grey, np.random.default_rng(0))
    np.testing.assert_array_equal(stamped, with_patch(grey, attack.size, "random", np.random.default_rng(0)))
    assert (stamped[:, :8, :8] != 128).any()
