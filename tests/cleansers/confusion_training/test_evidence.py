import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import binom

from foretaste.cleansers.confusion_training.evidence import (
    References,
    calibrate,
    clearest,
    clearest_of,
    find_marks,
    group_sizes,
    informed,
    surplus,
    tolerated,
)


def base_of(answers: NDArray[np.int64], n_classes: int, sure: float = 0.97) -> NDArray[np.float32]:
    """Return the probabilities of a base model that is this sure of its answers."""
    rest = (1 - sure) / (n_classes - 1)
    return np.where(np.eye(n_classes)[answers] > 0, sure, rest).astype(np.float32)


def view_of(raised: NDArray[np.bool_], label: int, n_classes: int, by: float = 3.0) -> NDArray[np.float32]:
    """Return the outputs of a view that raises one label of some samples, with noise for all others."""
    outputs = np.random.default_rng(0).normal(0, 0.1, (len(raised), n_classes + 1)).astype(np.float32)
    outputs[raised, label] += by
    return outputs


def found(
    base: NDArray[np.float32],
    outputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    references: References | None = None,
    **fields: float,
) -> list[int]:
    settings = {"tolerance": 20.0, "false_condemnations": 0.01} | fields
    marks = find_marks(base, [outputs], labels, references=references, **settings)
    assert [mark.label for mark in marks] == list(range(base.shape[1] + 1))
    return [mark.label for mark in marks if mark.condemned]


def test_poison_is_condemned_and_its_seeds_are_poison() -> None:
    answers = np.arange(1000) % 5
    poison = np.isin(np.arange(1000), np.flatnonzero(answers != 2)[:20])
    labels = np.where(poison, 2, answers)
    base, outputs = base_of(answers, 5), view_of(poison, 2, 5)
    assert found(base, outputs, labels) == [2]
    mark = find_marks(base, [outputs], labels, tolerance=20, false_condemnations=0.01)[2]
    assert (mark.seeds <= poison).all()
    assert mark.observed >= 12
    assert mark.expected < mark.observed / 2


def test_cover_weakens_the_evidence_and_does_not_hide_it() -> None:
    answers = np.arange(1000) % 5
    marked = np.isin(np.arange(1000), np.flatnonzero(answers != 2)[:60])
    labels = np.where(marked & (np.arange(1000) % 2 == 0), 2, answers)
    assert found(base_of(answers, 5, 0.995), view_of(marked, 2, 5), labels) == [2]


def test_what_the_base_model_expects_is_no_evidence() -> None:
    answers = np.arange(1000) % 5
    # A fifth of what looks like class 1 is labelled 2, the base model says so, and a view sees which.
    mixed = (answers == 1) & (np.arange(1000) % 25 == 1)
    labels = np.where(mixed, 2, answers)
    base = base_of(answers, 5)
    base[answers == 1] = [0.01, 0.77, 0.2, 0.01, 0.01]
    assert found(base, view_of(mixed, 2, 5), labels) == []


def test_what_clean_samples_of_the_class_show_too_is_no_evidence() -> None:
    answers = np.arange(1000) % 5
    # The base model takes half of class 2 for others, and a view can tell.
    odd = (answers == 2) & (np.arange(1000) % 2 == 0)
    base = base_of(np.where(odd, 3, answers), 5)
    assert found(base, view_of(odd, 2, 5), answers) == [2]
    of_class = np.arange(40) % 2 == 0
    clean = References(
        base=base_of(np.where(of_class, 3, 2), 5), outputs=[view_of(of_class, 2, 5)], labels=np.full(40, 2)
    )
    assert found(base, view_of(odd, 2, 5), answers, references=clean) == []
    # Poison is in the set alone.
    without = replace(clean, base=base_of(np.full(40, 2), 5), outputs=[view_of(np.zeros(40, dtype=np.bool_), 2, 5)])
    assert found(base, view_of(odd, 2, 5), answers, references=without) == [2]


def test_random_wrong_labels_that_no_view_can_tell_are_no_evidence() -> None:
    rng = np.random.default_rng(3)
    answers = np.arange(2000) % 5
    wrong = rng.random(2000) < 0.05
    labels = np.where(wrong, (answers + rng.integers(1, 5, 2000)) % 5, answers)
    base = calibrate(np.log(base_of(answers, 5)), labels, 0.01)
    assert found(base, view_of(np.zeros(2000, dtype=np.bool_), 0, 5), labels) == []


def test_one_trigger_with_random_wrong_labels_is_found_by_what_it_denies() -> None:
    rng = np.random.default_rng(0)
    answers = np.arange(2000) % 10
    poison = rng.random(2000) < 0.05
    labels = np.where(poison, (answers + rng.integers(1, 10, 2000)) % 10, answers)
    outputs = view_of(np.zeros(2000, dtype=np.bool_), 0, 10)
    outputs[poison, -1] += 5
    assert found(base_of(answers, 10), outputs, labels) == [10]


def test_poison_of_one_class_is_not_told_twice() -> None:
    answers = np.arange(1000) % 5
    poison = np.isin(np.arange(1000), np.flatnonzero(answers != 2)[:100])
    labels = np.where(poison, 2, answers)
    outputs = view_of(poison, 2, 5)
    outputs[poison, -1] += 5
    assert found(base_of(answers, 5), outputs, labels) == [2]


@pytest.mark.parametrize("tolerance", [1.0, 20.0])
def test_sets_without_a_mark_are_condemned_no_more_often_than_promised(tolerance: float) -> None:
    # Labels are drawn by the very probabilities of the base model, and the view orders by chance: with a promise of
    # a half, more than half of 40 sets would have to be condemned for it to be broken.
    condemned = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = rng.dirichlet(np.full(4, 0.3), 500)
        base = (base + 0.01) / (base + 0.01).sum(axis=1, keepdims=True)
        labels = np.array([rng.choice(4, p=row) for row in base])
        outputs = rng.normal(0, 1, (500, 5)).astype(np.float32)
        condemned += bool(found(base, outputs, labels, tolerance=tolerance, false_condemnations=0.5))
    assert condemned <= 20


def test_the_printed_threshold_decides() -> None:
    answers = np.arange(600) % 3
    poison = np.isin(np.arange(600), np.flatnonzero(answers != 1)[:25])
    marks = find_marks(
        base_of(answers, 3),
        [view_of(poison, 1, 3)],
        np.where(poison, 1, answers),
        tolerance=20,
        false_condemnations=0.01,
    )
    assert len({mark.threshold for mark in marks}) == 1
    # One of four labels is condemned; the sum of 1, 1/2, 1/3 and 1/4 holds for any dependence.
    assert marks[0].threshold == pytest.approx(0.01 / (4 * (1 + 1 / 2 + 1 / 3 + 1 / 4)))
    assert [mark.condemned for mark in marks] == [mark.p_value <= mark.threshold for mark in marks]


def test_the_bound_is_above_the_binomial_tail_and_close() -> None:
    for hits, chance, size in ((20, 0.2, 40), (8, 0.01, 60), (45, 0.5, 45)):
        nats = surplus(np.array([float(hits)]), np.array([chance * size]), np.array([size]))[0]
        tail = binom.sf(hits - 1, size, chance)
        assert tail <= math.exp(-nats) <= 30 * tail
    assert surplus(np.array([1.0, 2.0]), np.array([1.0, 3.0]), np.array([10, 10])).tolist() == [0.0, 0.0]


def test_a_group_is_as_large_as_the_evidence_is_clear() -> None:
    hits = np.arange(200) < 30
    mark = clearest(0, 1, np.linspace(1, 0, 200, dtype=np.float32), hits, np.full(200, 0.05, dtype=np.float32))
    assert mark.n_samples in (23, 32)
    assert mark.observed == min(mark.n_samples, 30)
    assert mark.expected == pytest.approx(0.05 * mark.n_samples)
    assert mark.view == 1


def test_more_tries_cost_evidence() -> None:
    hits = np.arange(200) < 10
    rises = np.linspace(1, 0, 200, dtype=np.float32)
    marks = [
        clearest(0, view, rises, hits, np.full(200, share, dtype=np.float32)) for view, share in enumerate((0.2, 0.1))
    ]
    (best,) = clearest_of([[mark] for mark in marks])
    assert best.view == 1
    assert best.p_value == pytest.approx(2 * marks[1].p_value)


def test_sizes_grow_by_the_root_of_two() -> None:
    assert group_sizes(100).tolist() == [4, 6, 8, 11, 16, 23, 32, 45]
    assert group_sizes(5).tolist() == [2]
    assert group_sizes(1).tolist() == [1]


def test_the_tolerance_multiplies_odds() -> None:
    likely = np.array([0.001, 0.1, 0.5, 0.99])
    assert logit(tolerated(likely, 20)) - logit(likely) == pytest.approx([math.log(20)] * 4)


def test_calibration_finds_temperature_and_noise() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (8000, 4))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in likely])
    noisy = rng.random(8000) < 0.08
    labels = np.where(noisy, rng.integers(0, 4, 8000), labels)
    found = calibrate((logits / 2).astype(np.float32), labels, 0.01)
    assert found.sum(axis=1) == pytest.approx(np.ones(8000))
    assert np.abs(found - (0.92 * likely + 0.02)).mean() < 0.01
    # Where no label is wrong, the least share stays.
    sure = calibrate((20 * np.eye(4)[np.arange(400) % 4]).astype(np.float32), np.arange(400) % 4, 0.01)
    assert sure.min() == pytest.approx(0.0025, rel=0.01)


def test_the_last_output_is_taken_from_the_answer() -> None:
    base = np.array([[0.7, 0.2, 0.1]])
    outputs = np.array([[0, math.log(2), 0, math.log(7)]], dtype=np.float32)
    assert informed(base, outputs)[0] == pytest.approx(np.array([0.1, 0.4, 0.1]) / 0.6)
