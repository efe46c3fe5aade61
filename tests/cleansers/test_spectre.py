from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.covariance import MinCovDet

from foretaste.cleansers.spectre import SPECTRE, que_scores, robust_covariance, whitened_by
from foretaste.errors import UsageError
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.cleansers.conftest import DrawGroups, Scene


def test_the_robust_estimate_is_that_of_the_bulk() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 3)) * [3, 1, 0.5] + [1, 2, 3]
    points[:300] = 60 + rng.normal(size=(300, 3))
    centre, covariance = robust_covariance(points, 1600)
    reference = MinCovDet(support_fraction=0.8, random_state=0).fit(points)
    assert centre == pytest.approx(reference.raw_location_, abs=0.1)
    # Of the bulk, 1,600 of 1,700 are kept, and the correction takes it for 1,600 of 2,000: all axes by one factor.
    inflation = np.diag(covariance) / [9, 1, 0.25]
    assert inflation == pytest.approx(np.full(3, inflation.mean()), rel=0.15)
    assert 1 < inflation.mean() < 1.6


def test_without_outliers_the_estimate_is_consistent() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 4))
    for kept in (20_000, 15_000):
        _, covariance = robust_covariance(points, kept)
        assert np.diag(covariance) == pytest.approx(np.ones(4), rel=0.06)


def test_whitening_gives_the_identity() -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)) @ [[2.0, 1, 0], [0, 1, 1], [0, 0, 1]]
    white = whitened_by(points, points.mean(axis=0), np.cov(points.T))
    assert np.cov(white.T) == pytest.approx(np.eye(3), abs=1e-8)


def test_que_scores_are_lengths_for_alpha_0_and_spectral_for_a_large_one() -> None:
    points = np.random.default_rng(0).normal(size=(200, 3)) * [3, 1, 1]
    assert que_scores(points, 0.0) == pytest.approx((points**2).sum(axis=1) / 3)
    top = np.linalg.eigh(points.T @ points)[1][:, -1]
    assert que_scores(points, 60.0) == pytest.approx((points @ top) ** 2, rel=1e-3, abs=1e-3)
    white = np.random.default_rng(0).normal(size=(200, 3)) * 0.5
    assert que_scores(white, 4.0) == pytest.approx((white**2).sum(axis=1) / 3)


def test_a_second_group_is_flagged(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(away=15.0)
    verdict = SPECTRE(dimensions=(4, 8)).judge(groups.samples, groups.features, seed=0, start=0.0)
    assert verdict.suspect_classes == (0,)
    assert verdict.flagged[groups.poison].all()
    assert verdict.flagged[~groups.poison].mean() < 0.02


def test_with_a_rate_one_class_loses_as_many_as_the_paper_says(draw_groups: "DrawGroups") -> None:
    groups = draw_groups()
    method = SPECTRE(dimensions=(4, 8), expected_rate=float(groups.poison.mean()))
    verdict = method.judge(groups.samples, groups.features, seed=0, start=0.0)
    assert np.bincount(groups.samples.labels[verdict.flagged]).tolist() == [30]
    assert verdict.flagged[groups.poison].all()


def test_no_class_of_a_clean_set_stands_out(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n_poison=0)
    verdict = SPECTRE(dimensions=(4, 8)).judge(groups.samples, groups.features, seed=0, start=0.0)
    assert not verdict.flagged.any()


def test_poison_behind_natural_variation_is_found(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n_poison=10, away=15.0)
    features = groups.features.copy()
    features[:, 0] += 20 * np.random.default_rng(1).normal(size=len(features)).astype(np.float32)
    verdict = SPECTRE(dimensions=(4, 8)).judge(groups.samples, features, seed=0, start=0.0)
    assert verdict.flagged[groups.poison].all()


def test_all_to_all_poison_is_looked_for_in_one_class_only(all_to_all_scene: "Scene") -> None:
    one = all_to_all_scene
    method = SPECTRE(**one.victim, expected_rate=float(one.poison.mean()))
    verdict = method.inspect(one.samples, None, seed=0, workdir=one.workdir, on_progress=silent)
    assert len(verdict.suspect_classes) == 1
    assert verdict.compare(one.poison).tpr < 0.3


@pytest.mark.parametrize(
    "fields",
    [
        {"dimensions": ()},
        {"dimensions": (0,)},
        {"alpha": -1.0},
        {"expected_rate": 1.0},
        {"multiple": 0.5},
        {"trimmed": 0.6},
        {"anomaly": 0.0},
        {"tail": 0.0},
    ],
)
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SPECTRE(**fields)
