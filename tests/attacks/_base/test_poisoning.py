from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.attacks import (
    SIG,
    AdaptiveBlend,
    BadNets,
    BadNetsAllToAll,
    Blend,
    Dynamic,
    poison_training_set,
    stamp_inputs,
)
from foretaste.attacks._base.attack import Attack
from foretaste.attacks.tact import TaCT
from foretaste.errors import UsageError
from foretaste.samples import Samples


def draw(n: int = 400) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 4, ["a", "b", "c", "d"])


def test_all_victims_are_stamped_and_keep_their_true_labels() -> None:
    clean, attack = draw(), BadNets(target=1)
    before = clean.inputs.copy()
    stamped, trojaned = stamp_inputs(clean, attack, 1.0, seed=0)
    np.testing.assert_array_equal(trojaned, clean.labels != 1)
    np.testing.assert_array_equal(stamped.labels, clean.labels)
    np.testing.assert_array_equal(stamped.ids, clean.ids)
    np.testing.assert_array_equal(stamped.inputs[~trojaned], before[~trojaned])
    np.testing.assert_array_equal(stamped.inputs[trojaned], attack.stamp(before[trojaned], np.random.default_rng(0)))
    np.testing.assert_array_equal(clean.inputs, before)


@given(rate=st.floats(0.01, 1.0))
def test_the_rate_is_a_share_of_the_victims(rate: float) -> None:
    clean = draw()
    assert stamp_inputs(clean, BadNets(), rate, seed=0)[1].sum() == round(rate * 300)
    assert stamp_inputs(clean, BadNetsAllToAll(), rate, seed=0)[1].sum() == round(rate * 400)


def test_test_inputs_are_not_chosen_as_the_poison_was() -> None:
    clean = draw()
    poison = poison_training_set(clean, BadNetsAllToAll(rate=0.5), seed=0).poison
    assert not np.array_equal(poison, stamp_inputs(clean, BadNetsAllToAll(), 0.5, seed=0)[1])


@pytest.mark.parametrize(
    ("attack", "rate", "seed", "reason"),
    [
        (BadNets(), 0.0, 0, "rate"),
        (BadNets(), 1.5, 0, "rate"),
        (BadNets(), 0.001, 0, "no sample to stamp"),
        (TaCT(source=7, cover_classes=(5,)), 0.5, 0, "none of the inputs is of a class that the attack turns"),
        (BadNets(target=9), 0.5, 0, "class 9"),
        (BadNets(), 0.5, -1, "seed"),
    ],
)
def test_bad_input_is_refused(attack: Attack, rate: float, seed: int, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        stamp_inputs(draw(), attack, rate, seed)


@pytest.mark.parametrize("attack", [Blend(alpha=0.001), SIG(delta=0.4, test_delta=0.4, frequency=2)])
def test_a_trigger_that_changes_nothing_is_refused(attack: Attack) -> None:
    with pytest.raises(UsageError, match="changes none"):
        poison_training_set(draw(), attack, 0)
    with pytest.raises(UsageError, match="changes none"):
        stamp_inputs(draw(), attack, 1.0, 0)


@pytest.mark.parametrize("attack", [AdaptiveBlend(cover_rate=0.001), Dynamic(rate=0.1, cover_rate=0.001)])
def test_cover_that_rounds_to_nothing_is_refused(attack: AdaptiveBlend | Dynamic) -> None:
    with pytest.raises(UsageError, match="the rate leaves no sample as cover"):
        attack.poison(draw(), np.random.default_rng(0))
    without = replace(AdaptiveBlend(rate=0.1), cover_rate=0)
    assert not without.poison(draw(), np.random.default_rng(0)).cover.any()


def test_samples_that_are_taken_stay_as_they_are_and_rates_are_shares_of_the_others() -> None:
    clean, attack = draw(), AdaptiveBlend(rate=0.1, cover_rate=0.2)
    taken = np.arange(400) < 100
    poisoned = poison_training_set(clean, attack, seed=0, taken=taken)
    assert (poisoned.poison.sum(), poisoned.cover.sum()) == (30, 60)
    assert not ((poisoned.poison | poisoned.cover) & taken).any()
    changed = (poisoned.samples.inputs != clean.inputs).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, poisoned.poison | poisoned.cover)
    np.testing.assert_array_equal(poisoned.samples.labels[~poisoned.poison], clean.labels[~poisoned.poison])
    assert (poisoned.samples.labels[poisoned.poison] == 0).all()
    np.testing.assert_array_equal(poisoned.original_labels, clean.labels)
    np.testing.assert_array_equal(poisoned.samples.ids, clean.ids)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="seed"):
        poison_training_set(draw(), BadNets(), -1)
