import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.attacks import Blend, Trojan, stamp_inputs
from foretaste.cleansers.looks import MOST, Looks
from foretaste.io.signs import draw_signs
from foretaste.samples import Mask, Samples


@pytest.fixture(scope="module")
def signs() -> Samples:
    return draw_signs(400, seed=4)


def frames(signs: Samples, n_things: int, n_frames: int) -> Samples:
    """Return some of the signs, each in so many frames, which are shifted by a pixel or less and differ in exposure."""
    rng = np.random.default_rng(0)
    images = np.repeat(signs.inputs[:n_things], n_frames, axis=0).astype(np.float32)
    images = np.stack([np.roll(image, rng.integers(-1, 2, 2), axis=(0, 1)) for image in images])
    images *= rng.uniform(0.9, 1.1, (len(images), 1, 1, 1))
    labels = np.repeat(signs.labels[:n_things], n_frames)
    return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels, signs.classes)


def test_frames_of_one_thing_count_once(signs: Samples) -> None:
    both = Samples.concat(signs[20:], frames(signs, 6, 15))
    duplicates = Looks(both)
    rows = np.arange(len(both) - 90, len(both))
    scores = np.random.default_rng(1).uniform(1, 3, 90).astype(np.float32)
    expected = scores.reshape(6, 15).max(axis=1)
    assert sorted(duplicates.highest(rows, scores)) == sorted(expected)


def test_what_is_alike_does_not_depend_on_the_order(signs: Samples) -> None:
    ordered = frames(signs, 40, 10)
    shuffled = ordered[np.random.default_rng(3).permutation(len(ordered))]
    assert Looks(ordered).nearest == pytest.approx(Looks(shuffled).nearest, rel=0.15)


@pytest.mark.parametrize("attack", [Blend(target=0), Trojan(target=0)])
def test_a_trigger_makes_no_near_duplicates(signs: Samples, attack: Blend | Trojan) -> None:
    stamped, trojaned = stamp_inputs(signs, attack, 1.0, 0)
    rows = np.flatnonzero(trojaned)
    scores = np.ones(len(rows), dtype=np.float32)
    before, after = (len(Looks(each).highest(rows, scores)) for each in (signs, stamped))
    assert before > 0.5 * len(rows)
    assert after >= 0.9 * before


def test_of_very_many_some_are_compared() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * MOST + 1, 8, 8, 1)).astype(np.uint8)
    many = Samples.from_arrays(images, np.zeros(len(images), dtype=np.int64), ["one"])
    scores = np.ones(len(many), dtype=np.float32)
    assert 0.3 * MOST < len(Looks(many).highest(np.arange(len(many)), scores)) <= MOST


def gathered(samples: Samples, chosen: Mask) -> Mask:
    """Return which of the chosen samples, of one class, look like what was chosen."""
    found = np.zeros_like(chosen)
    rows = np.flatnonzero(chosen)
    found[rows] = Looks(samples).gathered(rows, chosen)
    return found


def of_one_class(samples: Samples) -> Samples:
    return Samples.from_arrays(samples.inputs, np.zeros(len(samples), dtype=np.int64), ["one", "other"])


def test_all_frames_of_some_things_are_gathered(signs: Samples) -> None:
    filmed = of_one_class(frames(signs, 40, 15))
    chosen = np.arange(len(filmed)) < 10 * 15
    np.testing.assert_array_equal(gathered(filmed, chosen), chosen)


def test_some_frames_of_all_things_are_not_gathered(signs: Samples) -> None:
    filmed = of_one_class(frames(signs, 40, 15))
    chosen = np.random.default_rng(5).random(len(filmed)) < 0.3
    # Seven of ten neighbours must be chosen, which happens to one in a hundred; this leaves five standard deviations.
    assert gathered(filmed, chosen).sum() <= 8


def test_gathering_is_a_matter_of_the_class(signs: Samples) -> None:
    filmed = frames(signs, 20, 30)
    # Every second frame has the other label, and of these all are chosen.
    labels = np.arange(len(filmed)) % 2
    both = Samples.from_arrays(filmed.inputs, labels, ["one", "other"])
    one = np.flatnonzero((labels == 0) & (np.arange(len(filmed)) < 5 * 30))
    chosen = (labels == 1) | np.isin(np.arange(len(filmed)), one)
    duplicates = Looks(both)
    assert duplicates.gathered(one, chosen).all()
    # Where all are chosen, it says nothing that a sample's nearest are.
    assert not duplicates.gathered(np.flatnonzero(labels), chosen).any()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_sets(n: int) -> None:
    images = np.zeros((n, 16, 16, 3), dtype=np.uint8)
    few = Samples.from_arrays(images, np.zeros(n, dtype=np.int64), ["one"])
    duplicates = Looks(few)
    assert len(duplicates.highest(np.arange(n), np.ones(n, dtype=np.float32))) == 1
    assert len(duplicates.highest(np.arange(0), np.ones(0, dtype=np.float32))) == 0
    assert not duplicates.gathered(np.arange(n), np.ones(n, dtype=np.bool_)).any()


def counting(rows: NDArray[np.intp], doubted: bool = False, forgotten: NDArray[np.intp] | None = None) -> int:
    """Return how many pieces of evidence some suspects are, of a class of forty pictures in twelve frames each.

    Args:
        rows: the suspects; image i shows picture i // 12.
        doubted: whether nature doubts their labels, though it has seen them.
        forgotten: samples that were left out, though not flagged.
    """
    rng = np.random.default_rng(0)
    pictures = np.repeat(rng.integers(20, 236, (40, 16, 16, 3)), 12, axis=0)
    images = (pictures + rng.integers(-4, 5, pictures.shape)).astype(np.uint8)
    samples = Samples.from_arrays(images, np.zeros(480, dtype=np.int64), ("a", "b"))
    every = np.arange(480)
    left = np.isin(every, [] if forgotten is None else forgotten)
    scores = np.ones(len(rows), dtype=np.float32)
    return len(Looks(samples).distinct(np.full(480, doubted), left, rows, scores))


def test_suspects_that_look_like_each_other_are_no_evidence() -> None:
    all_of_ten = np.arange(120)
    # Three of twelve frames of each picture.
    some_of_all = np.flatnonzero(np.arange(480) % 12 < 3)
    assert counting(all_of_ten) == 0
    assert counting(some_of_all) == 40
    # What nature doubts though it has seen it is evidence of itself, each picture once,
    assert counting(all_of_ten, doubted=True) == 10
    # but not what it may have forgotten: of ten pictures all frames were left out, of which some are suspects.
    assert counting(some_of_all[:30], doubted=True, forgotten=all_of_ten) == 0
    assert counting(some_of_all[:30], doubted=True, forgotten=some_of_all) == 10
