import numpy as np
import pytest
from scipy import stats

from foretaste.inspectors.mm_bd import margin_p_values
from foretaste.inspectors.nulls import anomaly_indices, highest_of, measured_p_values, outlier_p_values


def test_an_anomaly_index_counts_robust_standard_deviations() -> None:
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 100.0])
    # The median is 0.5, and the absolute deviations' median is 1.5.
    np.testing.assert_allclose(anomaly_indices(values)[-1], 99.5 / (1.4826 * 1.5))


def test_values_that_are_all_equal_have_no_outlier() -> None:
    assert anomaly_indices(np.full(8, 0.3)).tolist() == [0.0] * 8


def test_values_at_a_bound_do_not_make_the_spread_small() -> None:
    values = np.array([-7.0] * 5 + [-6.5, -6.0, -3.0])
    known = values > -7
    # The median is −7, and the known values' deviations are 0.5, 1 and 4.
    np.testing.assert_allclose(anomaly_indices(values, known)[5:], np.array([0.5, 1, 4]) / 1.4826)
    assert anomaly_indices(values, known)[:5].tolist() == [0.0] * 5
    normal = np.random.default_rng(0).normal(size=20)
    np.testing.assert_array_equal(anomaly_indices(normal, np.full(20, True)), anomaly_indices(normal))
    assert anomaly_indices(np.full(8, -7.0), np.full(8, False)).tolist() == [0.0] * 8


@pytest.mark.parametrize("k", [8, 16, 43])
def test_p_values_of_outliers_keep_their_rate_on_normal_values(k: int) -> None:
    rng = np.random.default_rng(0)
    lowest = np.array([outlier_p_values(anomaly_indices(rng.normal(size=k))).min() for _ in range(2000)])
    # Of 2000, 5 % are 100; three standard deviations of the count are 29, and being cautious is no fault.
    assert (lowest <= 0.05).sum() <= 129


def test_margins_of_one_kind_are_seldom_called_outliers_and_a_large_one_is() -> None:
    rng = np.random.default_rng(0)
    lowest = np.array([margin_p_values(rng.gamma(20, 1, size=16)).min() for _ in range(200)])
    # Of 200, 5 % are 10; three standard deviations of the count are 9. Without the draws it is a fifth of them.
    assert (lowest <= 0.05).sum() <= 19
    margins = rng.gamma(20, 1, size=16)
    margins[3] = 60
    p_values = margin_p_values(margins)
    assert p_values.argmin() == 3
    assert p_values[3] < 0.001


def test_the_highest_of_several_is_exceeded_more_often() -> None:
    np.testing.assert_allclose(highest_of(np.array([0.1]), 3), 1 - 0.9**3)
    assert highest_of(np.array([1.0, 0.0]), 5).tolist() == [pytest.approx(1), 0]


def test_with_enough_clean_models_p_values_are_conformal() -> None:
    null = np.arange(19, dtype=np.float64)
    p_values, note = measured_p_values(np.array([30.0, 18.0, -1.0]), null, 0.05, np.ones(3))
    np.testing.assert_allclose(p_values, [1 / 20, 2 / 20, 1.0])
    assert "conformal" in note


def test_with_few_clean_models_p_values_are_those_of_a_prediction_interval() -> None:
    null = np.array([1.0, 2.0, 3.0])
    [p], note = measured_p_values(np.array([5.0]), null, 0.05, np.zeros(1))
    assert p == pytest.approx(stats.t.sf((5 - 2) / np.sqrt(4 / 3), df=2))
    assert "normal" in note


@pytest.mark.parametrize("n", [3, 18])
@pytest.mark.parametrize("methods", [1, 3])
def test_few_clean_models_keep_the_rate_where_most_scores_are_0(n: int, methods: int) -> None:
    """Scores as those of ``all``: minus the logarithm of a p-value that was multiplied by the number of methods."""
    rng = np.random.default_rng(0)
    own = np.minimum(methods * rng.random((2000, n + 1, methods)).min(axis=2), 1.0)
    scores = -np.log10(own)
    p_values = [measured_p_values(scores[row, :1], scores[row, 1:], 0.05, own[row, :1])[0] for row in range(len(own))]
    # Of 2000, 5 % are 100; three standard deviations of the count are 29.
    assert (np.concatenate(p_values) <= 0.05).sum() <= 129


def test_a_score_just_above_clean_models_without_any_spread_is_no_evidence() -> None:
    [p], _ = measured_p_values(np.array([0.01]), np.zeros(3), 0.05, np.array([10**-0.01]))
    assert p == pytest.approx(10**-0.01)
    [p], _ = measured_p_values(np.array([6.0]), np.zeros(3), 0.05, np.array([1e-6]))
    assert p == 1e-6
