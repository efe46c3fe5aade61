from typing import Any

import numpy as np
import pytest
from scipy import stats

from foretaste.calibration import conformal_threshold
from foretaste.guards.finding import Conclusion, FindingRule, excess_p_value
from foretaste.guards.guard import Screening

CLEAN = dict.fromkeys(range(10), 50)
"""How often each label was answered to 500 clean images."""


def screening(n: int, flagged: int, carriers: int = 0, labels: Any = None) -> Screening:
    """The first inputs are flagged; the first of those carry a trigger."""
    answers = np.arange(n) % 10 if labels is None else np.asarray(labels)
    return Screening(
        labels=answers,
        corrected=answers,
        trojaned=np.arange(n) < flagged,
        scores=np.zeros(n, dtype=np.float32),
        trigger_ids=np.where(np.arange(n) < carriers, "0123456789ab", ""),
        queries=np.ones(n, dtype=np.int64),
    )


def conclude(*numbers: int, **more: Any) -> Conclusion:
    return FindingRule().apply(screening(*numbers), false_alarm_rate=0.01, **more).conclusion


def test_one_input_with_a_confirmed_trigger_is_enough() -> None:
    assert conclude(1000, 1, 1) is Conclusion.TRIGGER


def test_the_promised_false_alarms_are_nothing() -> None:
    finding = FindingRule().apply(screening(1000, 4), false_alarm_rate=0.01)
    assert finding.conclusion is Conclusion.NOTHING
    assert (finding.n_unexplained, finding.n_expected) == (4, 10)
    assert finding.p_value == pytest.approx(stats.binom.sf(3, 1000, 0.01))


def test_more_than_those_is_an_excess() -> None:
    assert conclude(1000, 25) is Conclusion.EXCESS
    assert conclude(1000, 15) is Conclusion.NOTHING


def test_no_inputs_and_none_flagged() -> None:
    assert conclude(0, 0) is Conclusion.NOTHING
    assert excess_p_value(0, 1000, 0.01, None) == 1


def test_few_clean_scores_make_an_excess_less_sure() -> None:
    threshold = conformal_threshold(np.arange(150.0), 0.01)
    assert excess_p_value(20, 1000, 0.01, threshold) > 5 * excess_p_value(20, 1000, 0.01, None)


def test_a_clean_stream_is_called_an_excess_as_seldom_as_was_said() -> None:
    """Over clean sets and streams, at most one in a hundred; 3 standard errors of 2,000 runs are 0.007."""
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(2000):
        threshold = conformal_threshold(rng.uniform(size=150), 0.01)
        flagged = int((rng.uniform(size=1000) > threshold.value).sum())
        seen += excess_p_value(flagged, 1000, 0.01, threshold) <= FindingRule().excess_level
    assert seen / 2000 <= 0.01 + 0.007


def test_a_label_that_has_become_frequent_is_told_with_its_p_value() -> None:
    labels = np.arange(1000) % 10
    labels[:100] = 3
    shift = FindingRule().apply(screening(1000, 0, labels=labels), false_alarm_rate=0.01, clean_labels=CLEAN).shift
    assert shift is not None
    assert (shift.label, shift.n_inputs, shift.share, shift.clean_share) == (3, 190, 0.19, 0.1)
    expected = stats.fisher_exact(np.array([[190, 810], [50, 450]]), alternative="greater").pvalue
    assert shift.p_value == pytest.approx(10 * expected)
    assert shift.p_value < 1e-3


def test_a_shift_that_a_trigger_explains_is_none() -> None:
    labels = np.arange(1000) % 10
    labels[:100] = 3
    of_trigger = screening(1000, 100, 100, labels=labels)
    assert FindingRule().apply(of_trigger, false_alarm_rate=0.01, clean_labels=CLEAN).shift is None


def test_ordinary_shares_are_no_shift() -> None:
    rng = np.random.default_rng(1)
    rule = FindingRule()
    shifts = [
        rule.apply(
            screening(1000, 0, labels=rng.integers(0, 10, 1000)), false_alarm_rate=0.01, clean_labels=CLEAN
        ).shift
        for _ in range(200)
    ]
    # At a level of 0.001, 200 streams hold one with a probability of 0.18 at most; seed 1 has none.
    assert shifts == [None] * 200
    assert rule.apply(screening(9, 0), false_alarm_rate=0.01, clean_labels=None).shift is None
