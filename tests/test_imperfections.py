import numpy as np
import pytest

from foretaste.errors import UsageError
from foretaste.imperfections import COPIES, NOISE, Imperfections
from foretaste.samples import Samples


def draw(n: int = 1000, classes: int = 5) -> Samples:
    images = np.random.default_rng(5).integers(20, 236, (n, 8, 8, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % classes)


def features(n: int = 1000) -> Samples:
    rows = np.random.default_rng(6).normal(0, 3, (n, 7)).astype(np.float32)
    return Samples.from_arrays(rows, np.arange(n) % 5)


def test_by_default_nothing_is_changed() -> None:
    clean = draw()
    result = Imperfections().apply(clean, seed=0)
    assert result.samples is clean
    assert not result.mislabelled.any()


def test_a_long_tail_falls_exponentially_from_the_first_class_to_the_last() -> None:
    result = Imperfections(imbalance=16).apply(draw(), seed=0)
    assert np.bincount(result.samples.labels).tolist() == [200, 100, 50, 25, 12]
    # What is left is as it was, in its order.
    rows = result.samples.ids.astype(int)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(result.samples.inputs, draw().inputs[rows])


def test_the_last_class_keeps_a_sample_at_least() -> None:
    assert np.bincount(Imperfections(imbalance=1e6).apply(draw(), seed=0).samples.labels).min() == 1


def test_label_noise_mislabels_exactly_the_share_and_evenly() -> None:
    clean = draw(5000)
    result = Imperfections(label_noise=0.4).apply(clean, seed=3)
    assert result.mislabelled.sum() == 2000
    np.testing.assert_array_equal(result.mislabelled, result.samples.labels != clean.labels)
    np.testing.assert_array_equal(result.original_labels, clean.labels)
    # Each of the four wrong labels is as likely: 500 ± 5 standard deviations.
    moved = np.bincount((result.samples.labels - clean.labels)[result.mislabelled] % 5, minlength=5)
    assert (np.abs(moved[1:] - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_a_class_in_a_class_moves_samples_of_the_second_largest_to_the_largest() -> None:
    clean = draw()[np.arange(10, 1000)]
    clean = Samples.concat(clean, draw()[np.flatnonzero(draw().labels == 3)[:2]])
    result = Imperfections(class_in_class=0.05).apply(clean, seed=0)
    moved = result.samples.labels != clean.labels
    assert moved.sum() == round(0.05 * len(clean))
    assert set(result.samples.labels[moved]) == {3}
    assert set(clean.labels[moved]) == {0}
    # They are samples of an honest owner: nothing is mislabelled by chance.
    assert not result.mislabelled.any()
    with pytest.raises(UsageError, match=r"class_in_class 0\.5 takes 500 samples of the class 1, which has 200"):
        Imperfections(class_in_class=0.5).apply(draw(), seed=0)


def test_near_duplicates_are_close_to_a_sample_of_their_class() -> None:
    clean = draw()
    result = Imperfections(near_duplicates=0.1).apply(clean, seed=0)
    changed = (result.samples.inputs != clean.inputs).any(axis=(1, 2, 3))
    assert changed.sum() == 100
    np.testing.assert_array_equal(result.samples.labels, clean.labels)
    originals = set()
    for row in np.flatnonzero(changed):
        same = np.flatnonzero(~changed & (clean.labels == clean.labels[row]))
        apart = (result.samples.inputs[same].astype(float) - result.samples.inputs[row]).std(axis=(1, 2, 3))
        assert apart.min() == pytest.approx(NOISE, rel=0.35)  # the standard deviation of 192 draws, and rounding
        originals.add(int(same[apart.argmin()]))
    assert len(originals) == 100 // COPIES


def test_features_have_near_duplicates_too() -> None:
    clean = features()
    result = Imperfections(near_duplicates=0.04).apply(clean, seed=0)
    assert (result.samples.inputs != clean.inputs).any(axis=1).sum() == 40
    assert result.samples.inputs.dtype == np.float32


def test_the_same_seed_gives_the_same_bytes_and_one_imperfection_does_not_move_another() -> None:
    every = Imperfections(imbalance=2, class_in_class=0.02, near_duplicates=0.05, label_noise=0.1)
    first, again, other = (every.apply(draw(), seed).samples for seed in (1, 1, 2))
    assert first.inputs.tobytes() == again.inputs.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.ids.tolist() != other.ids.tolist()
    alone = Imperfections(imbalance=2).apply(draw(), 1).samples
    np.testing.assert_array_equal(alone.ids, first.ids)


@pytest.mark.parametrize(
    "fields",
    [{"imbalance": 0.5}, {"imbalance": float("inf")}, {"label_noise": 1.0}, {"near_duplicates": -0.1}],
)
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Imperfections(**fields)


def test_more_copies_than_the_classes_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="near_duplicates"):
        Imperfections(near_duplicates=0.9).apply(draw(60), seed=0)
