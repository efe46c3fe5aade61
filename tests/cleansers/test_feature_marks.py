from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.cleansers.feature_marks import gain, natural
from foretaste.cleansers.verdict import Verdict
from foretaste.io import load
from foretaste.progress import Progress
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
    verdict = ConfusionTraining().inspect(samples, blobs(200, seed=1) if trust else None)
    detection = verdict.compare(poison)
    assert detection.auroc >= 0.98
    assert detection.tpr >= 0.8
    assert detection.fpr <= 0.005
    assert verdict.suspect_classes == (TARGET,)
    assert len(verdict.notes) == (0 if trust else 1)


def test_a_mark_of_rare_values_is_found_under_right_labels() -> None:
    samples = blobs(3000)
    poison = np.isin(np.arange(3000), np.flatnonzero(samples.labels == TARGET)[:45])
    rows = samples.inputs.copy()
    # Each alone is nothing unusual.
    rows[np.ix_(poison, np.array([1, 3, 4, 8, 9, 11, 15, 18]))] = [3.5, -3.5, 3.5, 3.5, -3.5, 3.5, -3.5, -3.5]
    verdict = ConfusionTraining().inspect(Samples.from_arrays(rows, samples.labels), blobs(300, seed=1))
    assert verdict.suspect_classes == (TARGET,)
    detection = verdict.compare(poison)
    assert detection.tpr >= 0.95
    assert detection.fpr <= 0.005


@pytest.mark.parametrize("trust", [True, False])
def test_nothing_is_found_where_nothing_is(trust: bool) -> None:
    verdict = ConfusionTraining().inspect(blobs(2000), blobs(200, seed=1) if trust else None)
    assert not verdict.flagged.any()
    assert len(verdict.rounds) == 2


@pytest.mark.parametrize(("n", "held"), [(600, 0), (600, 10), (1500, 0)])
def test_a_class_that_the_clean_set_hardly_holds_is_not_condemned_for_it(n: int, held: int) -> None:
    clean = blobs(250, seed=9)
    of_class = np.flatnonzero(clean.labels == 2)
    verdict = ConfusionTraining().inspect(blobs(n), clean[np.setdiff1d(np.arange(250), of_class[held:])])
    assert not verdict.flagged.any()
    assert verdict.notes == ("the clean set holds fewer than 30 samples of 2; some of the set itself were added",)


def test_a_mark_is_found_in_a_class_that_the_clean_set_lacks() -> None:
    clean = blobs(250, seed=9)
    marked, poison = planted(blobs(1500), {3: 6.0, 8: -6.0}, 0.02, target=2)
    verdict = ConfusionTraining().inspect(marked, clean[clean.labels != 2])
    assert verdict.suspect_classes == (2,)
    assert verdict.flagged[poison].mean() >= 0.95
    assert verdict.flagged[~poison].mean() <= 0.005


def test_the_seed_decides_bit_for_bit(tmp_path: Path) -> None:
    samples, _ = planted(blobs(600), {4: 9.0, 11: -9.0}, 0.03, TARGET)
    one, two = (ConfusionTraining().inspect(samples, None, seed=1, workdir=where) for where in (None, tmp_path))
    assert bits(one) == bits(two)
    assert not list(tmp_path.iterdir())
    other = ConfusionTraining().inspect(samples, None, seed=2)
    assert one.scores.tobytes() != other.scores.tobytes()


def test_progress_is_reported_to_the_end() -> None:
    seen: list[Progress] = []
    verdict = ConfusionTraining(folds=2).inspect(blobs(200), None, on_progress=seen.append)
    ends = {progress.phase: progress.done == progress.total for progress in seen}
    assert ends == {
        f"round {number + 1}: {phase}": True
        for number in range(len(verdict.rounds))
        for phase in ("learn what is natural", "confuse trees", "confuse linear models")
    }


@pytest.mark.real_data
@pytest.mark.parametrize("trust", [True, False])
def test_malware_with_a_far_mark(real_data: Path, trust: bool) -> None:
    whole = load(real_data / "clamp.csv")
    clean, samples = whole.split(300, np.random.default_rng(0))
    marked, poison = planted(samples, {2: 77.0, 25: 1e9}, 0.01, target=0)
    detection = ConfusionTraining().inspect(marked, clean if trust else None).compare(poison)
    assert detection.auroc >= 0.98


# Its parts.


def test_nature_learns_nothing_from_suspects() -> None:
    samples = blobs(500)
    wrong = np.zeros(500, dtype=np.bool_)
    wrong[:200] = True
    labels = np.where(wrong, (samples.labels + 1) % 5, samples.labels)
    nature = natural(samples.with_labels(labels), wrong, None, seed=0)
    assert nature.shape == (500, 5)
    assert np.allclose(nature.sum(axis=1), 1, atol=1e-5)
    assert (nature.argmax(axis=1) == samples.labels).mean() > 0.9


def test_the_gain_is_that_of_the_own_label() -> None:
    nature = np.array([[0.1, 0.9], [0.1, 0.9], [0.5, 0.5]], dtype=np.float32)
    found: NDArray[np.float32] = np.array([[0.4, -0.4], [0.4, -0.4], [0.0, 0.0]], dtype=np.float32)
    scores = gain(nature, found, np.array([0, 1, 0]))
    assert scores.dtype == np.float32
    assert np.allclose(scores, [np.log(5), np.log(0.5 / 0.9), 0], atol=1e-5)
