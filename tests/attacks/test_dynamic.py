import numpy as np
import pytest
import torch

from foretaste.attacks.attack import Weights
from foretaste.attacks.dynamic import Dynamic
from foretaste.attacks.dynamic_generator import TriggerGenerator
from foretaste.attacks.fitting import arrays, with_weights
from foretaste.errors import UsageError
from foretaste.samples import Images, Samples


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


@pytest.mark.parametrize("fields", [{"cover_rate": 1.1}, {"density": 0.0}, {"steps": 0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Dynamic(**fields)  # type: ignore[arg-type]
