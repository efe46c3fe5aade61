from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cosine, jensenshannon

from foretaste.cleansers._base.victim import Activations
from foretaste.cleansers.agpd import AGPD, closeness, dispersion_of, divergence, settled, unit
from foretaste.errors import UsageError
from foretaste.progress import silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


def activations(gradients: NDArray[np.float64], labels: NDArray[np.int64]) -> Activations:
    """Return activations of a net of one stage that gets every label right."""
    rows = gradients.astype(np.float32)
    logits = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    return Activations(logits=logits, features=rows, stages=(rows,), gradients=(rows,), likelihoods=rows[:, :0])


def directions(n: int, poisoned: tuple[int, ...], n_classes: int = 6) -> tuple[Samples, Activations, NDArray[np.bool_]]:
    """Return gradients of which a fifth of some classes point another way."""
    rng = np.random.default_rng(0)
    labels = np.arange(n * n_classes) % n_classes
    ways = rng.normal(size=(2, n_classes, 20))
    poison = np.isin(labels, poisoned) & (rng.random(len(labels)) < 0.2)
    gradients = ways[poison.astype(int), labels] + 0.3 * rng.normal(size=(len(labels), 20))
    samples = Samples.from_arrays(rng.normal(size=(len(labels), 2)), labels)
    return samples, activations(gradients, labels), poison


def test_dispersion_is_the_difference_of_the_cosines_with_two_poles() -> None:
    own = unit(np.random.default_rng(0).normal(size=(6, 3)))
    clean = unit(np.array([1.0, 1.0, 0.0]))
    to_clean = np.array([1 - cosine(row, clean) for row in own])
    farthest = int(to_clean.argmin())
    others = [row for row in range(6) if row != farthest]
    differences = [to_clean[row] - (1 - cosine(own[row], own[farthest])) for row in others]
    assert dispersion_of(own, clean) == pytest.approx(np.sqrt(np.mean(np.square(differences))))


def test_closeness_is_1_at_the_clean_pole_and_0_at_the_other() -> None:
    clean, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert closeness(np.array([clean, other, unit(clean + other)]), clean, 3 * other) == pytest.approx([1, 0, 0.5])


def test_the_divergence_is_that_of_jensen_and_shannon() -> None:
    some, others = np.random.default_rng(0).dirichlet([1.0] * 9, 2)
    assert divergence(some, others) == pytest.approx(float(jensenshannon(some, others)))
    assert divergence(some, some) == 0


def test_rounds_settle_where_they_change_least() -> None:
    changes = [0.9, 0.8, 0.1, 0.1, 0.1, 0.5]
    assert settled(changes, 3) == 2
    assert settled(changes, 7) == 6


def test_the_samples_that_point_another_way_are_flagged() -> None:
    samples, inspected, poison = directions(150, poisoned=(2,))
    clean, known, _ = directions(30, poisoned=())
    verdict = AGPD().judge(samples, inspected, clean.labels, known, seed=0, start=0.0)
    assert verdict.suspect_classes == (2,)
    detection = verdict.compare(poison)
    assert detection.tpr > 0.9
    assert detection.fpr < 0.02


def test_where_all_classes_are_poisoned_the_dispersion_alone_decides() -> None:
    samples, inspected, poison = directions(150, poisoned=tuple(range(6)))
    clean, known, _ = directions(30, poisoned=())
    verdict = AGPD().judge(samples, inspected, clean.labels, known, seed=0, start=0.0)
    assert verdict.classes[0].threshold == 0.3
    assert verdict.compare(poison).auroc > 0.9


def test_classes_that_no_clean_sample_stands_for_are_not_judged() -> None:
    samples, inspected, _ = directions(50, poisoned=(0,))
    clean, known, _ = directions(30, poisoned=())
    wrong = np.where(clean.labels == 0, 1, clean.labels)  # the net gets none of class 0 right
    verdict = AGPD().judge(samples, inspected, wrong, known, seed=0, start=0.0)
    assert verdict.notes == ("classes without a clean sample that the classifier gets right were not judged: 1",)
    assert not verdict.classes[0].condemned


def test_clean_samples_that_the_classifier_gets_wrong_are_refused() -> None:
    samples, inspected, _ = directions(20, poisoned=())
    with pytest.raises(UsageError, match="needs a clean sample that the classifier gets right"):
        AGPD().judge(samples, inspected, (samples.labels + 1) % 6, inspected, seed=0, start=0.0)


def test_badnets_ranks_high(badnets_scene: "Scene") -> None:
    one = badnets_scene
    verdict = AGPD(**one.victim).inspect(one.samples, one.clean, seed=0, workdir=one.workdir, on_progress=silent)
    own = one.samples.labels == 0
    assert verdict.scores[one.poison].mean() > verdict.scores[own & ~one.poison].mean()


@pytest.mark.parametrize(
    "fields", [{"anomaly": 0.0}, {"dispersion": 2.0}, {"step": 0.0}, {"window": 1}, {"substitute": 0}]
)
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        AGPD(**fields)
