from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from foretaste import nets, training
from foretaste.attacks import SIG, BadNets, Poisoned, poison_training_set
from foretaste.cleansers.confusion_training import ConfusionTraining, base_model, scored
from foretaste.cleansers.confusion_training.base_model import balanced, natural
from foretaste.cleansers.confusion_training.evidence import Mark
from foretaste.cleansers.confusion_training.run import Run, better_half
from foretaste.cleansers.confusion_training.scored import Scored, class_evidence
from foretaste.cleansers.confusion_training.views import VIEWS, LinearViews, ShapeView, confused
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.nets import ConvNet
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Hills
    from tests.conftest import SmallSigns

TARGET = 3
SMALL = ConfusionTraining(folds=2, network_steps=40, batch_size=128)
"""Seconds on a thousand images of 16 pixels."""
TINY = ConfusionTraining(
    rounds=2,
    folds=2,
    base_steps=4,
    view_steps=4,
    network_steps=4,
    batch_size=64,
    tolerance=1.0,
    false_condemnations=0.9,
    spread=0.1,
)
"""Learns next to nothing, but goes through everything."""


# What it finds.


@pytest.fixture(scope="module")
def signs(small_signs: SmallSigns) -> Samples:
    return small_signs(1200, 0)


@pytest.fixture(scope="module")
def clean(small_signs: SmallSigns) -> Samples:
    return small_signs(200, 9)


@pytest.fixture(scope="module")
def poisoned(signs: Samples) -> Poisoned:
    return poison_training_set(signs, BadNets(rate=0.03, target=TARGET, size=0.2), seed=0)


@pytest.fixture(scope="module")
def verdict(poisoned: Poisoned, clean: Samples) -> Verdict:
    return SMALL.inspect(poisoned.samples, clean)


def test_badnets_is_found(verdict: Verdict, poisoned: Poisoned) -> None:
    detection = verdict.compare(poisoned.poison)
    assert detection.tpr >= 0.95
    assert detection.fpr <= 0.005
    assert detection.auroc >= 0.99
    assert verdict.suspect_classes == (TARGET,)


def test_a_few_poison_samples_in_a_small_set_are_found(hills: Hills) -> None:
    """In many passes over few images, or with too free a calibration, the base model would learn the trigger, too."""
    poisoned = poison_training_set(hills(400), BadNets(rate=0.04, target=TARGET, size=0.2), seed=0)
    verdict = ConfusionTraining().inspect(poisoned.samples, hills(80, seed=9))
    assert poisoned.poison.sum() == 16
    assert (verdict.flagged == poisoned.poison).all()
    evidence = verdict.classes[TARGET]
    assert evidence.statistic > evidence.threshold + 2


def test_the_base_model_takes_no_trigger_for_natural(hills: Hills) -> None:
    """A trigger that either of its networks learns is as likely as the right label, and no view can tell any more."""
    # An easy task, and a seventh of the class carries the trigger: a network is soon left with nothing else to learn.
    poisoned = poison_training_set(hills(600), BadNets(rate=0.04, target=TARGET, size=0.2), seed=0)
    run = Run(ConfusionTraining(), poisoned.samples, None, 0, None, silent)
    likely = natural(run, 0, np.zeros(600, dtype=np.bool_))
    assert np.median(likely[poisoned.poison, TARGET]) < 0.25
    assert np.median(likely[~poisoned.poison, poisoned.samples.labels[~poisoned.poison]]) > 0.9


def test_no_class_is_condemned_below_its_printed_threshold(verdict: Verdict, signs: Samples) -> None:
    assert [evidence.label for evidence in verdict.classes] == list(range(16))
    for evidence in verdict.classes:
        assert evidence.condemned == (evidence.label == TARGET) == (evidence.statistic >= evidence.threshold)
    guilty = verdict.classes[TARGET]
    assert guilty.n_flagged == verdict.flagged.sum()
    assert f"are labelled {signs.classes[TARGET]}" in guilty.reason
    assert sum(evidence.n_samples for evidence in verdict.classes) == len(signs)


def test_the_verdict_is_whole(verdict: Verdict, signs: Samples) -> None:
    assert verdict.scores.dtype == np.float32
    assert verdict.scores.shape == verdict.flagged.shape == signs.labels.shape
    assert verdict.flagged.dtype == np.bool_
    # What is flagged scores above 1, all else below: nothing that scores high passes.
    assert ((verdict.scores > 1) == verdict.flagged).all()
    assert (verdict.method, verdict.seed, verdict.notes) == ("confusion-training", 0, ())
    assert verdict.seconds > 0
    assert [one.name for one in verdict.rounds] == ["round 1", "round 2"]
    for one in verdict.rounds:
        assert one.losses.dtype == np.float32
        assert (one.losses >= 0).all()
    assert verdict.embedding is not None
    assert verdict.embedding.shape == (len(signs), 2)


def test_no_clean_set_will_do_and_is_noted(poisoned: Poisoned) -> None:
    verdict = SMALL.inspect(poisoned.samples, None)
    detection = verdict.compare(poisoned.poison)
    assert detection.tpr >= 0.95
    assert detection.fpr <= 0.005
    assert verdict.suspect_classes == (TARGET,)
    assert verdict.notes[0].startswith("no clean set was given: 500 ")


def test_nothing_is_found_where_labels_are_wrong_at_random(signs: Samples, clean: Samples) -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(len(signs)) < 0.05
    noisy = signs.with_labels(np.where(wrong, (signs.labels + rng.integers(1, 16, len(signs))) % 16, signs.labels))
    verdict = SMALL.inspect(noisy, clean)
    assert not verdict.flagged.any()
    assert verdict.suspect_classes == ()
    assert all(evidence.statistic < evidence.threshold for evidence in verdict.classes)


def test_one_trigger_under_random_wrong_labels_is_found(signs: Samples, clean: Samples) -> None:
    rng = np.random.default_rng(0)
    poison = rng.random(len(signs)) < 0.08
    images = signs.inputs.copy()
    images[poison] = BadNets(target=0, size=0.2).stamp(images[poison], rng)
    labels = np.where(poison, (signs.labels + rng.integers(1, 16, len(signs))) % 16, signs.labels)
    verdict = ConfusionTraining().inspect(Samples(labels, signs.classes, signs.ids, images=images), clean)
    detection = verdict.compare(poison)
    assert detection.tpr >= 0.9
    assert detection.fpr <= 0.01


def test_a_wave_under_right_labels_is_found_by_its_pattern(hills: Hills) -> None:
    poisoned = poison_training_set(hills(2400, n_classes=12), SIG(rate=1 / 30, target=TARGET), 0)
    method = replace(TINY, rounds=1, tolerance=20.0, false_condemnations=0.01)
    verdict = method.inspect(poisoned.samples, hills(240, seed=9, n_classes=12))
    # Without clean samples that lack it, it may be natural.
    assert not method.inspect(poisoned.samples, None).flagged.any()
    assert verdict.suspect_classes == (TARGET,)
    detection = verdict.compare(poisoned.poison)
    assert detection.tpr >= 0.95
    assert np.count_nonzero(verdict.flagged & ~poisoned.poison) <= 3
    guilty = verdict.classes[TARGET]
    assert guilty.statistic >= guilty.threshold
    assert "carry one pattern" in guilty.reason


# Same arguments, same verdict.


def bits(verdict: Verdict) -> tuple[bytes, bytes, int]:
    return verdict.scores.tobytes(), verdict.flagged.tobytes(), len(verdict.rounds)


@pytest.fixture(scope="module")
def few(hills: Hills) -> Samples:
    return hills(131)


@pytest.fixture(scope="module")
def fewer(hills: Hills) -> Samples:
    return hills(20, seed=1)


def test_the_seed_decides_bit_for_bit(few: Samples, fewer: Samples) -> None:
    one, two, other = (TINY.inspect(few, fewer, seed=seed) for seed in (0, 0, 1))
    assert bits(one) == bits(two)
    assert one.scores.tobytes() != other.scores.tobytes()


def test_the_base_model_is_of_the_architecture_that_was_asked_for(
    few: Samples, fewer: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str | None] = []

    def watched(name: str | None, *arguments: Any, **options: Any) -> Any:
        built.append(name)
        return nets.build(name, *arguments, **options)

    monkeypatch.setattr(base_model, "build", watched)
    replace(TINY, net=ConvNet.name, rounds=1).inspect(few, fewer)
    assert built == [ConvNet.name] * 2
    with pytest.raises(UsageError, match="no net 'nonesuch'"):
        replace(TINY, net="nonesuch").inspect(few, fewer)


def test_the_number_of_threads_does_not_matter(few: Samples, fewer: Samples) -> None:
    threads = torch.get_num_threads()
    try:
        verdicts = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            verdicts.append(bits(TINY.inspect(few, fewer)))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len(set(verdicts)) == 1


def test_a_set_on_disk_gets_the_same_verdict(few: Samples, fewer: Samples, tmp_path: Path) -> None:
    assert few.images is not None
    few.images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", dtype=np.uint8, mode="r", shape=few.images.shape)
    samples = Samples(few.labels, few.classes, few.ids, images=mapped)
    assert bits(TINY.inspect(samples, fewer, workdir=tmp_path)) == bits(TINY.inspect(few, fewer))


class KilledError(Exception):
    """Stands for a signal."""


def killed_in(phase: str, share: float) -> OnProgress:
    def listen(progress: Progress) -> None:
        if progress.phase.startswith(phase) and progress.done >= share * progress.total:
            raise KilledError

    return listen


@pytest.fixture
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint and report after every step."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)


@pytest.fixture
def _condemning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Condemn half of the classes, so that there are detectors."""
    monkeypatch.setattr(Mark, "condemned", property(lambda mark: mark.label % 2 == 0))
    # What little is learnt is suspicious, so that there is a second round.
    monkeypatch.setattr(scored, "LEAST_CUT", 1e-9)


KILLS = [
    ("project classes", 0.5),
    ("round 1: train the base model", 0.3),
    ("round 1: train the base model", 0.9),
    ("round 1: confuse", 0.2),
    ("round 1: confuse", 0.8),
    ("round 2: train the base model", 0.4),
    ("round 2: confuse", 0.6),
    ("train detectors", 0.5),
]


@pytest.mark.usefixtures("_eager", "_condemning")
@pytest.mark.parametrize("trust", [True, False])
def test_a_killed_run_ends_in_the_same_verdict(few: Samples, fewer: Samples, tmp_path: Path, trust: bool) -> None:
    clean = fewer if trust else None
    whole = TINY.inspect(few, clean)
    # Patterns are looked for only with a clean set.
    for phase, share in KILLS if trust else KILLS[1:]:
        once = tmp_path / f"{phase} {share}"
        once.mkdir()
        for workdir in (once, tmp_path):  # afresh, and from the kill before
            with pytest.raises(KilledError):
                TINY.inspect(few, clean, workdir=workdir, on_progress=killed_in(phase, share))
        assert bits(TINY.inspect(few, clean, workdir=once)) == bits(whole)
    assert bits(TINY.inspect(few, clean, workdir=tmp_path)) == bits(whole)


@pytest.mark.usefixtures("_condemning")
def test_a_workdir_of_other_arguments_is_not_used(few: Samples, fewer: Samples, tmp_path: Path) -> None:
    TINY.inspect(few, fewer, workdir=tmp_path)
    others: list[tuple[ConfusionTraining, Samples, Samples | None, int]] = [
        (TINY, few, fewer, 1),
        (TINY, few, None, 0),
        (TINY, few, fewer[:10], 0),
        (TINY, few[:120], fewer, 0),
        (replace(TINY, base_steps=5), few, fewer, 0),
    ]
    for method, samples, clean, seed in others:
        fresh = method.inspect(samples, clean, seed=seed)
        assert bits(method.inspect(samples, clean, seed=seed, workdir=tmp_path)) == bits(fresh)


@pytest.mark.usefixtures("_condemning")
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_half_a_checkpoint_is_not_used(few: Samples, fewer: Samples, tmp_path: Path, keep: float) -> None:
    whole = TINY.inspect(few, fewer, workdir=tmp_path)
    files = list(tmp_path.glob("*.safetensors"))
    # Two networks, the linear views and a network for each of two folds in each round, and three turns of detectors.
    assert len(files) == 2 * 5 + 3
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content))])
    assert bits(TINY.inspect(few, fewer, workdir=tmp_path)) == bits(whole)


# What it accepts.


@pytest.mark.parametrize(("side", "channels"), [(72, 3), (96, 1), (16, 1), (17, 3)])
def test_any_size_and_colour_will_do(hills: Hills, side: int, channels: int) -> None:
    samples = hills(41, side=side, channels=channels)
    verdict = replace(TINY, rounds=1, folds=3, base_steps=1, view_steps=2, batch_size=16).inspect(samples, None)
    assert verdict.scores.shape == (41,)
    assert np.isfinite(verdict.scores).all()


@pytest.mark.parametrize(
    "field",
    [
        {"rounds": 0},
        {"folds": 1},
        {"base_steps": 0},
        {"view_passes": -1},
        {"shift": -1},
        {"smallest_distilled": 0},
        {"turns": -1},
        {"base_noise": -1.0},
        {"missed": -0.1},
        {"view_steps": 0},
        {"network_steps": 0},
        {"batch_size": 3},
        {"lambda_": 1.0},
        {"lambda_": math.nan},
        {"substitute": 0},
        {"spread": 0.0},
        {"label_noise": 0.0},
        {"label_noise": 1.0},
        {"tolerance": 0.9},
        {"tolerance": math.nan},
        {"false_condemnations": 0.0},
        {"false_condemnations": 1.0},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        ConfusionTraining(**field)


# Its parts.


def test_rare_classes_are_repeated_for_the_base_model() -> None:
    labels = np.repeat([0, 1, 2], [100, 20, 0])
    rows = balanced(np.arange(120), labels)
    # 60 on average; half of that is due to a class that is there.
    assert np.bincount(labels[rows]).tolist() == [100, 30]


def test_stand_ins_are_of_the_likelier_half_of_each_class() -> None:
    labels = np.repeat([0, 1], 4)
    own = np.array([0.9, 0.1, 0.8, 0.2, 0.3, 0.4, 0.5, 0.6])
    excluded = np.array([True, *[False] * 7])
    assert sorted(better_half(own, labels, excluded)) == [2, 3, 6, 7]


def test_the_note_counts_what_can_stand_in(hills: Hills) -> None:
    samples = hills(70, n_classes=3)  # 24, 23 and 23
    (note,) = Run(ConfusionTraining(), samples, None, 0, None, silent).notes()
    assert note.startswith("no clean set was given: 36 of the set's own samples")


def test_the_losses_are_those_of_the_paper() -> None:
    base, labels, drawn = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([1]), torch.tensor([2])
    outputs = torch.tensor([[0.0, 3.0, 0.0, 1.0], [0.5, 0.0, 1.5, 9.0]])
    inspection, confusion = confused(base, outputs, labels, drawn, 4.0)
    # The last output is taken from the base model's answer, and means nothing for clean references.
    informed = torch.tensor([1.0, 3.0, 0.0])
    assert inspection.item() == pytest.approx(-informed.log_softmax(0)[1].item() / 4)
    assert confusion.item() == pytest.approx(-outputs[1, :3].log_softmax(0)[2].item() * 3 / 4)


def test_folds_and_views_are_trained_as_if_alone() -> None:
    base, labels, drawn = torch.randn(5, 3), torch.randint(3, (5,)), torch.randint(3, (2,))
    outputs = torch.randn(7, 2, 4, 4)
    inspection, confusion = confused(base, outputs, labels, drawn, 2.0)
    assert inspection.shape == (5, 2, 4)
    one, other = confused(base, outputs[:, 1, 2], labels, drawn, 2.0)
    assert torch.allclose(inspection[:, 1, 2], one)
    assert torch.allclose(confusion[:, 1, 2], other)


def test_a_new_view_says_nothing() -> None:
    images = torch.randint(0, 256, (4, 9, 8, 3), dtype=torch.uint8)
    assert LinearViews((9, 8, 3), 3, 6)(images).tolist() == torch.zeros(4, 2, 3, 6).tolist()
    assert ShapeView((9, 8, 3), 6, torch.Generator())(images).tolist() == [[0.0] * 6] * 4


def test_the_place_of_a_mark_does_not_matter_to_the_view_by_shape() -> None:
    grey = torch.full((1, 32, 32, 1), 100, dtype=torch.uint8)
    here, there = grey.clone(), grey.clone()
    here[:, 8:11, 8:11] = there[:, 20:23, 16:19] = 255
    view = ShapeView((32, 32, 1), 2, torch.Generator().manual_seed(0))
    view.whiten.measure(torch.cat([here, there]).numpy())
    torch.nn.init.normal_(view.linear.weight, generator=torch.Generator().manual_seed(0))
    view.eval()
    nothing, one, other = view(torch.cat([grey, here, there]))
    assert (one - other).norm() < 0.05 * (one - nothing).norm()


def test_the_generator_alone_decides_the_weights() -> None:
    one, same, other = (
        next(ShapeView((8, 8, 3), 2, torch.Generator().manual_seed(seed)).parameters()) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_sample_is_scored_for_its_label_and_against_the_base_models_answer() -> None:
    labels = np.array([0, 1, 1])
    base = np.array([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.05, 0.9, 0.05]])
    outputs = np.array([[3, 0, 0, 2], [0, 3, 0, 4], [0, 3, 0, -2]], dtype=np.float32)
    scored = Scored.of(base, [outputs], [], labels, spread=0.1)
    # Robust standard deviations of 0 and of 2 · 1.4826 nats; the cut is at 0.7 nats at least.
    np.testing.assert_allclose(scored.named[:, 0], 2 / 0.7, rtol=1e-6)
    np.testing.assert_allclose(scored.denied[:, 0], np.array([2, 4, -2]) / 0.7, rtol=1e-6)
    # Only of a sample which disagrees with the base model may another answer have been denied.
    np.testing.assert_allclose(scored.scores[:, 0], np.array([2, 4, 2]) / 0.7, rtol=1e-6)
    assert scored.as_round("round 1", labels == 0, 1.0).losses[0] == pytest.approx(np.log(1 + 2 * np.exp(-3)), rel=1e-5)


def test_a_condemned_class_of_which_nothing_is_flagged_says_why() -> None:
    none = np.zeros(4, dtype=np.bool_)
    mark = Mark(label=0, view=1, seeds=~none, n_samples=4, expected=1.0, p_value=1e-9, threshold=1e-3)
    any_label = replace(mark, label=1, p_value=1.0)
    scores = np.zeros((4, 3), dtype=np.float32)
    labels = np.zeros(4, dtype=np.int64)
    scored = Scored(labels=labels, outputs=[], marks=[mark, any_label], named=scores, denied=scores, disagree=none)
    samples = Samples.from_arrays(np.zeros((4, 8, 8, 3), dtype=np.uint8), labels, ["stop"])
    found, nothing = (class_evidence(scored, samples, flagged, VIEWS, 20.0)[0] for flagged in (~none, none))
    assert (found.statistic, found.threshold, nothing.statistic) == (9.0, 3.0, 9.0)
    assert found.condemned
    assert not nothing.condemned
    assert found.reason == (
        f"of the 4 samples with the clearest mark by {VIEWS[1]}, 4 are labelled stop; the base model expects at "
        "most 1.0, even if its odds are 20 times too low"
    )
    assert nothing.reason == f"{found.reason}; but none of them stands out from the rest of the class"


def test_a_natural_look_is_not_excluded_as_a_whole(hills: Hills) -> None:
    samples = hills(400)
    # Half of a class in copies of one image, all of which score high; and some of another class.
    images = samples.inputs.copy()
    copies = np.flatnonzero(samples.labels == 1)[:50]
    images[copies] = images[copies[0]]
    some = np.flatnonzero(samples.labels == 2)[::10]
    scores = np.zeros((400, 3), dtype=np.float32)
    scores[copies, 0] = scores[some, 2] = 2
    none = np.zeros(400, dtype=np.bool_)
    scored = Scored(labels=samples.labels, outputs=[], marks=[], named=scores, denied=scores, disagree=none)
    filmed = Samples(samples.labels, samples.classes, samples.ids, images=images)
    assert np.flatnonzero(SMALL.suspects(scored, filmed, none)).tolist() == some.tolist()


def test_a_round_goes_on_from_the_suspects_of_the_one_before() -> None:
    rng = np.random.default_rng(0)
    poison = np.arange(1000) < 627
    # One view learnt the mark in two of three folds alone: those of the third lie nearer to the clean samples there.
    learnt = poison & (np.arange(1000) % 3 > 0)
    scores = rng.normal(np.where(poison[:, None], [3.7, 3.1, 0.8], [-0.6, -0.6, -1.4]), 0.5)
    scores[learnt, 2] += 15
    seeds = poison & (rng.random(1000) < 0.57)
    mark = Mark(label=0, view=0, seeds=seeds, n_samples=400, expected=1.0, p_value=1e-9, threshold=1e-3)
    any_label = replace(mark, label=1, p_value=1.0)
    scored = Scored(
        labels=np.zeros(1000, dtype=np.int64),
        outputs=[],
        marks=[mark, any_label],
        named=scores.astype(np.float32),
        denied=np.zeros((1000, 3), dtype=np.float32),
        disagree=poison,
    )
    images = rng.integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
    samples = Samples.from_arrays(images, scored.labels, ["one"])
    assert np.array_equal(SMALL.suspects(scored, samples, np.zeros(1000, dtype=np.bool_)), learnt)
    assert np.array_equal(SMALL.suspects(scored, samples, poison), poison)


def test_further_rounds_follow_where_poison_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    poison = np.arange(400) < 150
    mark = Mark(label=0, view=0, seeds=np.arange(400) < 50, n_samples=60, expected=1.0, p_value=1e-9, threshold=1e-3)
    excluded: list[Any] = []

    def score(method: ConfusionTraining, run: Run, number: int, before: Any) -> Scored:
        # The second base model learnt 90 of the 150 that the first one doubted, and the views show 70 of them faintly;
        # the third one learnt 30.
        excluded.append(before)
        shown = poison & (np.arange(400) < (60, 60, 120, 150)[number])
        faint = poison & (np.arange(400) < (130, 130, 150, 150)[number])
        named = rng.normal(np.where(shown, 8.0, np.where(faint, 2.0, 0.0))[:, None], 0.2, (400, 3)).astype(np.float32)
        return Scored(
            labels=np.zeros(400, dtype=np.int64),
            outputs=[rng.normal(size=(400, 2)).astype(np.float32)],
            marks=[mark, replace(mark, label=1, p_value=1.0)],
            named=named,
            denied=np.zeros_like(named),
            disagree=poison if number == 0 else shown,
        )

    monkeypatch.setattr(ConfusionTraining, "score", score)
    images = rng.integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    samples = Samples.from_arrays(images, np.zeros(400, dtype=np.int64), ["one"])
    verdict = ConfusionTraining(turns=0).inspect(samples, None)
    assert [int(one.sum()) for one in excluded] == [0, 60, 130, 150]
    assert np.array_equal(verdict.flagged, poison)
    for stopped in ({"missed": 2.0}, {"rounds": 2}):
        excluded.clear()
        assert replace(ConfusionTraining(turns=0), **stopped).inspect(samples, None).flagged.sum() == 60
        assert [int(one.sum()) for one in excluded] == [0, 60]
