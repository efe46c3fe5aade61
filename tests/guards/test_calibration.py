from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from foretaste.errors import UsageError
from foretaste.guards.calibration import Scored, ThresholdScreener, conformal_threshold, split, tail_scale
from foretaste.progress import Progress
from foretaste.samples import Images, Samples

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


def clean(n: int) -> Samples:
    images = np.zeros((n, 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return Samples.from_arrays(images, np.arange(n) % 2)


def test_a_split_leaves_most_to_set_the_threshold() -> None:
    reference, unseen = split(clean(41), np.random.default_rng(0))
    assert (len(reference), len(unseen)) == (10, 31)
    assert not set(reference.ids) & set(unseen.ids)


def by_corner(images: Images) -> Scored:
    n = len(images)
    return Scored(np.full(n, 3), images[:, 0, 0, 0].astype(float), np.full(n, 2))


def test_a_screener_compares_with_its_threshold() -> None:
    told: list[Progress] = []
    screener = ThresholdScreener(by_corner, clean(99), name="corner", false_alarm_rate=0.01, chunk=40)
    assert screener.threshold.value == 98
    images = clean(100).inputs
    screening = screener.screen(images, told.append)
    assert np.flatnonzero(screening.trojaned).tolist() == [99]
    assert screening.scores.dtype == np.float32
    assert screening.scores.tolist() == list(range(100))
    assert screening.corrected.tolist() == screening.labels.tolist() == [3] * 100
    assert set(screening.trigger_ids.tolist()) == {""}
    assert screening.queries.tolist() == [2] * 100
    assert [(p.phase, p.done, p.total) for p in told] == [("corner: screen", done, 100) for done in (40, 80, 100)]
    assert len(screener.screen(images[:0])) == 0


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 5, 1), np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((2, 4, 4, 1), np.float32)]
)
def test_inputs_of_another_kind_are_refused(images: Images) -> None:
    screener = ThresholdScreener(by_corner, clean(30), name="corner", false_alarm_rate=0.1, chunk=40)
    with pytest.raises(UsageError, match="must be images uint8"):
        screener.screen(images)
