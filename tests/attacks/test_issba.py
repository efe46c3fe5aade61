import numpy as np
import pytest
import torch

from foretaste.attacks.fitting import arrays, with_weights
from foretaste.attacks.issba import ISSBA
from foretaste.attacks.issba_encoder import MESSAGE, Encoder
from foretaste.errors import UsageError
from foretaste.samples import Images


def noise(n: int = 12) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


def attack(message: list[int], strength: float = 12) -> ISSBA:
    """Return the attack with an untrained encoder."""
    encoder = Encoder(3, len(message), strength, torch.Generator().manual_seed(0))
    complete = with_weights(
        ISSBA(bits=len(message), strength=strength), {**arrays(encoder), MESSAGE: np.array(message, np.uint8)}
    )
    assert isinstance(complete, ISSBA)
    return complete


@pytest.mark.parametrize("strength", [3, 12])
def test_the_change_keeps_its_bound_and_so_its_signal_to_noise_ratio(strength: float) -> None:
    images = noise()
    change = attack([0, 1, 1, 0], strength).stamp(images, np.random.default_rng(0)).astype(float) - images
    assert 0 < np.abs(change).max() <= strength
    ratio = 10 * np.log10(255**2 / (change**2).mean(axis=(1, 2, 3)))
    assert (ratio >= 20 * np.log10(255 / strength)).all()


def test_the_change_depends_on_the_image_and_on_the_message() -> None:
    images = noise()
    one, other = (attack(message).stamp(images, np.random.default_rng(0)) for message in ([0, 1, 1, 0], [1, 1, 0, 0]))
    assert (one != other).any(axis=(1, 2, 3)).all()
    change = one.astype(int) - images
    assert (change[0] != change[1]).any()


@pytest.mark.parametrize("fields", [{"bits": 0}, {"strength": 0.0}, {"steps": 0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        ISSBA(**fields)  # type: ignore[arg-type]
