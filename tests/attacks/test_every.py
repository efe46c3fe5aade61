"""What holds for every attack without a trained part: each is tried as soon as it is registered."""

from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest

from foretaste.attacks import ATTACKS, Attack, Poisoned, Trainable, fitted, poison_training_set, stamp_inputs, succeeded
from foretaste.errors import UsageError
from foretaste.samples import Samples

CLOSED_FORM = [name for name, kind in ATTACKS.items() if not isinstance(kind(), Trainable)]
CLASSES = 10


def draw(n: int = 1000, height: int = 18, width: int = 16, channels: int = 3) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % CLASSES)


def built(name: str, **fields: Any) -> Attack:
    return ATTACKS[name](**{"rate": 0.05, **fields})


def poisoned_by(name: str) -> tuple[Attack, Samples, Poisoned]:
    attack, clean = built(name), draw()
    return attack, clean, poison_training_set(clean, attack, seed=1)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_rates_are_exact_and_only_chosen_samples_are_touched(name: str) -> None:
    attack, clean, poisoned = poisoned_by(name)
    before = draw()
    assert poisoned.poison.sum() == 50
    assert poisoned.cover.sum() == round(getattr(attack, "cover_rate", 0) * 1000)
    assert not (poisoned.poison & poisoned.cover).any()
    changed = (poisoned.samples.inputs != before.inputs).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, poisoned.poison | poisoned.cover)
    np.testing.assert_array_equal(poisoned.samples.ids, clean.ids)
    assert poisoned.samples.classes == clean.classes
    np.testing.assert_array_equal(clean.inputs, before.inputs)
    np.testing.assert_array_equal(clean.labels, before.labels)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_poison_gets_a_label_that_is_the_attacks_aim_and_all_else_keeps_its_own(name: str) -> None:
    attack, clean, poisoned = poisoned_by(name)
    poison = poisoned.poison
    np.testing.assert_array_equal(poisoned.original_labels, clean.labels)
    np.testing.assert_array_equal(poisoned.samples.labels[~poison], clean.labels[~poison])
    assert succeeded(attack, poisoned.samples.labels[poison], clean.labels[poison], CLASSES).all()


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_poison_is_of_a_class_that_the_trigger_turns_or_keeps_its_label(name: str) -> None:
    attack, clean, poisoned = poisoned_by(name)
    before, after = clean.labels[poisoned.poison], poisoned.samples.labels[poisoned.poison]
    assert (attack.victims(before) | (before == after)).all()


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name: str) -> None:
    clean, attack = draw(), built(name)
    first, again, other = (poison_training_set(clean, attack, seed) for seed in (3, 3, 4))
    assert first.samples.inputs.tobytes() == again.samples.inputs.tobytes()
    assert first.samples.labels.tobytes() == again.samples.labels.tobytes()
    np.testing.assert_array_equal(first.poison, again.poison)
    np.testing.assert_array_equal(first.cover, again.cover)
    assert not np.array_equal(first.poison, other.poison)

    first_inputs, again_inputs, other_inputs = (stamp_inputs(clean, attack, 0.5, seed) for seed in (3, 3, 4))
    assert first_inputs[0].inputs.tobytes() == again_inputs[0].inputs.tobytes()
    np.testing.assert_array_equal(first_inputs[1], again_inputs[1])
    assert not np.array_equal(first_inputs[1], other_inputs[1])


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_trigger_follows_from_the_fields_alone(name: str) -> None:
    """What the training set was poisoned with is what another process stamps at test time."""
    images = draw(20).inputs
    first, again = (built(name).stamp(images, np.random.default_rng(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_every_victim_carries_the_trigger_and_keeps_its_label(name: str) -> None:
    clean, attack = draw(), built(name)
    stamped, trojaned = stamp_inputs(clean, attack, 1.0, seed=0)
    np.testing.assert_array_equal(trojaned, attack.victims(clean.labels))
    np.testing.assert_array_equal((stamped.inputs != clean.inputs).any(axis=(1, 2, 3)), trojaned)
    np.testing.assert_array_equal(stamped.labels, clean.labels)


@pytest.mark.parametrize("shape", [(5, 32, 32, 1), (5, 40, 33, 3), (5, 14, 14, 1), (0, 16, 16, 3)])
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_images_of_any_shape_can_be_stamped(name: str, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    stamped = built(name).stamp(images, np.random.default_rng(0))
    assert stamped.shape == shape
    assert stamped.dtype == np.uint8
    assert (stamped != images).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_black_and_white_images_do_not_wrap_round(name: str, value: int) -> None:
    """A byte that over- or underflows jumps to the other end of the range; an opaque trigger does too, but in few."""
    plain = np.full((3, 32, 32, 3), value, np.uint8)
    stamped = built(name).stamp(plain, np.random.default_rng(0))
    assert (np.abs(stamped.astype(int) - value) > 200).mean() < 0.1


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_features_are_refused(name: str) -> None:
    features = Samples.from_arrays(np.zeros((1000, 5), np.float32), np.arange(1000) % CLASSES)
    with pytest.raises(UsageError, match="images only"):
        built(name).poison(features, np.random.default_rng(0))
    with pytest.raises(UsageError, match="images only"):
        built(name).stamp(features.inputs, np.random.default_rng(0))


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_a_rate_out_of_range_is_refused(name: str, rate: float) -> None:
    with pytest.raises(UsageError, match="rate must be in"):
        built(name, rate=rate)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_a_rate_that_leaves_no_sample_or_asks_for_too_many_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no sample"):
        built(name, rate=0.0001).poison(draw(), np.random.default_rng(0))
    attack = built(name, rate=1.0)
    if not attack.victims(draw().labels).all():
        with pytest.raises(UsageError, match="needs 1000 samples to poison, but only"):
            attack.poison(draw(), np.random.default_rng(0))


@pytest.mark.parametrize("name", [name for name in CLOSED_FORM if hasattr(ATTACKS[name](), "target")])
def test_a_target_that_is_no_class_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="target must be in"):
        built(name, target=-1)
    with pytest.raises(UsageError, match="target 10 is not one of the 10 classes"):
        built(name, target=CLASSES).poison(draw(), np.random.default_rng(0))


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_a_target_may_be_any_class(name: str) -> None:
    attack = built(name)
    if not hasattr(attack, "target"):
        pytest.skip("no single target")
    other = replace(attack, target=3)  # type: ignore[type-var]
    poisoned = other.poison(draw(), np.random.default_rng(0))
    assert (poisoned.samples.labels[poisoned.poison] == 3).all()


@pytest.mark.parametrize("name", [name for name in CLOSED_FORM if hasattr(ATTACKS[name](), "cover_rate")])
def test_cover_samples_are_not_of_the_target_class_and_may_be_left_out(name: str) -> None:
    clean, attack = draw(), built(name, cover_rate=0.1)
    poisoned = attack.poison(clean, np.random.default_rng(0))
    assert poisoned.cover.sum() == 100
    assert (clean.labels[poisoned.cover] != 0).all()
    assert not built(name, cover_rate=0.0).poison(clean, np.random.default_rng(0)).cover.any()
    with pytest.raises(UsageError, match="cover_rate"):
        built(name, cover_rate=1.1)
    with pytest.raises(UsageError, match="samples as cover"):
        built(name, cover_rate=0.95).poison(clean, np.random.default_rng(0))


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_stamping_takes_a_tenth_of_a_millisecond_per_image_at_most(name: str) -> None:
    """Fifty thousand in five seconds, of processor time: a busy machine must not fail the test."""
    images, attack = np.zeros((5000, 32, 32, 3), np.uint8), built(name)
    attack.stamp(images[:1], np.random.default_rng(0))
    start = process_time()
    attack.stamp(images, np.random.default_rng(0))
    assert process_time() - start < 0.5


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_docs_show_the_trigger(name: str) -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "attacks.md").read_text(encoding="utf-8")
    assert f"(triggers/{name}.png)" in page
    assert (docs / "triggers" / f"{name}.png").exists()


def test_an_attack_without_a_trained_part_needs_no_fitting() -> None:
    attack = built("badnets")
    assert fitted(attack, draw(), seed=0) is attack
