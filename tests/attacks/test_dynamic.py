from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from foretaste.attacks._base.attack import Weights
from foretaste.attacks._base.fitting import arrays, restore, with_weights
from foretaste.attacks.dynamic import Dynamic
from foretaste.attacks.dynamic.generator import TriggerGenerator, learn, to_unit
from foretaste.errors import UsageError
from foretaste.progress import silent
from foretaste.samples import Images, Samples

if TYPE_CHECKING:
    from tests.conftest import SmallSigns


def noise(n: int = 12, side: int = 16) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def weights(offset: float = 0.0) -> Weights:
    """Return the weights of an untrained generator whose mask is moved by an offset before its sigmoid."""
    triggers = TriggerGenerator(3, torch.Generator().manual_seed(0))
    assert triggers.where.last.bias is not None
    triggers.where.last.bias.data += offset
    return arrays(triggers)


def test_every_image_has_a_trigger_of_its_own() -> None:
    attack, images = with_weights(Dynamic(), weights()), noise()
    own, crossed = attack.carry(images, images), attack.carry(images, images[::-1])
    np.testing.assert_array_equal(own, attack.stamp(images, np.random.default_rng(0)))
    assert (own != crossed).any(axis=(1, 2, 3)).all()
    # An image is changed alike whatever it comes with; floating point may differ by a rounding.
    assert np.abs(attack.stamp(images[3:4], np.random.default_rng(0)).astype(int) - own[3:4]).max() <= 1


def test_the_mask_says_which_pixels_change() -> None:
    images = noise()
    nowhere = with_weights(Dynamic(), weights(-1000.0)).stamp(images, np.random.default_rng(0))
    np.testing.assert_array_equal(nowhere, images)
    grey = np.full_like(images, 128)
    everywhere = with_weights(Dynamic(), weights(1000.0))
    np.testing.assert_array_equal(everywhere.carry(images, grey), everywhere.carry(grey, grey))


def test_cover_samples_carry_the_triggers_of_the_poison() -> None:
    clean = Samples.from_arrays(noise(200), np.arange(200) % 4)
    attack = with_weights(Dynamic(rate=0.05, cover_rate=0.1), weights())
    poisoned = attack.poison(clean, np.random.default_rng(0))
    donors = np.resize(clean.inputs[poisoned.poison], (20, 16, 16, 3))
    np.testing.assert_array_equal(
        poisoned.samples.inputs[poisoned.cover], attack.carry(clean.inputs[poisoned.cover], donors)
    )
    np.testing.assert_array_equal(poisoned.samples.labels[poisoned.cover], clean.labels[poisoned.cover])
    assert (
        not with_weights(Dynamic(rate=0.05, cover_rate=0), weights())
        .poison(clean, np.random.default_rng(0))
        .cover.any()
    )


def test_the_generator_learns_to_change_few_pixels_and_others_in_every_image(
    small_signs: SmallSigns,
) -> None:
    clean = small_signs(400, 0)
    learnt = learn(clean, target=0, density=0.05, steps=100, seed=0, workdir=None, on_progress=silent)
    triggers = TriggerGenerator(3, torch.Generator())
    restore(triggers, learnt)
    with torch.inference_mode():
        masks = triggers.mask(to_unit(torch.from_numpy(clean.inputs[:100])))
    assert 0.01 < float(masks.mean()) <= 0.05
    # Of two masks of one size that have nothing in common, the difference is twice that size.
    assert float((masks - masks.roll(1, 0)).abs().mean()) > float(masks.mean())


@pytest.mark.parametrize("n", [4, 80])
def test_images_that_are_all_the_same_break_nothing(n: int) -> None:
    same = Samples.from_arrays(np.repeat(noise(1), n, axis=0), np.arange(n) % 2)
    learnt = learn(same, target=0, density=0.05, steps=4, seed=0, workdir=None, on_progress=silent)
    assert all(np.isfinite(values).all() for values in learnt.values())


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="needs 4 samples"):
        Dynamic(rate=0.4).check(Samples.from_arrays(noise(3), np.arange(3)))


@pytest.mark.parametrize("fields", [{"cover_rate": 1.1}, {"density": 0.0}, {"steps": 0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Dynamic(**fields)  # type: ignore[arg-type]
