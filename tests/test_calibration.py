from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from foretaste.calibration import conformal_threshold, tail_scale

DRAWS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_cauchy(size=n),
    "discrete": lambda rng, n: rng.integers(0, 60, size=n).astype(np.float64),
    "exponential": lambda rng, n: rng.exponential(size=n),
}


def false_alarms(draw: str, n: int, rate: float, runs: int, fresh: int) -> NDArray[np.float64]:
    """The share of ``fresh`` clean inputs called trojaned in each of so many runs."""
    shares = []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        threshold = conformal_threshold(DRAWS[draw](rng, n), rate)
        shares.append((DRAWS[draw](rng, fresh) > threshold.value).mean())
    return np.array(shares)


@pytest.mark.parametrize("draw", ["normal", "heavy"])
@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (200, 0.01), (150, 0.05), (19, 0.1)])
def test_the_false_alarm_rate_holds_over_clean_sets(draw: str, n: int, rate: float) -> None:
    """Given the clean set, the rate is Beta distributed; what the user was promised is its mean."""
    runs, fresh = 400, 1000
    above = int(np.floor(rate * (n + 1) + 1e-9))
    coverage = stats.beta(above, n + 1 - above)
    # The variance of the share in one run: of the rate itself, and of counting alarms among the fresh.
    variance = coverage.var() + (coverage.mean() - coverage.var() - coverage.mean() ** 2) / fresh
    margin = 4 * np.sqrt(variance / runs)
    mean = false_alarms(draw, n, rate, runs, fresh).mean()
    assert coverage.mean() <= rate
    assert abs(mean - coverage.mean()) < margin


def test_the_rate_of_one_clean_set_is_beta_distributed() -> None:
    n, rate = 199, 0.05
    rates = []
    for seed in range(500):
        threshold = conformal_threshold(np.random.default_rng(seed).uniform(size=n), rate)
        rates.append(1 - threshold.value)
    assert stats.kstest(rates, stats.beta(10, 190).cdf).pvalue > 1e-3


def test_with_confidence_most_clean_sets_keep_the_rate_by_themselves() -> None:
    n, rate, confidence, runs = 300, 0.01, 0.8, 500
    thresholds = [
        conformal_threshold(np.random.default_rng(seed).uniform(size=n), rate, confidence).value for seed in range(runs)
    ]
    kept = np.mean([1 - threshold <= rate for threshold in thresholds])
    # The second highest of 300 is the choice, and keeps the rate in four of five sets.
    expected = stats.binom.sf(1, n, rate)
    assert confidence <= expected < 0.81
    assert abs(kept - expected) < 4 * np.sqrt(expected * (1 - expected) / runs)


def test_equal_scores_never_raise_the_rate() -> None:
    shares = false_alarms("discrete", 120, 0.05, 400, 1000)
    assert shares.mean() < 0.05


def test_where_all_scores_are_equal_nothing_is_suspicious() -> None:
    for n in (25, 500):
        threshold = conformal_threshold(np.full(n, 0.6), 0.01)
        assert threshold.value == 0.6
        assert threshold.guaranteed == (n == 500)


def test_too_few_scores_put_the_threshold_beyond_the_highest() -> None:
    scores = np.random.default_rng(0).normal(size=30)
    threshold = conformal_threshold(scores, 0.01)
    assert not threshold.guaranteed
    assert threshold.value > scores.max() + 0.1
    assert conformal_threshold(scores, 0.05).guaranteed


def test_one_score_more_than_needed_changes_nothing_sudden() -> None:
    """At n = 1 / rate − 1 the extrapolation starts from the highest score, which is the threshold there."""
    scores = np.random.default_rng(1).normal(size=99)
    assert conformal_threshold(scores, 0.01).value == scores.max()
    assert conformal_threshold(scores, 0.0099999).value == pytest.approx(scores.max(), abs=1e-4)


@pytest.mark.parametrize("n", [20, 45])
def test_beyond_the_highest_score_the_rate_is_exact_where_the_tail_is_exponential(n: int) -> None:
    shares = false_alarms("exponential", n, 0.01, 1500, 1000)
    assert abs(shares.mean() - 0.01) < 4 * shares.std() / np.sqrt(len(shares))


def test_beyond_the_highest_score_the_rate_is_lower_where_the_tail_is_light() -> None:
    assert false_alarms("normal", 20, 0.01, 1500, 1000).mean() < 0.01


def test_the_scale_of_the_tail_is_the_mean_excess() -> None:
    assert tail_scale(np.array([1.0, 2.0, 3.0, 4.0, 8.0])) == pytest.approx(3.0)
    assert tail_scale(np.zeros(5)) == 0
