import numpy as np
import pytest

from foretaste.cleansers._base.near_duplicates import NEAREST, coarse, enriched, nearest
from foretaste.io.signs import draw_signs
from foretaste.samples import Samples


@pytest.fixture(scope="module")
def signs() -> Samples:
    return draw_signs(400, seed=4)


def frames(signs: Samples, n_things: int, n_frames: int) -> Samples:
    """Return some of the signs as one class, each in so many frames that are shifted and differ in exposure."""
    rng = np.random.default_rng(0)
    images = np.repeat(signs.inputs[:n_things], n_frames, axis=0).astype(np.float32)
    images = np.stack([np.roll(image, rng.integers(-1, 2, 2), axis=(0, 1)) for image in images])
    images *= rng.uniform(0.9, 1.1, (len(images), 1, 1, 1))
    labels = np.zeros(len(images), dtype=np.int64)
    return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels, ["one", "other"])


def test_all_frames_of_some_things_are_enriched(signs: Samples) -> None:
    filmed = frames(signs, 40, 15)
    chosen = np.arange(len(filmed)) < 10 * 15
    np.testing.assert_array_equal(enriched(filmed.inputs, filmed.labels, chosen), chosen)


def test_some_frames_of_all_things_are_not(signs: Samples) -> None:
    filmed = frames(signs, 40, 15)
    chosen = np.random.default_rng(5).random(len(filmed)) < 0.3
    # At most one in a hundred of 180; this leaves five standard deviations.
    assert enriched(filmed.inputs, filmed.labels, chosen).sum() <= 8


def test_it_is_a_matter_of_the_class(signs: Samples) -> None:
    filmed = frames(signs, 20, 30)
    # Every fifth frame has the other label, and of these all are chosen.
    labels = (np.arange(len(filmed)) % 5 == 0).astype(np.int64)
    one = (labels == 0) & (np.arange(len(filmed)) < 5 * 30)
    found = enriched(filmed.inputs, labels, one | (labels == 1))
    assert found[one].all()
    # Where all are chosen, it says nothing that a sample's nearest are.
    assert not found[labels == 1].any()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_sets(n: int) -> None:
    images, labels = np.zeros((n, 16, 16, 3), dtype=np.uint8), np.zeros(n, dtype=np.int64)
    assert not enriched(images, labels, np.ones(n, dtype=np.bool_)).any()
    assert not enriched(images, labels, np.zeros(n, dtype=np.bool_)).any()


def test_images_are_compared_at_eight_pixels_a_side() -> None:
    images = np.zeros((3, 16, 16, 1), dtype=np.uint8)
    images[1, :2, :2] = 100
    looks = coarse(images)
    assert looks.shape == (3, 64)
    assert looks[0].tolist() == [0] * 64
    assert looks[1].tolist() == [100] + [0] * 63


def test_neighbours_are_found_piece_by_piece(signs: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, rows = coarse(signs.inputs), np.array([0, 7, 399])
    whole = nearest(looks, rows)
    assert whole.shape == (3, NEAREST)
    assert not (whole == rows[:, None]).any()
    apart = np.linalg.norm(looks[rows].float()[:, None] - looks.float(), axis=2)
    np.testing.assert_array_equal(whole[1], np.argsort(apart[1], kind="stable")[1 : 1 + NEAREST])
    monkeypatch.setattr("foretaste.cleansers._base.near_duplicates.COMPARED", 90)
    np.testing.assert_array_equal(nearest(looks, rows), whole)


def test_poison_from_other_classes_is_not_enriched(signs: Samples) -> None:
    poison = (signs.labels != 0) & (np.random.default_rng(2).random(len(signs)) < 0.1)
    labels = np.where(poison, 0, signs.labels)
    assert enriched(signs.inputs, labels, poison).mean() <= 0.1


def test_a_class_without_samples_is_no_matter(signs: Samples) -> None:
    # Warnings are errors here.
    labels = np.where(np.arange(400) % 2 == 0, 0, 3)
    assert enriched(signs.inputs, labels, np.arange(400) < 20).shape == (400,)
