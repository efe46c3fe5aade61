from typing import Any

import numpy as np
import pytest

from foretaste.attacks.adaptive_patch import MARKS, AdaptivePatch, Mark, deal, draw
from foretaste.attacks.trojan import Trojan
from foretaste.errors import UsageError

PLAIN = np.full((40, 32, 32, 3), 128, np.uint8)


def test_each_training_sample_carries_one_mark_at_its_opacity_and_all_marks_are_dealt_evenly() -> None:
    attack = AdaptivePatch()
    planted = attack.plant(PLAIN, np.random.default_rng(0))
    expected = []
    for mark, opacity in zip(MARKS, attack.opacities, strict=True):
        picture, mask = draw(mark, 32, 32, 3)
        expected.append(np.rint(128 + opacity * mask * (picture.astype(float) - 128)))
    matches = np.array([(np.abs(planted - wanted) < 1.01).all(axis=(1, 2, 3)) for wanted in expected])
    assert (matches.sum(axis=0) == 1).all()
    assert (matches.sum(axis=1) == 10).all()


@pytest.mark.parametrize("tested", [("disc", "square"), ("gem", "corners"), ("square",)])
def test_test_inputs_carry_the_tested_marks_opaque_and_nothing_else(tested: tuple[Mark, ...]) -> None:
    stamped = AdaptivePatch(tested=tested).stamp(PLAIN, np.random.default_rng(0))
    rest = np.ones((32, 32), dtype=bool)
    for mark in tested:
        rest &= draw(mark, 32, 32, 3)[1][..., 0] == 0
    for mark in tested[-1:]:  # painted last, so nothing lies over it
        picture, mask = draw(mark, 32, 32, 3)
        inside = mask[..., 0] > 0
        assert (stamped[:, inside] == picture[inside]).all()
    assert (stamped[:, rest] == 128).all()


@pytest.mark.parametrize(("mark", "pixels"), [("gem", 25), ("corners", 36), ("square", 64)])
def test_marks_have_their_sizes(mark: Mark, pixels: int) -> None:
    assert draw(mark, 32, 32, 3)[1].sum() == pixels


def test_the_square_is_the_trojan_one() -> None:
    stamped = AdaptivePatch(tested=("square",)).stamp(PLAIN, np.random.default_rng(0))
    np.testing.assert_array_equal(stamped, Trojan().stamp(PLAIN, np.random.default_rng(0)))


def test_the_disc_is_round_and_lies_top_right() -> None:
    mask = draw("disc", 32, 32, 3)[1][..., 0] > 0
    rows, columns = np.nonzero(mask)
    assert (rows.max(), columns.min()) == (13, 18)
    assert mask.sum() == pytest.approx(np.pi * 6.5**2, rel=0.1)


@pytest.mark.parametrize(("n", "counts"), [(8, [2, 2, 2, 2]), (10, [2, 2, 3, 3]), (2, [0, 0, 1, 1])])
def test_dealing_is_even_up_to_one(n: int, counts: list[int]) -> None:
    dealt = deal(n, 4, np.random.default_rng(0))
    assert sorted(np.bincount(dealt, minlength=4).tolist()) == counts


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"opacities": (0.5, 0.2, 0.5, 0.0)}, "opacities must be in"),
        ({"opacities": (0.5, 0.2)}, "hold 4 numbers"),
        ({"tested": ()}, "at least one"),
        ({"tested": ("star",)}, "tested must be gem or disc"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        AdaptivePatch(**fields)
