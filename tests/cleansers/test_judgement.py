import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.cleansers.judgement import Heard, Scores, confirm, credible, false_discovery_limit, hump, judge
from foretaste.cleansers.looks import Looks
from foretaste.cleansers.verdict import ClassEvidence
from foretaste.samples import Mask, Samples


def each(rows: NDArray[np.intp], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of samples that have no near-duplicates."""
    return scores


def heard(*gains: NDArray[np.float32]) -> Heard:
    """Return what models say that found these gains, and nature, which doubts nobody; all samples tell."""
    nobody = np.zeros(len(gains[0]), dtype=np.bool_)
    return Heard(
        gains=gains, doubted=nobody, telling=~nobody, patterned=nobody, distinct=each, residual=gains[0][:, None]
    )


def verdict_on(samples: Samples, found: Heard, **fields: Any) -> tuple[Scores, Mask, tuple[ClassEvidence, ...]]:
    """Judge by the default bounds, but for these fields."""
    method = ConfusionTraining(**fields)
    scores, flagged, evidence = judge(
        samples, found, spread=method.spread, gain=method.gain, significance=method.significance
    )
    return scores.max(axis=0), flagged, evidence


def judged(scores: list[float]) -> tuple[NDArray[np.bool_], Any]:
    """Return the verdict on these scores of class b's samples, beside a thousand of class a that spread by 0.5."""
    labels = np.array([0] * 1000 + [1] * len(scores))
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    normal = norm.ppf(np.linspace(0.001, 0.999, 1000), scale=0.5)
    gains = np.array([*normal, *scores], dtype=np.float32)
    _, flagged, evidence = verdict_on(samples, heard(gains))
    assert evidence[0].reason == "no suspects"
    assert not flagged[:1000].any()
    return flagged[1000:], evidence[1]


def test_a_hump_far_above_the_cut_is_condemned() -> None:
    flagged, evidence = judged([0.0, 1.9, 2.1, 5.0, 6.0, 7.0, 7.2, 7.3, 7.4, 7.5, 8.0, 9.0])
    # The cut is 4 × 0.5; 2.1 is above it, but below a third of the suspects' median.
    assert flagged.tolist() == [False] * 3 + [True] * 9
    assert evidence.condemned
    assert (evidence.n_samples, evidence.n_suspects, evidence.n_flagged) == (12, 10, 9)
    # Of ten, nine or more lie above 3 where each does with probability e^-2.
    chance = 10 * math.exp(-18) * (1 - math.exp(-2)) + math.exp(-20)
    assert evidence.statistic == pytest.approx(-math.log10(chance))
    # One chance in a thousand, once only one class is left that may be clean.
    assert evidence.threshold == pytest.approx(math.log10(1000))
    assert evidence.reason.startswith("9 samples carry a mark that has nothing to do with what b looks like")
    assert evidence.reason.endswith("makes this label 1,480 times likelier")


@pytest.mark.parametrize(
    "scores", [[9.0, 9.0, 9.0], [2.1, 2.2, 2.3, 2.4, 2.6, 2.8, 5.0], [2.6] * 90 + [4.0] * 10], ids=str
)
def test_too_few_or_a_tail_at_the_cut_is_cleared(scores: list[float]) -> None:
    flagged, evidence = judged([0.0, *scores])
    assert not flagged.any()
    assert not evidence.condemned
    assert (evidence.n_suspects, evidence.n_flagged) == (len(scores), 0)
    assert "too few, too alike or too close" in evidence.reason


def test_only_telling_samples_condemn() -> None:
    labels = np.array([0] * 1000 + [1] * 20)
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    gains = np.array([*np.linspace(-0.1, 0.1, 1000), *[4.0] * 20], dtype=np.float32)
    untold = replace(heard(gains), telling=np.zeros(len(labels), dtype=np.bool_))
    assert not verdict_on(samples, untold)[1].any()
    # Half of them are enough to condemn the class, and then all are flagged.
    some = replace(heard(gains), telling=np.arange(len(labels)) >= 1010)
    assert verdict_on(samples, some)[1].sum() == 20


def test_pictures_of_one_thing_condemn_nobody() -> None:
    labels = np.array([0] * 1000 + [1] * 20)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3)).astype(np.uint8)
    gains = np.array([*np.linspace(-0.1, 0.1, 1000), *[4.0] * 20], dtype=np.float32)
    different = Samples.from_arrays(images, labels, ("a", "b"))
    assert verdict_on(different, replace(heard(gains), distinct=Looks(different).highest))[1].sum() == 20
    images[1000:] = images[1000]
    same = Samples.from_arrays(images, labels, ("a", "b"))
    assert not verdict_on(same, replace(heard(gains), distinct=Looks(same).highest))[1].any()


def test_what_kinds_of_models_say_together_tells_more_than_what_the_surest_says() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 1000 + [1] * 600)
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    doubted, poison = np.arange(len(labels)) >= 1000, np.arange(len(labels)) >= 1400
    deviation, mark = np.where(poison, 0.35, 0.15), np.where(poison, 1.1, 0)
    one, other = (rng.normal(mark, deviation).astype(np.float32) for _ in range(2))

    def errors(*gains: NDArray[np.float32]) -> int:
        found = replace(heard(*gains), doubted=doubted, telling=doubted)
        return int((verdict_on(samples, found)[1] != poison).sum())

    # The poison lies 1.1 / (0.15 + 0.35) = 2.2 standard deviations from where it is as likely clean, by both kinds
    # sqrt(2) times that: of the 600 normal values 1.4 % are on the wrong side, or 0.1 %.
    assert errors(one, other) <= 3 < 4 <= min(errors(one), errors(other))


def test_where_most_of_the_poison_carries_a_pattern_the_pattern_is_the_mark() -> None:
    labels = np.array([0] * 1000 + [1] * 100)
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    gains = np.array([*np.linspace(-0.1, 0.1, 1080), *[4.0] * 20], dtype=np.float32)
    place = np.arange(len(labels))

    def flagged(patterned: Mask) -> list[int]:
        return np.flatnonzero(verdict_on(samples, replace(heard(gains), patterned=patterned))[1]).tolist()

    assert flagged(place < 0) == list(range(1080, 1100))
    # It is on more of the class; what it is on in a class that is not condemned does not matter.
    assert flagged((place >= 1069) | (place < 50)) == list(range(1069, 1100))
    # It has nothing to do with what was found.
    assert flagged((place >= 1000) & (place < 1090)) == list(range(1080, 1100))
    # The labels of those who carry it are not right: scores tell enough.
    doubted = replace(heard(gains), patterned=place >= 1090, doubted=place >= 1085)
    assert verdict_on(samples, doubted)[1][1080:].all()


def evidence(label: int, condemned: bool) -> ClassEvidence:
    """Return evidence on a class of four."""
    statistic = 7.0 if condemned else 1.0  # of 6, and not twice as many
    return ClassEvidence(
        label=label,
        n_samples=4,
        n_suspects=1,
        n_flagged=int(condemned),
        statistic=statistic,
        threshold=6,
        condemned=condemned,
        reason="",
    )


def test_where_many_classes_are_poisoned_each_needs_less_evidence() -> None:
    # Of ten classes at 0.001: one needs 0.0001, the second 0.0002, and so on.
    alone = np.array([0.00015, *[0.5] * 9])
    assert false_discovery_limit(alone, 0.001) == pytest.approx(0.0001)
    # Where two are poisoned, the limit is shared by the eight others; where seven are, by three.
    assert false_discovery_limit(np.array([1e-9, *alone[:9]]), 0.001) == pytest.approx(0.001 * 2 / 8)
    assert false_discovery_limit(np.array([*[0.00065] * 7, *[0.5] * 3]), 0.001) == pytest.approx(0.001 * 7 / 3)
    assert false_discovery_limit(np.array([*[1e-9] * 7, 0.002, 0.5, 0.5]), 0.001) == pytest.approx(0.001 * 8 / 3)
    assert false_discovery_limit(np.zeros(10), 0.001) == pytest.approx(0.01)
    labels = np.repeat(np.arange(11), [1000, *[20] * 10])
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels)
    gains = np.zeros(len(labels), dtype=np.float32)
    gains[:1000] = np.linspace(-0.1, 0.1, 1000)
    # Three suspects are a chance of e^-6: more than a thousandth's eleventh, less than ten thousandths.
    gains[1000:1003] = 4.0
    assert not verdict_on(samples, heard(gains))[1].any()
    gains[1020:] = 4.0
    assert verdict_on(samples, heard(gains))[1].sum() == 3 + 9 * 20


def test_what_only_one_round_condemns_is_cleared() -> None:
    before = (evidence(0, condemned=True), evidence(1, condemned=False), evidence(2, condemned=True))
    now = (evidence(0, condemned=True), evidence(1, condemned=True), evidence(2, condemned=False))
    found = confirm(now, before)
    assert [one.condemned for one in found] == [True, False, False]
    assert [one.n_flagged for one in found] == [1, 0, 0]
    assert found[1].reason == "the suspects are a group of their own in this round, but were none in the round before"
    # Of a single round, nothing more can be asked.
    assert confirm(now, ()) == now
    # Together with 5 the 7 are twice 6.
    doubtful = (before[0], replace(before[1], statistic=5.0), before[2])
    assert confirm(now, doubtful) == now
    assert confirm(now, (before[0], replace(before[1], statistic=4.9), before[2])) == found


def test_in_a_condemned_class_poison_that_the_surest_kind_misses_needs_another_kind_to_point_at_it() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 1000 + [1] * 300)
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    doubted = np.arange(len(labels)) >= 1000
    sure = np.concatenate([rng.normal(0, 0.02, 1000), rng.normal(3, 2, 300)]).astype(np.float32)
    other = np.zeros(len(labels), dtype=np.float32)
    sure[1000:1010], other[1000:1005], other[1005:1010] = -0.5, 0.1, -0.1
    found = replace(heard(sure, other), doubted=doubted, telling=doubted)
    flagged = verdict_on(samples, found)[1]
    assert flagged[1000:1005].all()
    assert not flagged[1005:1010].any()


def test_the_verdict_does_not_depend_on_the_scale_of_the_scores() -> None:
    weak, _ = judged([0.0] * 50 + [4.0] * 8)
    strong, _ = judged([0.0] * 50 + [40.0] * 8)
    assert weak.tolist() == strong.tolist() == [False] * 50 + [True] * 8


def test_a_mark_that_hardly_matters_is_no_trigger() -> None:
    labels = np.array([0] * 1000 + [1] * 20)
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    # A hundred standard deviations, but less than confirm as likely.
    scores = np.array([*np.linspace(-0.01, 0.01, 1000), *[0.6] * 20], dtype=np.float32)
    assert not verdict_on(samples, heard(scores))[1].any()
    assert verdict_on(samples, heard(scores), gain=0.3)[1].sum() == 20


def test_one_kind_of_model_is_enough() -> None:
    labels = np.array([0] * 1000 + [1] * 20)
    samples = Samples.from_arrays(np.zeros((len(labels), 2), dtype=np.float32), labels, ("a", "b"))
    calm = norm.ppf(np.linspace(0.001, 0.999, 1020), scale=0.1).astype(np.float32)
    struck = calm.copy()
    struck[1000:] = 4.2
    for gains in ((calm, struck), (struck, calm)):
        scores, flagged, evidence = verdict_on(samples, heard(*gains))
        assert flagged.tolist() == [False] * 1000 + [True] * 20
        assert [one.condemned for one in evidence] == [False, True]
        # The cut is 0.7 for both.
        assert scores[1000:].tolist() == pytest.approx([6.0] * 20)
        # Two kinds of models have two chances to be wrong.
        assert evidence[1].statistic == pytest.approx(-math.log10(2 * math.exp(-2 * 20)))


def test_a_doubted_sample_of_a_condemned_class_needs_a_lower_score() -> None:
    rng = np.random.default_rng(0)
    clean, poison = rng.normal(0, 0.2, 500), rng.normal(2, 0.5, 100)
    scores = np.concatenate([clean, poison]).astype(np.float32)
    doubted = np.arange(600) >= 495
    found = hump(scores[:, None], scores > 1, doubted) > 0
    assert not found[:495].any()
    assert found[500:].mean() >= 0.98
    assert not found[495:500].any()
    # Without the doubts, nobody below the cut is found.
    nobody = np.zeros(600, dtype=np.bool_)
    found = (hump(scores[:, None], scores > 1, nobody) > 0) & credible(scores, scores > 1, nobody)
    assert scores[found].min() > 1


def test_natural_samples_may_be_poison_only_if_they_score_like_the_suspects() -> None:
    scores = np.array([-0.1, 0.1, 0.9, 1.9, 2.1, 6.0, 6.0, 6.0, 6.0], dtype=np.float32)
    suspects, nobody = scores > 1, np.zeros(9, dtype=np.bool_)
    assert credible(scores, suspects, nobody).tolist() == [False] * 4 + [True] * 5
    assert credible(scores, suspects, ~nobody).tolist() == [False] + [True] * 8
    # And above the cut.
    low = np.array([0.9, 1.1, 1.2], dtype=np.float32)
    assert credible(low, low > 1, np.zeros(3, dtype=np.bool_)).tolist() == [False, True, True]


def test_an_absent_class_is_cleared() -> None:
    flagged, evidence = judged([])
    assert len(flagged) == 0
    assert not evidence.condemned
    assert evidence.reason == "no suspects"
