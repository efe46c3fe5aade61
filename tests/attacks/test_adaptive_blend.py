from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foretaste.attacks.adaptive_blend import AdaptiveBlend
from foretaste.attacks.blend import Blend
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images

PLAIN = np.full((40, 32, 32, 3), 128, np.uint8)


def changed_blocks(images: Images) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which of the 4 x 4 blocks of 8 x 8 pixels differ from the plain image: ``bool (N, 4, 4)``."""
    changed = (images != 128).any(axis=3).reshape(len(images), 4, 8, 4, 8)
    return np.asarray(changed.any(axis=(2, 4)))


def test_each_training_sample_shows_half_of_the_sixteen_pieces() -> None:
    shown = changed_blocks(AdaptiveBlend().plant(PLAIN, np.random.default_rng(0)))
    assert (shown.sum(axis=(1, 2)) == 8).all()
    assert len({block.tobytes() for block in shown}) > 30
    # 40 samples, each shows a piece with probability 1/2: mean 20, standard deviation 3.2.
    assert np.abs(shown.sum(axis=0) - 20).max() < 4.5 * 3.2


def test_shown_pieces_are_blended_at_the_training_opacity_and_others_are_not_touched() -> None:
    attack = AdaptiveBlend(alpha=0.3)
    planted = attack.plant(PLAIN, np.random.default_rng(0))
    whole = Blend(alpha=0.3).stamp(PLAIN, np.random.default_rng(0))
    shown = np.kron(changed_blocks(planted), np.ones((8, 8), dtype=bool))
    np.testing.assert_array_equal(planted[shown], whole[shown])
    assert (planted[~shown] == 128).all()


def test_the_test_trigger_is_the_whole_picture_at_its_own_opacity() -> None:
    attack = AdaptiveBlend(test_alpha=0.4, picture_seed=3)
    expected = Blend(alpha=0.4, picture_seed=3).stamp(PLAIN, np.random.default_rng(0))
    np.testing.assert_array_equal(attack.stamp(PLAIN, np.random.default_rng(0)), expected)


def test_without_masking_training_shows_the_whole_picture() -> None:
    attack = AdaptiveBlend(masked=0.0, alpha=0.2)
    np.testing.assert_array_equal(
        attack.plant(PLAIN, np.random.default_rng(0)), attack.stamp(PLAIN, np.random.default_rng(1))
    )


def test_a_picture_file_is_used_in_training_and_at_test(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (228, 128, 28)).save(tmp_path / "plain.png")
    attack = AdaptiveBlend(picture=tmp_path / "plain.png", alpha=0.1, test_alpha=0.2)
    assert set(np.unique(attack.plant(PLAIN, np.random.default_rng(0)))) == {118, 128, 138}
    assert set(np.unique(attack.stamp(PLAIN, np.random.default_rng(0)))) == {108, 128, 148}
    with pytest.raises(ForetasteError, match="missing"):
        AdaptiveBlend(picture=tmp_path / "missing.png").stamp(PLAIN, np.random.default_rng(0))


def test_more_pieces_than_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match="pieces"):
        AdaptiveBlend(pieces=33).plant(PLAIN, np.random.default_rng(0))


@pytest.mark.parametrize(
    "fields", [{"alpha": 0.0}, {"test_alpha": 1.1}, {"pieces": 0}, {"masked": 1.1}, {"picture_seed": -1}]
)
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        AdaptiveBlend(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pieces", "masked"), [(1, 0.6), (4, 0.99), (4, 1.0)])
def test_poison_without_a_piece_of_the_trigger_is_refused(pieces: int, masked: float) -> None:
    with pytest.raises(UsageError, match="leaves none of"):
        AdaptiveBlend(pieces=pieces, masked=masked)
