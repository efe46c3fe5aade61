"""The whole story on synthetic traffic signs: poison, train, cleanse, guard, train again, inspect both models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foretaste import training
from foretaste.attacks import Attack, BadNets, poison_training_set, stamp_inputs, succeeded
from foretaste.classifiers import Classifier, open_classifier
from foretaste.cleansers import cleanse
from foretaste.guards import Guard
from foretaste.guards.guard import reconstructing
from foretaste.guards.neo import learn
from foretaste.guards.neo.registry import Registry
from foretaste.inspectors import inspect
from foretaste.inspectors.diagnosis import Diagnosis
from foretaste.io import write_parquet
from foretaste.io.signs import draw_signs
from foretaste.io.truth import Truth, write_truth
from foretaste.nets.export import export_onnx, save
from foretaste.progress import OnProgress, Progress, silent
from foretaste.report.results import save_cleanse
from foretaste.samples import Samples

N_TRAINING, N_TEST, N_CLEAN, N_INPUTS = 3000, 800, 320, 200
RATE = 0.02
ATTACK = BadNets(rate=RATE, target=0, size=0.15)
INSPECTOR = "debackdoor"
"""Shows the trigger, and needs nothing of a model but its answers."""
# Unshifted images and many epochs are what a small trigger needs to be learnt: the attacker's case, not ours.
PLAN = training.TrainingPlan(epochs=20, shift=0)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one model.

    Attributes:
        accuracy: share of the clean test inputs it gets right, in [0, 1].
        attack_success: share of the stamped victims on which the attack succeeds, in [0, 1].
        diagnosis: what the inspector says of it.
    """

    accuracy: float
    attack_success: float
    diagnosis: Diagnosis


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What the guard made of test inputs, some of them with the trigger.

    Attributes:
        n_inputs: how many there were.
        n_trojaned: inputs with the trigger.
        n_found: of these, those which the guard stopped.
        n_corrected: of these, those to which the right label was given in spite of the trigger.
        n_false_alarms: inputs without the trigger that it stopped.
    """

    n_inputs: int
    n_trojaned: int
    n_found: int
    n_corrected: int
    n_false_alarms: int


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the demo found.

    Attributes:
        before: the model trained on the poisoned set.
        after: the model trained on the cleansed set.
        n_samples: size of the poisoned set.
        n_poison: poison samples in it.
        n_found: poison samples that were flagged.
        n_false_alarms: other samples that were flagged.
        guarded: what the guard made of inputs of the first model.
        classes: the names of the K classes.
    """

    before: Outcome
    after: Outcome
    n_samples: int
    n_poison: int
    n_found: int
    n_false_alarms: int
    guarded: Guarded
    classes: tuple[str, ...]


def tell(out: Path, *, seed: int = 0, on_progress: OnProgress = silent) -> Story:
    """Poison 2 % of a set of synthetic signs with BadNets, cleanse it, guard the model, and train before and after.

    Both models are inspected.

    The trigger in the report is reconstructed from what was flagged, by asking the model that was trained before.

    Args:
        out: the folder for what ``foretaste poison``, ``train`` and ``cleanse`` leave; the two models are in ``before``
            and ``after``.
        seed: where all random numbers come from, at least 0.
        on_progress: called as the work goes on.

    Raises:
        ForetasteError: a file cannot be written.
    """
    phase = "draw traffic signs"
    on_progress(Progress(phase=phase, done=0, total=3))
    clean = draw_signs(N_TRAINING, seed=3 * seed)
    on_progress(Progress(phase=phase, done=1, total=3))
    test = draw_signs(N_TEST, seed=3 * seed + 1)
    on_progress(Progress(phase=phase, done=2, total=3))
    trusted = draw_signs(N_CLEAN, seed=3 * seed + 2)
    on_progress(Progress(phase=phase, done=3, total=3))

    poisoned = poison_training_set(clean, ATTACK, seed)
    write_parquet(poisoned.samples, out / "train.parquet")
    truth = Truth.of_training_set(poisoned.samples, poisoned.poison, poisoned.cover, poisoned.original_labels)
    write_truth(truth, out / "truth.json")

    backdoored = trained(poisoned.samples, seed, out / "before", on_progress)
    verdict = cleanse(poisoned.samples, trusted, seed=seed, on_progress=on_progress)
    registry = learn(poisoned.samples[verdict.flagged], backdoored, trusted, seed=seed, on_progress=on_progress)
    save_cleanse(
        out,
        poisoned.samples,
        verdict,
        source=f"synthetic traffic signs, {RATE:.0%} of them poisoned with BadNets",
        settings={},
        clean_size=len(trusted),
        truth_poison=poisoned.poison,
        truth_cover=poisoned.cover,
        registry=registry,
    )
    guarded = guard(backdoored, registry, trusted, test[:N_INPUTS], ATTACK, seed, on_progress)
    safe = trained(poisoned.samples[~verdict.flagged], seed, out / "after", on_progress)
    before, after = (
        outcome_of(model, test, trusted, ATTACK, seed, named(f"inspect {name}", on_progress))
        for name, model in (("before", backdoored), ("after", safe))
    )
    return Story(
        before=before,
        after=after,
        n_samples=len(poisoned.samples),
        n_poison=int(poisoned.poison.sum()),
        n_found=int((verdict.flagged & poisoned.poison).sum()),
        n_false_alarms=int((verdict.flagged & ~poisoned.poison).sum()),
        guarded=guarded,
        classes=clean.classes,
    )


def guard(
    classifier: Classifier,
    registry: Registry,
    trusted: Samples,
    inputs: Samples,
    attack: Attack,
    seed: int,
    on_progress: OnProgress,
) -> Guarded:
    """Screen inputs, a tenth of them stamped, with the triggers that the poison showed."""
    stamped, trojaned = stamp_inputs(inputs, attack, rate=0.1, seed=seed)
    keeper = Guard(classifier, trusted, seed=seed, on_progress=on_progress)
    finder = reconstructing(keeper.screener)
    if finder is not None:
        finder.registry = finder.registry.merge(registry)
    screening = keeper.screen(stamped.inputs, on_progress)
    found = screening.trojaned & trojaned
    return Guarded(
        n_inputs=len(inputs),
        n_trojaned=int(trojaned.sum()),
        n_found=int(found.sum()),
        n_corrected=int((screening.corrected == inputs.labels)[found].sum()),
        n_false_alarms=int((screening.trojaned & ~trojaned).sum()),
    )


def trained(samples: Samples, seed: int, out: Path, on_progress: OnProgress) -> Classifier:
    """Train a model on the samples, write it to ``out``, and open its ONNX file."""
    net = training.train(samples, plan=PLAN, seed=seed, on_progress=named(f"train {out.name}", on_progress)).net
    save(net, out / "model.safetensors")
    export_onnx(net, out / "model.onnx")
    return open_classifier(out / "model.onnx")


def outcome_of(
    model: Classifier, test: Samples, trusted: Samples, attack: Attack, seed: int, on_progress: OnProgress
) -> Outcome:
    """Try the attack on a model, and inspect it."""
    stamped, trojaned = stamp_inputs(test, attack, rate=1, seed=seed)
    fooled = model.classify(stamped.inputs[trojaned]).labels
    success = succeeded(attack, fooled, test.labels[trojaned], len(test.classes))
    return Outcome(
        accuracy=float(np.mean(model.classify(test.inputs).labels == test.labels)),
        attack_success=float(np.mean(success)),
        diagnosis=inspect(model, trusted, method=INSPECTOR, seed=seed, on_progress=on_progress),
    )


def named(name: str, on_progress: OnProgress) -> OnProgress:
    """Return a listener that puts a name before each phase, so that the two trainings have bars of their own."""
    return lambda report: on_progress(
        Progress(phase=f"{name}: {report.phase}", done=report.done, total=report.total, note=report.note)
    )
