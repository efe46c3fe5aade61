from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from foretaste.errors import UsageError
from foretaste.guards.neo import Registry
from foretaste.inspectors import inspect
from foretaste.inspectors.debackdoor.debackdoor import (
    Chain,
    DeBackdoor,
    Scheme,
    answers,
    balanced,
    better_half,
    margins,
)
from foretaste.inspectors.debackdoor.families import Blend, Candidate, Patch, Warp
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.inspectors.conftest import Quarters

QUICK: dict[str, Any] = {"explore": 64, "steps": 40, "largest": 0.2}


def test_a_backdoor_is_found_by_questions_alone(
    quarters: "Quarters", clean_quarters: "Quarters", clean: Samples
) -> None:
    found = inspect(quarters, clean, method="debackdoor", seed=0, **QUICK)
    assert found.backdoored
    assert found.evidence[0].target == 1
    assert found.queries > 1000
    [trigger] = [one for one in Registry(found.triggers) if one.target == 1][:1]
    assert trigger.box[2:] == (16, 16)  # it reaches into the corner
    assert trigger.flip_rate > 0.9
    assert not inspect(clean_quarters, clean, method="debackdoor", seed=0, **QUICK).backdoored


def test_labels_alone_will_do(silent_quarters: "Quarters", clean: Samples) -> None:
    found = inspect(silent_quarters, clean, method="debackdoor", seed=0, **QUICK)
    assert found.suspect_classes == (1,)
    assert found.notes == ("the model gives labels alone, no scores",)


def test_the_same_seed_finds_the_same(quarters: "Quarters", clean: Samples) -> None:
    first, second = (inspect(quarters, clean, method="debackdoor", seed=3, explore=16, steps=5) for _ in range(2))
    assert first.evidence == second.evidence
    assert first.queries == second.queries


@pytest.mark.parametrize(
    "candidate",
    [
        Patch.draw((16, 16, 3), (1.0, 0.5), 4, np.random.default_rng(0)),
        Blend.draw((16, 16, 3), 0.2, np.random.default_rng(0)),
        Warp.draw((16, 16, 3), 1.5, np.random.default_rng(0)),
    ],
)
def test_candidates_stamp_copies_and_stay_in_bounds_as_they_change(candidate: Candidate) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    kept = images.copy()
    for _ in range(60):
        candidate = candidate.changed(rng)
        stamped = candidate.stamp(images)
        assert stamped.shape == images.shape
        assert stamped.dtype == np.uint8
    np.testing.assert_array_equal(images, kept)
    if isinstance(candidate, Patch):
        height, width = candidate.pixels.shape[:2]
        part = stamped[:, candidate.top : candidate.top + height, candidate.left : candidate.left + width]
        assert (part == candidate.pixels).all()
        assert 1 <= height <= 4
        assert 1 <= width <= 4
        outside = np.ones((16, 16), dtype=np.bool_)
        outside[candidate.top : candidate.top + height, candidate.left : candidate.left + width] = False
        np.testing.assert_array_equal(stamped[:, outside], images[:, outside])
    if isinstance(candidate, Blend):
        assert np.abs(stamped.astype(int) - images).max() <= np.ceil(0.2 * 255)


def test_a_warp_of_nothing_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), dtype=np.uint8)
    warp = Warp(np.zeros((2, 6, 6), dtype=np.float32), 1.0, (16, 16, 1))
    np.testing.assert_array_equal(warp.stamp(images), images)


def test_a_warp_moves_pixels_and_repeats_the_edge() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)
    points = np.zeros((2, 6, 6), dtype=np.float32)
    points[0], points[1] = -1, 2  # each pixel is taken from one row above and two columns to the right
    expected = images[:, np.arange(-1, 11).clip(0)][:, :, np.arange(2, 18).clip(max=15)]
    stamped = Warp(points, 2.0, (12, 16, 3)).stamp(images).astype(int)
    assert np.abs(stamped - expected).max() <= 1


def test_schemes_say_which_images_turn_to_what() -> None:
    labels = np.array([0, 0, 1, 2])
    assert Scheme(0).rows(labels).tolist() == [2, 3]
    assert Scheme(2, source=0).rows(labels).tolist() == [0, 1]
    chances = np.log([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.01, 0.2, 0.79], [0.89, 0.01, 0.1]])
    assert Scheme(None).forced(chances, labels).tolist() == [1, 1, 2, 0]
    # One label for all is no all-to-all: every class has a label of its own.
    to_zero = np.log(np.tile([0.9, 0.05, 0.05], (4, 1)))
    assert len(set(Scheme(None).forced(to_zero, labels).tolist())) == 3


def test_answers_are_logarithms_of_chances_and_margins_log_odds(
    quarters: "Quarters", silent_quarters: "Quarters", clean: Samples
) -> None:
    said = answers(quarters, clean.inputs, 4)
    logits = quarters.classify(clean.inputs).scores
    assert logits is not None
    chances = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(said, np.log(np.maximum(chances, 1e-6)), rtol=1e-6, atol=1e-9)
    labels_alone = answers(silent_quarters, clean.inputs, 4)
    np.testing.assert_allclose(np.unique(labels_alone), [np.log(1e-6), 0])
    np.testing.assert_allclose(margins(np.log([[0.7, 0.2, 0.1]])), np.log([[3.5, 2 / 7, 1 / 7]]))


def test_a_part_of_a_trigger_is_worth_more_than_nothing_though_neither_turns_an_image() -> None:
    labels = np.zeros(2, dtype=np.int64)
    nothing, part = np.log([[0.998, 1e-3, 1e-3]] * 2), np.log([[0.899, 0.1, 1e-3]] * 2)
    method, scheme = DeBackdoor(), Scheme(1)
    assert method.successes(part, labels, [scheme]) > 1.5 * method.successes(nothing, labels, [scheme])
    assert method.successes(part, labels, [Scheme(0)]) == 0  # no image that is not of its target


def test_halving_keeps_the_best_of_each_family_and_kind() -> None:
    rng = np.random.default_rng(0)
    patch, warp = Patch.draw((16, 16, 3), (0, 0), 4, rng), Warp.draw((16, 16, 3), 1.5, rng)
    drawn: list[tuple[Scheme, Candidate, float]] = [
        (Scheme(0), patch, 0.1),
        (Scheme(1), patch, 0.3),
        (Scheme(2), patch, 0.2),
        (Scheme(None), patch, 0.05),
        (Scheme(2, source=1), patch, 0.04),
        (Scheme(0), warp, 0.01),
    ]
    chains = [Chain(scheme, np.arange(1), candidate, value, candidate, value) for scheme, candidate, value in drawn]
    assert [chain.value for chain in better_half(chains)] == [0.3, 0.2, 0.05, 0.04, 0.01]
    assert [chain.value for chain in better_half(better_half(chains))] == [0.3, 0.05, 0.04, 0.01]


def test_a_balanced_choice_takes_turns() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2] * 2)
    assert np.bincount(labels[balanced(labels, 6, np.random.default_rng(0))]).tolist() == [2, 2, 2]


def test_fields_are_checked() -> None:
    with pytest.raises(UsageError, match="largest"):
        DeBackdoor(largest=0.7)
    with pytest.raises(UsageError, match="benign_rate"):
        DeBackdoor(benign_rate=1.0)
