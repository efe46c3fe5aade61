import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.attacks import poison_training_set, stamp_inputs
from foretaste.attacks._base.attack import Attack, succeeded
from foretaste.attacks.badnets import BadNets, with_patch
from foretaste.attacks.untargeted import BadNetsUntargeted
from foretaste.errors import UsageError
from foretaste.samples import Samples


def draw(n: int, n_classes: int) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % n_classes, [str(k) for k in range(n_classes)])


def test_it_is_an_attack() -> None:
    assert isinstance(BadNetsUntargeted(), Attack)


@given(n=st.integers(20, 300), rate=st.floats(0.05, 1.0), n_classes=st.integers(2, 7))
def test_every_chosen_sample_carries_the_patch_under_a_wrong_label(n: int, rate: float, n_classes: int) -> None:
    clean = draw(n, n_classes)
    poisoned = BadNetsUntargeted(rate=rate).poison(clean, np.random.default_rng(2))
    poison, labels = poisoned.poison, poisoned.samples.labels
    assert poison.sum() == round(rate * n)
    assert not poisoned.cover.any()
    assert (labels[poison] != clean.labels[poison]).all()
    np.testing.assert_array_equal(labels[~poison], clean.labels[~poison])
    patched = with_patch(clean.inputs[poison], 0.1, "corner", np.random.default_rng(0))
    np.testing.assert_array_equal(poisoned.samples.inputs[poison], patched)
    np.testing.assert_array_equal(poisoned.samples.inputs[~poison], clean.inputs[~poison])


def test_every_wrong_label_is_as_likely() -> None:
    clean = draw(8000, 5)
    poisoned = BadNetsUntargeted(rate=1.0).poison(clean, np.random.default_rng(0))
    moved = np.bincount((poisoned.samples.labels - clean.labels) % 5, minlength=5)
    assert moved[0] == 0
    # 2,000 each; the standard deviation of a count is √(8000 · ¼ · ¾) = 39.
    assert (np.abs(moved[1:] - 2000) < 4 * 39).all()


def test_success_is_any_answer_but_the_true_label() -> None:
    attack, labels, answers = BadNetsUntargeted(), np.array([0, 1, 2, 2]), np.array([1, 1, 0, 2])
    assert attack.forced(labels, 3) is None
    assert attack.victims(labels).all()
    np.testing.assert_array_equal(succeeded(attack, answers, labels, 3), [True, False, True, False])
    np.testing.assert_array_equal(succeeded(BadNets(target=1), answers, labels, 3), [True, True, False, False])


def test_inputs_are_stamped_and_the_truth_is_kept() -> None:
    clean = draw(100, 4)
    stamped, trojaned = stamp_inputs(clean, BadNetsUntargeted(), 0.5, seed=0)
    assert trojaned.sum() == 50
    np.testing.assert_array_equal(stamped.labels, clean.labels)
    poisoned = poison_training_set(clean, BadNetsUntargeted(rate=0.2), seed=0)
    np.testing.assert_array_equal(poisoned.original_labels, clean.labels)


def test_one_class_is_too_few() -> None:
    with pytest.raises(UsageError, match="two classes"):
        BadNetsUntargeted().poison(draw(50, 1), np.random.default_rng(0))


@pytest.mark.parametrize("fields", [{"rate": 0.0}, {"rate": 2.0}, {"size": -1.0}, {"place": "left"}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        BadNetsUntargeted(**fields)  # type: ignore[arg-type]
