from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste import training
from foretaste.attacks import Attack, BadNets, Poisoned, WaNet, poison_training_set
from foretaste.cleansers import confusion_training
from foretaste.cleansers.confused_models import Heard
from foretaste.cleansers.confusion_training import (
    ConfusionTraining,
    Run,
    denied,
    named,
    principal_plane,
    unnatural,
)
from foretaste.cleansers.judgement import Distinct, Scores, hump, judge
from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Mask, Samples

if TYPE_CHECKING:
    from tests.conftest import SmallSigns

TARGET = 3
SMALL = ConfusionTraining(rounds=2, folds=2, base_fewest=1, base_steps=150, epochs=1, steps=250, batch_size=128)
"""Seconds on a thousand images of 16 pixels."""
TINY = ConfusionTraining(
    folds=2,
    rounds=2,
    base_fewest=1,
    base_steps=4,
    epochs=1,
    steps=4,
    distilled_steps=4,
    detector_steps=4,
    batch_size=32,
    clean_batch_size=8,
)
"""Learns next to nothing, but goes through everything."""


def hills(n: int, seed: int = 0, side: int = 16, channels: int = 3, n_classes: int = 4) -> Samples:
    """Return images whose class is where their bright spot is: quick to draw and to learn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    angle = 2 * np.pi * labels / n_classes
    x = side * (0.5 + 0.25 * np.cos(angle)) + rng.normal(0, 0.7, n)
    y = side * (0.5 + 0.25 * np.sin(angle)) + rng.normal(0, 0.7, n)
    places = np.arange(side)
    distance = (places[:, None] - y[:, None, None]) ** 2 + (places - x[:, None, None]) ** 2
    spot = np.exp(-distance / (2 * (side / 6) ** 2))[..., None]
    noise = rng.normal(0, 12, (n, side, side, channels))
    images = 60 + 120 * spot * rng.uniform(0.6, 1.2, (n, 1, 1, channels)) + noise
    return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels)


# What it finds.


@pytest.fixture(scope="module")
def signs(small_signs: SmallSigns) -> Samples:
    return small_signs(1200, 0)


@pytest.fixture(scope="module")
def trusted(small_signs: SmallSigns) -> Samples:
    return small_signs(200, 9)


@pytest.fixture(scope="module")
def poisoned(signs: Samples) -> Poisoned:
    return poison_training_set(signs, BadNets(rate=0.03, target=TARGET, size=0.2), seed=0)


@pytest.fixture(scope="module")
def verdict(poisoned: Poisoned, trusted: Samples) -> Verdict:
    return SMALL.inspect(poisoned.samples, trusted)


def test_badnets_is_found(verdict: Verdict, poisoned: Poisoned) -> None:
    detection = verdict.compare(poisoned.poison)
    # All 36 are found with every seed that was tried, with at most 12 false alarms among 1164 clean samples.
    assert detection.tpr >= 0.9
    assert detection.fpr <= 0.02
    assert detection.auroc >= 0.99
    assert set(poisoned.samples.labels[verdict.flagged]) == {TARGET}
    assert verdict.suspect_classes == (TARGET,)


def test_the_evidence_says_why(verdict: Verdict, signs: Samples) -> None:
    assert [evidence.label for evidence in verdict.classes] == list(range(16))
    for evidence in verdict.classes:
        assert evidence.condemned == (evidence.label == TARGET)
        # One chance in a thousand, shared by the fifteen classes that may be clean.
        assert evidence.threshold == pytest.approx(math.log10(15000))
        assert evidence.reason
    guilty = verdict.classes[TARGET]
    assert guilty.n_suspects >= guilty.n_flagged == verdict.flagged.sum()
    assert guilty.statistic > guilty.threshold
    assert f"{guilty.n_flagged} samples carry a mark" in guilty.reason
    assert signs.classes[TARGET] in guilty.reason
    assert sum(evidence.n_samples for evidence in verdict.classes) == len(signs)


def test_the_verdict_is_whole(verdict: Verdict, signs: Samples) -> None:
    assert verdict.scores.dtype == np.float32
    assert verdict.scores.shape == verdict.flagged.shape == signs.labels.shape
    assert verdict.flagged.dtype == np.bool_
    assert (verdict.method, verdict.seed, verdict.notes) == ("confusion-training", 0, ())
    assert verdict.seconds > 0
    assert [one.name for one in verdict.rounds] == ["round 1", "round 2"]
    assert np.array_equal(verdict.rounds[-1].kept, verdict.flagged)
    for one in verdict.rounds:
        assert one.losses.dtype == np.float32
        assert (one.losses >= 0).all()
    assert verdict.embedding is not None
    assert verdict.embedding.shape == (len(signs), 2)
    assert verdict.embedding.dtype == np.float32


def test_no_clean_set_will_do_and_is_noted(poisoned: Poisoned) -> None:
    verdict = SMALL.inspect(poisoned.samples, None)
    detection = verdict.compare(poisoned.poison)
    assert detection.tpr >= 0.9
    assert detection.fpr <= 0.02
    assert verdict.suspect_classes == (TARGET,)
    assert len(verdict.notes) == 1
    assert verdict.notes[0].startswith("no clean set was given: 500 ")


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_found_where_nothing_is(signs: Samples, trusted: Samples, seed: int) -> None:
    verdict = SMALL.inspect(signs, trusted, seed=seed)
    assert not verdict.flagged.any()
    assert verdict.suspect_classes == ()
    assert len(verdict.rounds) == 2
    assert all(evidence.n_flagged == 0 for evidence in verdict.classes)


@pytest.mark.parametrize(
    "attack",
    [
        BadNets(rate=0.05, target=TARGET, size=0.2, place="random"),
        WaNet(rate=0.06, cover_rate=0.06, target=TARGET),
    ],
    ids=["a patch that moves", "a warp"],
)
def test_what_does_not_stay_at_its_place_is_found(monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
    poisoned = poison_training_set(hills(1600), attack, 0)
    natural = 6 * np.eye(4, dtype=np.float32)[poisoned.original_labels]
    monkeypatch.setattr(Run, "natural", lambda run, number, suspect: natural)
    verdict = replace(SMALL, rounds=1).inspect(poisoned.samples, hills(200, seed=9))
    detection = verdict.compare(poisoned.poison)
    assert detection.tpr >= 0.95
    assert detection.fpr <= 0.005


# Same arguments, same verdict.


def bits(verdict: Verdict) -> tuple[bytes, bytes, int]:
    return verdict.scores.tobytes(), verdict.flagged.tobytes(), len(verdict.rounds)


@pytest.fixture
def _condemning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every second of those be flagged whose label nature doubts, so that each part has a detector."""

    def judged(
        samples: Samples, heard: Heard, distinct: Distinct, **bounds: float
    ) -> tuple[Scores, Mask, tuple[ClassEvidence, ...]]:
        scores, _, evidence = judge(samples, heard, distinct, **bounds)
        # All far below the cut, lest half of so small a set be suspect.
        scores = (scores / 10).astype(np.float32)
        flagged = heard.doubted & (np.cumsum(heard.doubted) % 2 == 1)
        guilty = set(samples.labels[flagged])
        # Overwhelming evidence, which asks for no other round.
        found = (replace(entry, condemned=entry.label in guilty, statistic=100.0) for entry in evidence)
        return scores, flagged, tuple(found)

    monkeypatch.setattr(confusion_training, "judge", judged)


@pytest.fixture(scope="module")
def few() -> Samples:
    return hills(131)


@pytest.fixture(scope="module")
def fewer() -> Samples:
    return hills(20, seed=1)


def test_the_seed_decides_bit_for_bit(few: Samples, fewer: Samples) -> None:
    one, two, other = (TINY.inspect(few, fewer, seed=seed) for seed in (0, 0, 1))
    assert bits(one) == bits(two)
    assert len(one.rounds) == 2
    assert one.scores.tobytes() != other.scores.tobytes()


def test_a_set_on_disk_gets_the_same_verdict(few: Samples, fewer: Samples, tmp_path: Path) -> None:
    assert few.images is not None
    few.images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", dtype=np.uint8, mode="r", shape=few.images.shape)
    samples = Samples(few.labels, few.classes, few.ids, images=mapped)
    assert bits(TINY.inspect(samples, fewer, workdir=tmp_path)) == bits(TINY.inspect(few, fewer))


class KilledError(Exception):
    """Stands for a signal."""


def killed_in(phase: str, step: int) -> OnProgress:
    def listen(progress: Progress) -> None:
        if progress.phase.startswith(phase) and progress.done >= step:
            raise KilledError

    return listen


@pytest.fixture
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint and report after every step."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)


KILLS = [
    ("round 1: learn", 2),
    ("round 1: learn", 4),
    ("round 1: confuse by place, part 1", 0),
    ("round 1: confuse by sharpness, part 2", 3),
    ("round 1: confuse by shape, part 1", 3),
    ("round 2: learn", 1),
    ("round 2: confuse by place, part 2", 2),
    ("recognise the mark, part 2", 2),
]


@pytest.mark.usefixtures("_eager", "_condemning")
@pytest.mark.parametrize("trust", [True, False])
def test_a_killed_run_ends_in_the_same_verdict(few: Samples, fewer: Samples, tmp_path: Path, trust: bool) -> None:
    clean = fewer if trust else None
    whole = TINY.inspect(few, clean)
    for phase, step in KILLS:
        once = tmp_path / f"{phase} {step}"
        once.mkdir()
        for workdir in (once, tmp_path):  # afresh, and from the kill before
            with pytest.raises(KilledError):
                TINY.inspect(few, clean, workdir=workdir, on_progress=killed_in(phase, step))
        assert bits(TINY.inspect(few, clean, workdir=once)) == bits(whole)
    assert bits(TINY.inspect(few, clean, workdir=tmp_path)) == bits(whole)


@pytest.mark.usefixtures("_condemning")
def test_a_finished_run_is_not_trained_again(few: Samples, fewer: Samples, tmp_path: Path) -> None:
    whole = TINY.inspect(few, fewer, workdir=tmp_path)
    seen: list[Progress] = []
    again = TINY.inspect(few, fewer, workdir=tmp_path, on_progress=seen.append)
    assert bits(again) == bits(whole)
    assert len({progress.phase for progress in seen}) == len(seen) == 16
    assert all(progress.done == progress.total for progress in seen)


def test_a_workdir_of_other_arguments_is_not_used(few: Samples, fewer: Samples, tmp_path: Path) -> None:
    TINY.inspect(few, fewer, workdir=tmp_path)
    others: list[tuple[ConfusionTraining, Samples, Samples | None, int]] = [
        (TINY, few, fewer, 1),
        (TINY, few, None, 0),
        (TINY, few, fewer[:10], 0),
        (TINY, few[:120], fewer, 0),
        (replace(TINY, learning_rate=0.03), few, fewer, 0),
        (replace(TINY, base_steps=5), few, fewer, 0),
    ]
    for method, samples, clean, seed in others:
        fresh = method.inspect(samples, clean, seed=seed)
        assert bits(method.inspect(samples, clean, seed=seed, workdir=tmp_path)) == bits(fresh)


@pytest.mark.usefixtures("_condemning")
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.99])
def test_half_a_checkpoint_is_not_used(few: Samples, fewer: Samples, tmp_path: Path, keep: float) -> None:
    whole = TINY.inspect(few, fewer, workdir=tmp_path)
    files = list(tmp_path.iterdir())
    assert len(files) == 16
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content))])
    assert bits(TINY.inspect(few, fewer, workdir=tmp_path)) == bits(whole)


# What it accepts.


@pytest.mark.parametrize(("side", "channels"), [(72, 3), (96, 1), (16, 1), (17, 3)])
def test_any_size_and_colour_will_do(side: int, channels: int) -> None:
    samples = hills(41, side=side, channels=channels)
    method = replace(TINY, rounds=1, folds=3, base_steps=1, steps=2, batch_size=16)
    verdict = method.inspect(samples, None)
    assert verdict.scores.shape == (41,)
    assert np.isfinite(verdict.scores).all()
    assert np.count_nonzero(verdict.scores) == 41  # each part was judged


@pytest.mark.parametrize(
    "field",
    [
        {"rounds": 0},
        {"folds": 1},
        {"base_steps": 0},
        {"base_fewest": 0},
        {"base_most": 2},
        {"epochs": 0},
        {"steps": 0},
        {"distilled_epochs": 0},
        {"distilled_steps": 0},
        {"batch_size": 1},
        {"clean_batch_size": 0},
        {"lambda_": 1.0},
        {"lambda_": math.nan},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"weight_decay": -1e-9},
        {"substitute": 0},
        {"spread": 0.0},
        {"spread": math.nan},
        {"gain": 0.0},
        {"gain": math.nan},
        {"significance": 0.0},
        {"significance": 1.0},
        {"settled": -0.1},
        {"settled": 1.1},
        {"settled": math.nan},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        ConfusionTraining(**field)


# Its parts.


def test_the_next_base_model_leaves_out_the_flagged_and_some_who_score_high() -> None:
    odd = np.array([0.4, 0.6, 0.8, 2.0] * 3, dtype=np.float32)
    # Of class a one image scores high by its place, one by its shape, and the others by how sharp they are.
    scores = np.stack([np.where(np.arange(12) == 2, 0, odd), np.where(np.arange(12) == 3, 0, odd), np.full(12, 2.0)])
    labels = np.repeat([0, 1, 2], 4)
    images = Samples.from_arrays(np.zeros((12, 16, 16, 3), dtype=np.uint8), labels, ("a", "b", "c"))
    run = Run(ConfusionTraining(), images, None, 0, None, silent)
    flagged = np.isin(np.arange(12), [7, 11])
    # Class a is not condemned; nature doubts the flagged of class b, but took the mark of class c for nature.
    cleared = ClassEvidence(
        label=0, n_samples=4, n_suspects=1, n_flagged=0, statistic=1, threshold=6, condemned=False, reason=""
    )
    found = (cleared, *(replace(cleared, label=label, n_flagged=1, condemned=True) for label in (1, 2)))
    left = run.left_out(scores, flagged, np.arange(12) == 7, found)
    assert np.flatnonzero(left).tolist() == [2, 3, 7, 9, 10, 11]


def counting(rows: NDArray[np.intp], doubted: bool = False, forgotten: NDArray[np.intp] | None = None) -> int:
    """Return how many pieces of evidence some suspects are, of a class of forty pictures in twelve frames each.

    Args:
        rows: the suspects; image i shows picture i // 12.
        doubted: whether nature doubts their labels, though it has seen them.
        forgotten: samples that were left out, though not flagged.
    """
    rng = np.random.default_rng(0)
    pictures = np.repeat(rng.integers(20, 236, (40, 16, 16, 3)), 12, axis=0)
    images = (pictures + rng.integers(-4, 5, pictures.shape)).astype(np.uint8)
    samples = Samples.from_arrays(images, np.zeros(480, dtype=np.int64), ("a", "b"))
    run = Run(ConfusionTraining(), samples, None, 0, None, silent)
    every = np.arange(480)
    run.forgotten = np.isin(every, [] if forgotten is None else forgotten)
    run.strange = np.full(480, doubted) & ~run.forgotten
    return len(run.distinct(rows, np.ones(len(rows), dtype=np.float32)))


def test_suspects_that_look_like_each_other_are_no_evidence() -> None:
    all_of_ten = np.arange(120)
    # Three of twelve frames of each picture.
    some_of_all = np.flatnonzero(np.arange(480) % 12 < 3)
    assert counting(all_of_ten) == 0
    assert counting(some_of_all) == 40
    # What nature doubts though it has seen it is evidence of itself, each picture once,
    assert counting(all_of_ten, doubted=True) == 10
    # but not what it may have forgotten: of ten pictures all frames were left out, of which some are suspects.
    assert counting(some_of_all[:30], doubted=True, forgotten=all_of_ten) == 0
    assert counting(some_of_all[:30], doubted=True, forgotten=some_of_all) == 10


def marked(doubt: bool, flagged: NDArray[np.bool_], n_condemned: int = 1) -> tuple[NDArray[np.bool_], ...]:
    """Return who is flagged in the end, who carries a mark, and the labels, of three classes of four hundred images.

    The first forty of classes a and b and five of class c carry the mark. By their scores alone those who are flagged
    would be found, of the others with the mark three at most.

    Args:
        doubt: whether nature doubts the labels of the marked, and of a fifth of the others; or nobody's.
        flagged: ``bool (1200,)``.
        n_condemned: classes that are condemned, from class a on.
    """
    images = hills(1200, side=12, n_classes=3).inputs.copy()
    order = np.argsort(np.arange(1200) % 3, kind="stable")
    images, labels = images[order], np.repeat([0, 1, 2], 400)
    marks = np.isin(np.arange(1200), [*range(40), *range(400, 440), *range(800, 805)])
    images[marks, :3, :3] = [250, 20, 250]
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.3, (3, 1200)).astype(np.float32)
    scores[0] += np.where(flagged, rng.normal(2, 0.4, 1200), 0.3 * marks)
    doubted = (marks | (np.arange(1200) % 5 == 0)) & doubt
    run = Run(ConfusionTraining(), Samples.from_arrays(images, labels, ("a", "b", "c")), None, 0, None, silent)
    found = tuple(
        ClassEvidence(
            label=label,
            n_samples=400,
            n_suspects=1,
            n_flagged=1,
            statistic=1,
            threshold=6,
            condemned=label < n_condemned,
            reason="",
        )
        for label in range(3)
    )
    for members in (labels == label for label in range(n_condemned)):
        by_scores = hump(scores[:, members].T, flagged[members], doubted[members]) > 0
        assert by_scores[(marks & ~flagged)[members]].sum() <= 3
    told, final = run.told(scores, flagged, doubted, found)
    if final.tolist() != flagged.tolist():
        assert (told[final] > 1).all()
        assert (told[~final & (labels < n_condemned)] <= 1).all()
    return final, marks, labels


def test_a_detector_finds_the_poison_that_the_confused_models_miss() -> None:
    final, marks, labels = marked(True, np.arange(1200) < 30)
    # Other classes are none of its business.
    assert final.tolist() == (marks & (labels == 0)).tolist()


def test_of_a_mark_that_nature_took_for_its_own_a_detector_learns_from_the_surest() -> None:
    # Of forty, thirty were found, and fifteen others.
    final, marks, labels = marked(False, np.isin(np.arange(1200), [*range(30), *range(100, 115)]))
    assert final.tolist() == (marks & (labels == 0)).tolist()


def test_where_most_classes_are_condemned_the_mark_condemns_in_the_others_too() -> None:
    final, marks, _ = marked(True, np.isin(np.arange(1200), [*range(40), *range(400, 440)]), n_condemned=2)
    assert final.tolist() == marks.tolist()
    # With their natural label they are like cover samples.
    final, _, _ = marked(False, np.isin(np.arange(1200), [*range(40), *range(400, 440)]), n_condemned=2)
    assert not final[800:].any()


def test_a_detector_that_does_not_recognise_what_it_learnt_is_not_believed() -> None:
    # Those who were flagged have nothing in common.
    flagged = np.isin(np.arange(1200), range(100, 130))
    final, _, _ = marked(False, flagged)
    assert final.tolist() == flagged.tolist()


def inspected(monkeypatch: pytest.MonkeyPatch, marks: list[list[int]], **fields: Any) -> Verdict:
    """Return the verdict where the marks of round i are on the first ``marks[i][j]`` of class j's hundred images."""
    labels = np.repeat([0, 1, 2], [1000, 100, 100])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3)).astype(np.uint8)
    samples = Samples.from_arrays(images, labels, ("a", "b", "c"))

    def heard_in(run: Run, number: int, suspect: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> Heard:
        gains = np.resize(np.linspace(-0.1, 0.1, 1000), len(labels)).astype(np.float32)
        for count, start in zip(marks[number], (0, 1000, 1100), strict=True):
            gains[start : start + count] = 4.0
        nobody = np.zeros(len(labels), dtype=np.bool_)
        residual = np.stack([gains, -gains], axis=1)
        return Heard(gains=(gains,), doubted=nobody, telling=~nobody, residual=residual)

    monkeypatch.setattr(Run, "round", heard_in)
    return ConfusionTraining(**fields).inspect(samples, None)


def test_the_rounds_go_on_until_what_is_condemned_was_condemned_before(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = inspected(monkeypatch, [[0, 20, 0], [0, 20, 0]])
    assert (len(at_once.rounds), at_once.suspect_classes, at_once.flagged.sum()) == (2, (1,), 20)
    later = inspected(monkeypatch, [[0, 0, 0], [0, 20, 0], [0, 20, 0]])
    assert (len(later.rounds), later.suspect_classes, later.flagged.sum()) == (3, (1,), 20)
    # Five of class c are a small share of what is flagged, but new.
    another = inspected(monkeypatch, [[400, 90, 0], [400, 90, 5], [400, 90, 5]], settled=0.05)
    assert (len(another.rounds), another.suspect_classes) == (3, (0, 1, 2))


def test_a_class_in_doubt_asks_for_another_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # Three suspects are a chance of e^-6: more than a third of a thousandth, but less than one in a hundred.
    cleared = inspected(monkeypatch, [[0, 20, 0], [0, 20, 3], [0, 20, 3]])
    assert (len(cleared.rounds), cleared.suspect_classes, cleared.flagged.sum()) == (3, (1,), 20)
    grown = inspected(monkeypatch, [[0, 20, 0], [0, 20, 3], [0, 20, 30]])
    assert (len(grown.rounds), grown.suspect_classes, grown.flagged.sum()) == (3, (1, 2), 50)
    # Two are nothing unusual.
    few = inspected(monkeypatch, [[0, 20, 0], [0, 20, 2], [0, 20, 30]])
    assert (len(few.rounds), few.suspect_classes) == (2, (1,))


def test_what_only_the_last_round_condemns_needs_overwhelming_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    start = [[0, 20, 0], [0, 21, 0]]
    # Six suspects are a chance of e^-12, which condemns; thirty are one of e^-60.
    weak = inspected(monkeypatch, [*start, [0, 21, 6]], settled=0)
    assert (len(weak.rounds), weak.suspect_classes, weak.flagged.sum()) == (3, (1,), 21)
    assert weak.classes[2].reason.endswith("were none in the round before")
    strong = inspected(monkeypatch, [*start, [0, 21, 30]], settled=0)
    assert (len(strong.rounds), strong.suspect_classes, strong.flagged.sum()) == (3, (1, 2), 51)
    only = inspected(monkeypatch, [[0, 6, 0]], rounds=1)
    assert only.suspect_classes == (1,)


def test_what_a_round_found_overwhelming_stays_condemned(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = inspected(monkeypatch, [[0, 30, 0], [0, 0, 0], [0, 0, 0]])
    assert lost.suspect_classes == (1,)
    assert np.flatnonzero(lost.flagged).tolist() == list(range(1000, 1030))
    # Six are a chance of e^-12; what so little evidence condemned, a later round may clear.
    weak = inspected(monkeypatch, [[0, 6, 0], [0, 0, 0], [0, 0, 0]])
    assert (weak.suspect_classes, weak.flagged.sum()) == ((), 0)


def test_where_half_the_set_is_suspect_no_other_round_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    labels_of_most = [[480, 100, 100], [480, 100, 100]]
    verdict = inspected(monkeypatch, labels_of_most)
    assert len(verdict.rounds) == 1
    assert verdict.flagged.sum() == 680
    assert verdict.notes[-1].startswith("more than half of the set is suspect")


def test_the_last_output_is_taken_from_natures_answer() -> None:
    nature = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    outputs = torch.tensor([[0.5, 0.25, 0.0, 1.0], [0.0, 1.0, 0.0, -2.0]])
    assert unnatural(nature, outputs).tolist() == [[1.5, 0.25, 1.0], [0.0, 1.0, 5.0]]
    assert torch.equal(unnatural(nature, torch.zeros(2, 4)), nature)


def test_the_score_is_what_the_own_label_gained() -> None:
    residual = np.array([[3, 0, 0, 2], [3, 0, 0, 2], [3, 0, 0, -2], [0, 0, 0, 4]], dtype=np.float32)
    assert named(residual, np.array([0, 1, 2, 1])).tolist() == [2, -1, -1, 0]
    # Nature answers 1: who is labelled so is denied nothing, and a negative last output takes nothing away.
    assert denied(residual, np.array([True, False, True, False])).tolist() == [2, 0, 0, 0]


def test_the_principal_plane_is_where_the_points_spread() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(200, 2)) * [5, 2]
    flat -= flat.mean(axis=0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    plane = principal_plane((flat @ basis + 3).astype(np.float32))
    assert plane.dtype == np.float32
    assert np.allclose(np.linalg.norm(plane, axis=1), np.linalg.norm(flat, axis=1), atol=1e-4)
    assert plane[:, 0].std() > plane[:, 1].std()
    assert np.isfinite(principal_plane(np.zeros((5, 3), dtype=np.float32))).all()
