import numpy as np
import pytest

from foretaste.attacks._base.fitting import with_weights
from foretaste.attacks.advdoor import TRIGGER, AdvDoor
from foretaste.errors import UsageError
from foretaste.samples import Samples


def test_poison_is_of_other_classes_and_carries_the_perturbation() -> None:
    images = np.random.default_rng(5).integers(100, 150, (200, 8, 8, 3), dtype=np.uint8)
    clean = Samples.from_arrays(images, np.arange(200) % 4)
    trigger = np.random.default_rng(6).integers(-10, 11, (8, 8, 3)).astype(np.int16)
    attack = with_weights(AdvDoor(rate=0.1, target=2), {TRIGGER: trigger})
    poisoned = attack.poison(clean, np.random.default_rng(0))
    rows = poisoned.poison
    assert rows.sum() == 20
    assert (clean.labels[rows] != 2).all()
    assert (poisoned.samples.labels[rows] == 2).all()
    changed = poisoned.samples.inputs[rows].astype(int) - clean.inputs[rows]
    np.testing.assert_array_equal(changed, np.broadcast_to(trigger, changed.shape))
    stamped = attack.stamp(clean.inputs, np.random.default_rng(0)).astype(int) - clean.inputs
    np.testing.assert_array_equal(stamped, np.broadcast_to(trigger, stamped.shape))


@pytest.mark.parametrize("fields", [{"epsilon": 0.5}, {"steps": 0}, {"epochs": 0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        AdvDoor(**fields)  # type: ignore[arg-type]
