from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from foretaste.attacks._base.fitting import arrays, with_weights
from foretaste.attacks.issba import ISSBA
from foretaste.attacks.issba.encoder import FREE_CHANGE, FREE_LIKENESS, MESSAGE, Encoder, hide, learn
from foretaste.errors import UsageError
from foretaste.progress import Progress
from foretaste.samples import Images

if TYPE_CHECKING:
    from tests.conftest import SmallSigns


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


def test_the_encoder_learns_to_write_what_can_be_read_and_is_hardly_seen_in_each_image_in_another_way(
    small_signs: SmallSigns,
) -> None:
    losses: list[float] = []

    def listen(progress: Progress) -> None:
        if progress.note:
            losses.append(float(progress.note.split()[1]))

    clean = small_signs(400, 0)
    learnt = learn(clean, bits=4, strength=12, steps=200, seed=0, workdir=None, on_progress=listen)
    # Who guesses the bits has a loss of log 2, and what exceeds the bounds below comes to that.
    assert losses[-1] < 0.2
    change = (hide(learnt, clean.inputs[:50], 12).astype(float) - clean.inputs[:50]).reshape(50, -1)
    used = np.square(change / 12).mean(axis=1)
    assert (used > 0).all()
    assert used.max() < FREE_CHANGE
    likeness = cosine_similarity(change)[np.triu_indices(50, 1)]
    assert likeness.mean() < FREE_LIKENESS


@pytest.mark.parametrize("fields", [{"bits": 0}, {"strength": 1.0}, {"steps": 0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        ISSBA(**fields)  # type: ignore[arg-type]
