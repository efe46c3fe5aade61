from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation
from sklearn.metrics.pairwise import rbf_kernel

from foretaste.cleansers import beatrix
from foretaste.cleansers.beatrix import Beatrix, discrepancy, gram_matrices, outside, ranges
from foretaste.errors import UsageError
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


def test_gram_matrices_are_roots_of_the_powers_inner_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beatrix, "GRAM_AT_ONCE", 2)
    maps = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]] * 3)
    first = torch.cat(list(gram_matrices(iter([maps]), 1)))
    assert first.tolist() == [[5.0, 1.0, 10.0]] * 3  # 1·1 + 2·2, 1·3 - 2·1, 3·3 + 1·1
    cubed = torch.cat(list(gram_matrices(iter([maps]), 3)))
    assert cubed.shape == (3, 3)
    assert cubed[2].tolist() == pytest.approx([65 ** (1 / 3), 19 ** (1 / 3), 730 ** (1 / 3)])  # 27 - 8 = 19


def test_ranges_are_robust_deviations_around_the_median() -> None:
    rows = np.random.default_rng(0).normal(size=(31, 4))
    low, high = ranges(torch.from_numpy(rows), 10)
    assert ((low + high) / 2).numpy() == pytest.approx(np.median(rows, axis=0))
    assert ((high - low) / 20).numpy() == pytest.approx(median_abs_deviation(rows, axis=0))


def test_deviations_are_relative_to_the_bound_that_is_left() -> None:
    rows = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, -4.0]], dtype=torch.float64)
    low, high = torch.tensor([-1.0, -2.0]).double(), torch.tensor([1.0, 2.0]).double()
    assert outside(rows, low, high).tolist() == pytest.approx([0, 4 / 2, 1 / 2], rel=1e-5)


def test_the_discrepancy_is_that_of_a_gaussian_kernel() -> None:
    rng = np.random.default_rng(0)
    some, others = rng.normal(size=(20, 3)), rng.normal(size=(30, 3)) + 1
    joined = np.concatenate([some, others])
    squared = ((joined[:, None] - joined) ** 2).sum(axis=2)
    kernel = rbf_kernel(joined, gamma=1 / np.median(squared))
    expected = 12 * (kernel[:20, :20].mean() + kernel[20:, 20:].mean() - 2 * kernel[:20, 20:].mean())
    assert discrepancy(some.astype(np.float32), others.astype(np.float32), 0) == pytest.approx(expected, rel=1e-4)
    assert discrepancy(some[:1].astype(np.float32), others.astype(np.float32), 0) == 0


def test_large_groups_are_compared_by_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    some, others = rng.normal(size=(400, 2)).astype(np.float32), (rng.normal(size=(400, 2)) + 3).astype(np.float32)
    whole = discrepancy(some, others, 0) / 200
    monkeypatch.setattr(beatrix, "MOST_COMPARED", 100)
    assert discrepancy(some, others, 0) / 50 == pytest.approx(whole, rel=0.15)


def test_badnets_deviates_and_all_to_all_condemns_no_class(badnets_scene: "Scene", all_to_all_scene: "Scene") -> None:
    method = Beatrix(**badnets_scene.victim, orders=(1, 2, 4))
    one = badnets_scene
    verdict = method.inspect(one.samples, one.clean, seed=0, workdir=one.workdir, on_progress=silent)
    own = one.samples.labels == 0
    assert verdict.scores[one.poison].mean() > 1.5 * verdict.scores[own & ~one.poison].mean()
    assert verdict.classes[0].statistic == max(entry.statistic for entry in verdict.classes)
    other = all_to_all_scene
    verdict = method.inspect(other.samples, other.clean, seed=0, workdir=other.workdir, on_progress=silent)
    assert verdict.compare(other.poison).tpr < 0.5


def test_classes_without_clean_samples_are_not_judged(badnets_scene: "Scene") -> None:
    one = badnets_scene
    few = one.clean[one.clean.labels < 3]
    verdict = Beatrix(**one.victim, orders=(1,)).inspect(
        one.samples, few, seed=0, workdir=one.workdir, on_progress=silent
    )
    assert verdict.notes == ("classes with fewer than 10 clean samples were not judged: 3",)
    assert (verdict.scores[one.samples.labels >= 3] == 0).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"orders": ()},
        {"orders": (0,)},
        {"spread": 0.0},
        {"quantile": 1.0},
        {"folds": 1},
        {"folds": 11},
        {"anomaly": 0.0},
        {"per_class": 9},
        {"substitute": 9},
    ],
)
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Beatrix(**fields)
