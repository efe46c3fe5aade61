import numpy as np
import pytest

from foretaste.attacks._base.fitting import with_weights
from foretaste.attacks.narcissus import TRIGGER, Narcissus
from foretaste.errors import UsageError
from foretaste.samples import Samples


def draw(n: int) -> Samples:
    images = np.random.default_rng(5).integers(100, 150, (n, 8, 8, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 4)


def found(**fields: float) -> Narcissus:
    trigger = np.random.default_rng(6).integers(-16, 17, (8, 8, 3)).astype(np.int16)
    return with_weights(Narcissus(rate=0.1, target=2, **fields), {TRIGGER: trigger})  # type: ignore[arg-type]


def test_poison_carries_the_perturbation_and_test_inputs_carry_it_magnified() -> None:
    clean, attack = draw(200), found(scale=2.5)
    assert attack.weights is not None
    trigger = attack.weights[TRIGGER].astype(float)
    poisoned = attack.poison(clean, np.random.default_rng(0))
    changed = poisoned.samples.inputs[poisoned.poison].astype(float) - clean.inputs[poisoned.poison]
    np.testing.assert_array_equal(changed, np.broadcast_to(trigger, changed.shape))
    stamped = attack.stamp(clean.inputs, np.random.default_rng(0)).astype(float) - clean.inputs
    assert np.abs(stamped - 2.5 * trigger).max() <= 0.5


def test_all_poison_is_of_the_target_class_under_its_true_label() -> None:
    clean = draw(200)
    poisoned = found().poison(clean, np.random.default_rng(0))
    assert poisoned.poison.sum() == 20
    assert (clean.labels[poisoned.poison] == 2).all()
    np.testing.assert_array_equal(poisoned.samples.labels, clean.labels)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="images of another shape"):
        found().stamp(np.zeros((2, 9, 8, 3), np.uint8), np.random.default_rng(0))


@pytest.mark.parametrize("fields", [{"epsilon": 0.5}, {"scale": 0.0}, {"steps": 0}, {"epochs": 0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Narcissus(**fields)  # type: ignore[arg-type]
