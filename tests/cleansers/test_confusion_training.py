from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste import training
from foretaste.attacks import Attack, BadNets, Poisoned, WaNet, poison_training_set
from foretaste.cleansers import confusion_training, parted_classes
from foretaste.cleansers.confusion_training import ConfusionTraining, likely_losses, principal_plane
from foretaste.cleansers.image_marks import ImageRun, cross_entropy
from foretaste.cleansers.judgement import Heard, Scores, judge, named
from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Mask, Samples
from foretaste.training import predict

if TYPE_CHECKING:
    from tests.cleansers.conftest import Hills
    from tests.conftest import SmallSigns

TARGET = 3
SMALL = ConfusionTraining(
    rounds=2, folds=2, base_fewest=1, base_steps=150, erasing_steps=40, epochs=1, steps=250, batch_size=128
)
"""Seconds on a thousand images of 16 pixels."""
TINY = ConfusionTraining(
    folds=2,
    rounds=2,
    base_fewest=1,
    base_steps=4,
    erasing_steps=4,
    epochs=1,
    steps=4,
    distilled_steps=4,
    detector_steps=4,
    batch_size=32,
    clean_batch_size=8,
)
"""Learns next to nothing, but goes through everything."""


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
def test_what_does_not_stay_at_its_place_is_found(
    monkeypatch: pytest.MonkeyPatch, attack: Attack, hills: Hills
) -> None:
    poisoned = poison_training_set(hills(1600), attack, 0)
    natural = 6 * np.eye(4, dtype=np.float32)[poisoned.original_labels]
    monkeypatch.setattr(ImageRun, "natural", lambda run, number, suspect: natural)
    verdict = replace(SMALL, rounds=1).inspect(poisoned.samples, hills(200, seed=9))
    detection = verdict.compare(poisoned.poison)
    assert detection.tpr >= 0.95
    assert detection.fpr <= 0.005


def test_a_mark_that_the_base_model_learnt_is_taken_off(signs: Samples, trusted: Samples, tmp_path: Path) -> None:
    poisoned = poison_training_set(signs, BadNets(rate=0.2, target=TARGET, size=0.2), 0)
    method = replace(SMALL, base_steps=500, base_most=60, erasing_steps=150)
    # With a folder for its checkpoints the base model is trained once.
    run = ImageRun(method, poisoned.samples, trusted, 0, tmp_path, silent)
    nobody = np.zeros(len(signs), dtype=np.bool_)
    known = predict(run.base(0, nobody), poisoned.samples.inputs)
    natural = run.natural(0, nobody)
    # With the four seeds that were tried the base model had learnt at least 98 % of the 240, of which at least 78 %
    # change, and of the others 0.1 % at most. Less natural than another label the target becomes for 97 % with this
    # seed and 70 % with another, but with two only for 23 %.
    assert (known.argmax(axis=1) == TARGET)[poisoned.poison].mean() >= 0.9
    assert (natural.argmax(axis=1) == TARGET)[poisoned.poison].mean() <= 0.5
    changed = (natural != known).any(axis=1)
    assert changed[poisoned.poison].mean() >= 0.5
    assert changed[~poisoned.poison].mean() <= 0.01
    # What changes is that the target becomes less likely, at least by what the bound stands for: four times.
    less = cross_entropy(natural, poisoned.samples.labels) - cross_entropy(known, poisoned.samples.labels)
    assert (natural - known)[changed & poisoned.poison, TARGET].max() < -math.log(0.25 * 16)
    assert less[changed & poisoned.poison].min() > 0


# Same arguments, same verdict.


def bits(verdict: Verdict) -> tuple[bytes, bytes, int]:
    return verdict.scores.tobytes(), verdict.flagged.tobytes(), len(verdict.rounds)


@pytest.fixture
def _condemning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every second of those be flagged whose label nature doubts, so that each part has a detector."""

    def judged(samples: Samples, heard: Heard, **bounds: float) -> tuple[Scores, Mask, tuple[ClassEvidence, ...]]:
        scores, _, evidence = judge(samples, heard, **bounds)
        # All far below the cut, lest half of so small a set be suspect.
        scores = (scores / 10).astype(np.float32)
        flagged = heard.doubted & (np.cumsum(heard.doubted) % 2 == 1)
        guilty = set(samples.labels[flagged])
        # Overwhelming evidence, which asks for no other round.
        found = (replace(entry, condemned=entry.label in guilty, statistic=100.0) for entry in evidence)
        return scores, flagged, tuple(found)

    monkeypatch.setattr(confusion_training, "judge", judged)


@pytest.fixture(scope="module")
def few(hills: Hills) -> Samples:
    return hills(131)


@pytest.fixture(scope="module")
def fewer(hills: Hills) -> Samples:
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
    ("round 1: erase", 0),
    ("round 1: erase", 3),
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
    trained = [progress for progress in seen if progress.phase != parted_classes.PHASE]
    assert len({progress.phase for progress in trained}) == len(trained) == 18
    assert all(progress.done == progress.total for progress in trained)


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
    assert len(files) == 18
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content))])
    assert bits(TINY.inspect(few, fewer, workdir=tmp_path)) == bits(whole)


# What it accepts.


@pytest.mark.parametrize(("side", "channels"), [(72, 3), (96, 1), (16, 1), (17, 3)])
def test_any_size_and_colour_will_do(hills: Hills, side: int, channels: int) -> None:
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
        {"erasing_steps": 0},
        {"epochs": 0},
        {"steps": 0},
        {"distilled_epochs": 0},
        {"distilled_steps": 0},
        {"detector_steps": 0},
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


# Its rounds.


def inspected(monkeypatch: pytest.MonkeyPatch, marks: list[list[int]], **fields: Any) -> Verdict:
    """Return the verdict where the marks of round i are on the first ``marks[i][j]`` of class j's hundred images."""
    labels = np.repeat([0, 1, 2], [1000, 100, 100])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3)).astype(np.uint8)
    samples = Samples.from_arrays(images, labels, ("a", "b", "c"))

    def heard_in(run: ImageRun, number: int, suspect: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> Heard:
        gains = np.resize(np.linspace(-0.1, 0.1, 1000), len(labels)).astype(np.float32)
        for count, start in zip(marks[number], (0, 1000, 1100), strict=True):
            gains[start : start + count] = 4.0
        nobody, nothing = np.zeros(len(labels), dtype=np.bool_), np.zeros_like(gains)
        residual = np.stack([gains, -gains], axis=1)
        return Heard(
            # By place; by shape and by sharpness there is nothing to see.
            gains=(gains, nothing, nothing),
            doubted=nobody,
            telling=~nobody,
            patterned=nobody,
            distinct=lambda rows, scores: scores,
            residual=residual,
        )

    monkeypatch.setattr(ImageRun, "round", heard_in)
    # Detectors find no mark in noise, however long they look.
    return ConfusionTraining(detector_steps=4, **fields).inspect(samples, None)


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
    # By e to the power of their gain in the round that found them.
    assert lost.classes[1].reason.endswith("this label 55 times likelier")
    # Six are a chance of e^-12; what so little evidence condemned, a later round may clear.
    weak = inspected(monkeypatch, [[0, 6, 0], [0, 0, 0], [0, 0, 0]])
    assert (weak.suspect_classes, weak.flagged.sum()) == ((), 0)


def test_where_half_the_set_is_suspect_no_other_round_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    labels_of_most = [[480, 100, 100], [480, 100, 100]]
    verdict = inspected(monkeypatch, labels_of_most)
    assert len(verdict.rounds) == 1
    assert verdict.flagged.sum() == 680
    assert verdict.notes[-1].startswith("more than half of the set is suspect")
    # What only the last round condemns needs overwhelming evidence there, too.
    crowded = inspected(monkeypatch, [[0, 60, 0], [560, 60, 6]])
    assert (len(crowded.rounds), crowded.suspect_classes) == (2, (0, 1))
    assert crowded.classes[2].reason.endswith("were none in the round before")


@pytest.mark.parametrize("n_classes", [2, 3, 43])
def test_the_loss_is_the_cross_entropy_if_the_other_labels_gained_nothing(n_classes: int) -> None:
    outputs = np.zeros((3, n_classes), dtype=np.float32)
    outputs[:, 0] = [0, 1, 4]
    labels = np.zeros(3, dtype=np.int64)
    assert likely_losses(named(outputs, labels), n_classes) == pytest.approx(cross_entropy(outputs, labels), rel=1e-4)


def test_the_note_counts_who_can_stand_in(hills: Hills) -> None:
    samples = hills(70, n_classes=3)  # 24, 23 and 23
    (note,) = ImageRun(ConfusionTraining(), samples, None, 0, None, silent).notes()
    assert note.startswith("no clean set was given: 36 of the set's own samples")


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
