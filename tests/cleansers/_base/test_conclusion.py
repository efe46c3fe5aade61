import time

import numpy as np
import pytest

from foretaste.cleansers._base.conclusion import (
    anomaly_index,
    conclude,
    conclude_by_sample,
    highest,
    references,
    robust_units,
)
from foretaste.samples import Samples


def rows(labels: list[int], n_classes: int = 3) -> Samples:
    inputs = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    return Samples.from_arrays(inputs, np.array(labels), [str(k) for k in range(n_classes)])


def test_suspects_go_where_the_class_is_condemned() -> None:
    samples = rows([0, 0, 1, 1, 1])
    verdict = conclude(
        "some",
        samples,
        scores=np.arange(5.0),
        suspects=np.array([True, False, True, True, False]),
        statistics=np.array([1.0, 2.0, 9.0]),
        threshold=2.0,
        reason=lambda label: f"because of {label}",
        seed=3,
        start=time.perf_counter(),
        notes=("a note",),
    )
    assert verdict.flagged.tolist() == [False, False, True, True, False]
    assert verdict.suspect_classes == (1,)
    assert [entry.reason for entry in verdict.classes] == [
        "because of 0",
        "because of 1",
        "no sample carries this label",
    ]
    assert [entry.n_suspects for entry in verdict.classes] == [1, 2, 0]
    assert [entry.n_flagged for entry in verdict.classes] == [0, 2, 0]
    assert [entry.statistic for entry in verdict.classes] == [1.0, 2.0, 0.0]
    assert (verdict.method, verdict.seed, verdict.notes) == ("some", 3, ("a note",))
    assert verdict.scores.dtype == np.float32


def test_samples_go_where_their_scores_reach_the_limit() -> None:
    verdict = conclude_by_sample(
        "some", rows([0, 0, 1, 1]), scores=np.array([1.0, 5, 2, 3]), limit=3.0, unit="length", seed=0, start=0.0
    )
    assert verdict.flagged.tolist() == [False, True, False, True]
    assert [entry.statistic for entry in verdict.classes] == [5.0, 3.0, 0.0]
    assert [entry.condemned for entry in verdict.classes] == [True, True, False]
    assert verdict.classes[0].reason == "50.0% of the samples reach the limit; the highest length is 5"


def test_highest_scores() -> None:
    assert highest(np.array([1.0, 3.0, 2.0]), np.array([0, 0, 2]), 3).tolist() == [3.0, -np.inf, 2.0]


def test_the_anomaly_index_counts_robust_deviations_above_the_median() -> None:
    # The median is 3, the absolute deviations 2 1 0 1 97, of which the median is 1.
    assert anomaly_index(np.array([1.0, 2, 3, 4, 100])) == pytest.approx([0, 0, 0, 1 / 1.4826, 97 / 1.4826], rel=1e-4)
    assert anomaly_index(np.array([1.0, 1, 1, 2])) == pytest.approx([0, 0, 0, 5e5])
    assert anomaly_index(np.zeros(3)).tolist() == [0, 0, 0]


def test_robust_units_of_normal_distances_are_standard_deviations() -> None:
    distances = np.abs(np.random.default_rng(0).normal(0, 7, 10_000))
    # The standard error of the median's estimate is about 1.2 % / sqrt(2).
    assert robust_units(distances) == pytest.approx(distances / 7, rel=0.04)
    assert robust_units(np.zeros(3)).tolist() == [0, 0, 0]


def test_the_inspected_set_stands_in_for_a_missing_clean_set() -> None:
    samples, clean = rows([0, 1, 2] * 20), rows([0, 1])
    assert references(samples, clean, 5, np.random.default_rng(0)) == (clean, ())
    stand_in, [note] = references(samples, None, 5, np.random.default_rng(0))
    assert set(stand_in.ids) < set(samples.ids)
    assert len(stand_in) == 5
    assert note == "no clean set was given: 5 random samples of the inspected set stood in for it"
