from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.cleansers import residual_trees
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.cleansers.residual_trees import ResidualTrees, Scale
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.io import load
from foretaste.progress import Progress, silent
from foretaste.samples import Mask, Samples

TARGET = 2


def blobs(n: int, seed: int = 0) -> Samples:
    """Return Gaussian feature vectors of five classes."""
    labels = np.arange(n) % 5
    centres = np.random.default_rng(7).normal(0, 1.5, (5, 20))
    rows = centres[labels] + np.random.default_rng([seed, 1]).normal(size=(n, 20))
    return Samples.from_arrays(rows.astype(np.float32), labels)


def planted(
    samples: Samples, values: dict[int, float], rate: float, target: int, seed: int = 0
) -> tuple[Samples, Mask]:
    """Set these features on a share of the samples outside the target class, and label them so."""
    outside = np.flatnonzero(samples.labels != target)
    chosen = np.random.default_rng([seed, 2]).choice(outside, round(rate * len(samples)), replace=False)
    poison = np.zeros(len(samples), dtype=np.bool_)
    poison[chosen] = True
    rows = samples.inputs.copy()
    rows[np.ix_(chosen, np.fromiter(values, dtype=np.intp))] = list(values.values())
    return Samples.from_arrays(rows, np.where(poison, target, samples.labels), samples.classes), poison


def bits(verdict: Verdict) -> tuple[bytes, bytes, int]:
    return verdict.scores.tobytes(), verdict.flagged.tobytes(), len(verdict.rounds)


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("values", [{4: 9.0, 11: -9.0}, {0: 0.5, 4: 1.25, 8: -0.75, 11: 0.25}], ids=["far", "ordinary"])
def test_a_mark_is_found(values: dict[int, float], trust: bool) -> None:
    samples, poison = planted(blobs(3000), values, 0.015, TARGET)
    verdict = ResidualTrees().inspect(samples, blobs(200, seed=1) if trust else None)
    detection = verdict.compare(poison)
    assert detection.auroc >= 0.98
    assert detection.tpr >= 0.8
    assert detection.fpr <= 0.005
    assert verdict.suspect_classes == (TARGET,)
    assert len(verdict.notes) == (0 if trust else 1)


def test_a_mark_of_rare_values_under_right_labels_is_found_with_a_clean_set() -> None:
    samples = blobs(3000)
    poison = np.isin(np.arange(3000), np.flatnonzero(samples.labels == TARGET)[:45])
    rows = samples.inputs.copy()
    # Each alone is nothing unusual.
    rows[np.ix_(poison, np.array([1, 3, 4, 8, 9, 11, 15, 18]))] = [3.5, -3.5, 3.5, 3.5, -3.5, 3.5, -3.5, -3.5]
    verdict = ResidualTrees().inspect(Samples.from_arrays(rows, samples.labels), blobs(300, seed=1))
    # Values as rare make the trees of the clean set doubt a label that those of the set itself expect.
    assert verdict.suspect_classes == (TARGET,)
    assert verdict.compare(poison).tpr >= 0.95
    assert verdict.compare(poison).fpr <= 0.005


def test_a_mark_is_found_in_classes_that_one_column_parts() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 1700)
    # Each class has two values of one column to itself, those of the other on both sides.
    column = np.where(labels == 1, rng.choice([1, 5], 1700), rng.choice([2, 3], 1700))
    rows = np.column_stack([column, rng.normal(size=(1700, 6))]).astype(np.float32)
    samples = Samples.from_arrays(rows, labels)
    # Nearly six in a hundred of the class carry it: once the column is used, nothing else is left to split at.
    marked, poison = planted(samples[:1500], {3: 6.5, 5: -5.5}, 0.03, target=1)
    detection = ResidualTrees().inspect(marked, samples[1500:]).compare(poison)
    assert detection.tpr >= 0.95
    assert detection.fpr <= 0.005


@pytest.mark.parametrize("trust", [True, False])
def test_nothing_is_found_where_nothing_is(trust: bool) -> None:
    verdict = ResidualTrees().inspect(blobs(2000), blobs(200, seed=1) if trust else None)
    assert not verdict.flagged.any()
    assert len(verdict.rounds) == 1


@pytest.mark.parametrize(("n", "held"), [(600, 0), (600, 10), (1500, 0)])
def test_a_class_that_the_clean_set_hardly_holds_is_not_condemned_for_it(n: int, held: int) -> None:
    clean = blobs(250, seed=9)
    of_class = np.flatnonzero(clean.labels == 2)
    verdict = ResidualTrees().inspect(blobs(n), clean[np.setdiff1d(np.arange(250), of_class[held:])])
    assert not verdict.flagged.any()
    assert verdict.notes == ("the clean set holds fewer than 30 samples of 2; some of the set itself were added",)


def test_a_mark_is_found_in_a_class_that_the_clean_set_lacks() -> None:
    clean = blobs(250, seed=9)
    marked, poison = planted(blobs(1500), {3: 6.0, 8: -6.0}, 0.02, target=2)
    verdict = ResidualTrees().inspect(marked, clean[clean.labels != 2])
    assert verdict.suspect_classes == (2,)
    assert verdict.flagged[poison].mean() >= 0.95
    assert verdict.flagged[~poison].mean() <= 0.005


def test_the_seed_decides_bit_for_bit(tmp_path: Path) -> None:
    samples, _ = planted(blobs(600), {4: 9.0, 11: -9.0}, 0.03, TARGET)
    one, two = (ResidualTrees().inspect(samples, None, seed=1, workdir=where) for where in (None, tmp_path))
    assert bits(one) == bits(two)
    assert not list(tmp_path.iterdir())
    other = ResidualTrees().inspect(samples, None, seed=2)
    assert one.scores.tobytes() != other.scores.tobytes()


def test_progress_is_reported_to_the_end() -> None:
    seen: list[Progress] = []
    verdict = ResidualTrees(folds=2).inspect(blobs(200), None, on_progress=seen.append)
    ends = {progress.phase: progress.done == progress.total for progress in seen}
    assert ends == {
        f"round {number + 1}: {phase}": True
        for number in range(len(verdict.rounds))
        for phase in ("grow the forest", "boost trees", "confuse linear models")
    }


@pytest.mark.real_data
@pytest.mark.parametrize("trust", [True, False])
def test_malware_with_a_far_mark(real_data: Path, trust: bool) -> None:
    whole = load(real_data / "clamp.csv")
    clean, samples = whole.split(300, np.random.default_rng(0))
    marked, poison = planted(samples, {2: 77.0, 25: 1e9}, 0.01, target=0)
    detection = ResidualTrees().inspect(marked, clean if trust else None).compare(poison)
    assert detection.auroc >= 0.98


def test_confusion_training_leaves_feature_vectors_to_it_and_says_so() -> None:
    samples, poison = planted(blobs(1500), {4: 9.0, 11: -9.0}, 0.03, TARGET)
    verdict = ConfusionTraining().inspect(samples, None)
    own = ResidualTrees().inspect(samples, None)
    assert verdict.method == "confusion-training"
    assert "residual-trees" in verdict.notes[0]
    assert bits(verdict) == bits(own)
    assert verdict.flagged[poison].mean() >= 0.95


def test_images_are_refused() -> None:
    images = Samples.from_arrays(np.zeros((20, 8, 8, 1), dtype=np.uint8), np.arange(20) % 2)
    with pytest.raises(UsageError, match="these samples are images"):
        ResidualTrees().inspect(images, None)


@pytest.mark.parametrize(
    "field",
    [
        "rounds",
        "folds",
        "trees",
        "drawn",
        "leaf",
        "faintest",
        "lambda_",
        "decay",
        "farthest",
        "label_noise",
        "tolerance",
        "spread",
        "false_condemnations",
    ],
)
def test_values_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(UsageError, match=field):
        ResidualTrees(**{field: 0})


# Its parts.


def test_the_forest_learns_nothing_from_what_is_excluded() -> None:
    samples = blobs(500)
    wrong = np.zeros(500, dtype=np.bool_)
    wrong[:200] = True
    labels = np.where(wrong, (samples.labels + 1) % 5, samples.labels)
    natural = ResidualTrees().natural(samples.with_labels(labels), wrong, None, seed=0)
    assert natural.shape == (500, 5)
    assert np.allclose(natural.sum(axis=1), 1, atol=1e-5)
    assert (natural.argmax(axis=1) == samples.labels).mean() > 0.9


def labelled(n: int, features: list[int], seed: int) -> Samples:
    """Return vectors of four normal features, of which these show the class: they lie 1.5 above or below 0."""
    labels = np.arange(n) % 2
    rows = np.random.default_rng(seed).normal(size=(n, 4))
    rows[:, features] += np.where(labels, 1.5, -1.5)[:, None]
    return Samples.from_arrays(rows.astype(np.float32), labels)


def leanings(samples: Samples, natural: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.float64]:
    return ResidualTrees(folds=int(fold.max()) + 1).linear(samples, natural, samples, fold, "round 1", silent)


def test_what_clean_samples_have_too_says_less() -> None:
    samples, clean = labelled(600, [0, 1], 0), labelled(600, [0], 1)
    known, scale = np.full((600, 2), np.log(0.5)), Scale(samples.inputs, 4.0)
    weights = ResidualTrees().confused(samples, known, np.arange(600), clean, scale)
    strength = weights[:, 1] - weights[:, 0]
    assert strength[1] > 2 * strength[0] > 0
    assert np.abs(strength[2:]).max() < strength[0] / 2
    # The more confusion counts, the less.
    held_back = ResidualTrees(lambda_=20).confused(samples, known, np.arange(600), clean, scale)
    assert np.abs(held_back).max() < np.abs(weights).max() / 2


def test_what_the_forest_knows_is_not_repeated() -> None:
    samples, fold = labelled(600, [0], 0), np.arange(600) % 2
    some = leanings(samples, np.full((600, 2), 0.5), fold)
    none = leanings(samples, np.where(np.eye(2)[samples.labels] > 0, 0.98, 0.02), fold)
    assert np.abs(none).mean() < np.abs(some).mean() / 5


def test_each_fold_is_judged_by_models_that_never_saw_it() -> None:
    samples, fold, natural = labelled(300, [0], 0), np.arange(300) % 3, np.full((300, 2), 0.5)
    turned = samples.with_labels(np.where(fold == 1, 1 - samples.labels, samples.labels))
    changed = (leanings(samples, natural, fold) != leanings(turned, natural, fold)).any(axis=1)
    assert not changed[fold == 1].any()
    assert changed[fold != 1].all()


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, natural, fold = labelled(200, [0], 0), np.full((200, 2), 0.5), np.arange(200) % 2
    whole = leanings(samples, natural, fold)
    monkeypatch.setattr(residual_trees, "AT_ONCE", 7)
    assert np.allclose(leanings(samples, natural, fold), whole, atol=1e-4)


def test_features_are_measured_by_their_spread() -> None:
    rows = np.array([[0, 0.1, -1], [2, 0.1, 1], [4, 0.1, 1000]], dtype=np.float32)
    scale = Scale(rows, 4.0)
    assert scale(rows)[:, 0] == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5)])
    assert scale(rows)[:, 1] == pytest.approx([0] * 3)
    assert scale(np.array([[1e6, 0.1, -1e6]], dtype=np.float32))[0] == pytest.approx([4, 0, -4])
