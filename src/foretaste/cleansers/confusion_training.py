"""Confusion Training: train a model that can learn nothing but the backdoor, and see whom it knows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor, nn

from foretaste.cleansers.confused_models import ConfusedModel, Heard, Whiten, detector, moving, placed, resampled
from foretaste.cleansers.feature_marks import FeatureRun
from foretaste.cleansers.judgement import HUMP, Scores, confirm, counted, credible, hump, in_doubt, judge, standing
from foretaste.cleansers.near_duplicates import NearDuplicates
from foretaste.cleansers.verdict import ClassEvidence, Round, Verdict
from foretaste.nets import build
from foretaste.nets.net import Standardise
from foretaste.progress import OnProgress, silent
from foretaste.samples import Mask, Samples
from foretaste.training import (
    SGD,
    Batches,
    Compute,
    DeviceSet,
    TrainingPlan,
    augment,
    check,
    cutmix,
    draws,
    fingerprint,
    noisy,
    optimise,
    permutation,
    predict,
)

PREDICTED_AT_ONCE = 500
SHIFT = 3
"""The base model sees images moved by up to this many pixels each way."""
NOISE = 20
"""Standard deviation of the noise in the base model's first round, in values of 0 to 255."""

LEFT_OUT = 0.75
"""In classes that are not condemned, who scores above this is left out of the next base model; the cut is at 1."""
LEFT_OUT_OF_LEARNT = 0.5
"""The same, in condemned classes whose mark the base model took for nature."""

DETECTOR_BATCH = 64, 32, 96
"""Samples in a step of a detector: flagged ones, others of their classes, and samples of other classes."""
SURE = (0.7, 0.7), (0.7, 0.7), (0.7, 0.7), (1.0, 0.9), (1.0, 0.9), (1.0, 0.9)
"""The shares of poison and of the others in its class that each turn of a detector learns from: the surest."""
RECOGNISED = 0.9
"""A detector is not believed if it recognises less than this share of what it learnt from."""

FEWEST_NATURAL = 2000
"""Samples with natural labels in the distilled set, if the set holds so many."""
KINDS = "place", "shape", "sharpness"
"""What the confused models go by."""
PLACE, SHAPE, SHARPNESS = range(3)
NETWORK_SGD = SGD(learning_rate=0.05, momentum=0.9, weight_decay=5e-4)
"""The optimiser of the convolutional confused models."""


@dataclass(frozen=True, kw_only=True)
class ConfusionTraining:
    """Find poison with a model that can learn nothing but the backdoor (Qi et al. 2023, arXiv:2205.13616).

    Each round has three steps.

    1. A *base model* is trained briefly on what is not suspect yet, in the first round on images with noise, or with
       pieces of others, which hide a trigger better than nature. It says which label is natural.
    2. *Confused models* are trained on the set's own labels, robbed of nature twice over. Their output is added to the
       base model's, so that nothing is gained by repeating what nature says; and every batch brings clean samples with
       random labels, so that what clean features say is unlearnt. What they can still gain by is a mark that goes with
       a label for no natural reason: a trigger. One kind is linear in each pixel's difference from its neighbours, and
       sees marks that stay at their place; its last output is for marks that go with *any* unnatural label, as in
       all-to-all attacks. Another is linear in how sharp the image is at each pixel, and sees warps. The third is
       convolutional, for marks that move about or differ from image to image. It is trained on the *distilled* set: the
       samples whose label is not what nature says, and as many others.
    3. Every sample is *scored* by confused models that were trained without it: by how many times its own label has
       become likelier. Memory helps nobody here; only a mark that others share does.

    Flagged samples are left out of the next round's base model, and so are images that score high, in classes that are
    not condemned or whose mark it took for nature. So it unlearns what it knew of the trigger. That brings out poison
    whose label is right, too, if all of it carries one mark: the first base model takes the mark for nature, the next
    knows less of it. The rounds end when the verdict no longer moves and no class is in doubt; what only the last
    condemns needs, together with the round before, twice the evidence.

    In the end a *detector* learns to tell the flagged from the rest, and judges the condemned classes out of fold. What
    it says is weighed with the scores; where nature took the mark for its own, it decides.

    It differs from the paper in three ways, each because it measured better on the sets it was developed on: nature is
    also taken out by subtraction, not by confusion alone; samples are judged out of fold; and the confused models are
    small and new instead of a trained classifier, so that they learn a trigger from a few dozen poison samples in
    seconds. The price: poison that keeps its natural label and looks natural gains little, and is often not found.

    For feature vectors both models are made of decision trees; see ``feature_marks``.

    Attributes:
        rounds: at most this many, ≥ 1. What only the last one condemns needs twice the evidence, together with the one
            before, if there is one.
        folds: parts of the set that are judged by models that never saw them, ≥ 2.
        base_steps: steps of the base model, ≥ 1, within the next two bounds.
        base_fewest: passes of the base model over the set at least, ≥ 1.
        base_most: passes at most, ≥ ``base_fewest``: on a small set more of them would teach it the trigger as nature.
        epochs: passes of each linear confused model over the set, ≥ 1.
        steps: it takes at least this many steps, ≥ 1.
        distilled_epochs: passes of each convolutional confused model over the distilled set, ≥ 1.
        distilled_steps: it takes at most this many steps, ≥ 1.
        detector_steps: steps of a detector, ≥ 1.
        batch_size: samples of the set in a step of a linear confused model, ≥ 2; a convolutional one takes half.
        clean_batch_size: clean samples in a step, ≥ 1.
        lambda_: the loss is ((λ − 1) · confusion + inspection) / λ; above 1.
        learning_rate: a linear confused model's highest, > 0.
        weight_decay: a linear confused model's, ≥ 0.
        substitute: how many of the set's own, most natural samples stand in for a missing clean set, ≥ 1.
        spread: a sample is a suspect if it scores above this many standard deviations of the scores, > 0. The standard
            deviation is a robust one, from the median absolute deviation, which poison hardly moves.
        gain: and if its own label became more than e^gain times likelier, by default twice; > 0.
        significance: a class is condemned by how unlikely its suspects are to be the tail of the clean samples' scores,
            with near-duplicates counted once, and what only looks like other suspects not at all; of the classes that a
            round condemns this share at most is expected to be clean, in (0, 1).
        settled: the rounds end when this share of the flagged samples or less changed, in [0, 1], each condemned class
            was condemned in the round before, too, and the suspects of no other are less likely than one in a hundred.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "confusion-training"
    summary: ClassVar[str] = "trains a model that can learn nothing but the backdoor (arXiv:2205.13616)"

    rounds: int = 3
    folds: int = 3
    base_steps: int = 600
    base_fewest: int = 3
    base_most: int = 20
    epochs: int = 4
    steps: int = 400
    distilled_epochs: int = 10
    distilled_steps: int = 400
    detector_steps: int = 300
    batch_size: int = 256
    clean_batch_size: int = 64
    lambda_: float = 2.0
    learning_rate: float = 0.02
    weight_decay: float = 1e-3
    substitute: int = 500
    spread: float = 4.0
    gain: float = 0.7
    significance: float = 1e-3
    settled: float = 0.02

    def __post_init__(self) -> None:
        counts = (
            "rounds",
            "base_steps",
            "base_fewest",
            "epochs",
            "steps",
            "distilled_epochs",
            "distilled_steps",
            "detector_steps",
            "clean_batch_size",
            "substitute",
        )
        for name in counts:
            check(getattr(self, name) >= 1, f"{name} must be 1 or more")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.folds >= 2, "folds must be 2 or more")
        check(self.base_most >= self.base_fewest, "base_most must not be below base_fewest")
        check(self.lambda_ > 1, "lambda_ must be above 1")
        check(self.spread > 0 and self.gain > 0, "spread and gain must be above 0")
        check(0 < self.significance < 1, "significance must be in (0, 1)")
        check(0 <= self.settled <= 1, "settled must be in [0, 1]")
        self.sgd()

    def sgd(self) -> SGD:
        """Return the optimiser of the linear confused models."""
        return SGD(learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    def inspect(
        self,
        samples: Samples,
        clean: Samples | None,
        *,
        seed: int = 0,
        workdir: Path | None = None,
        on_progress: OnProgress = silent,
    ) -> Verdict:
        """Judge every sample; arguments as for every ``Cleanser``."""
        start = time.perf_counter()
        run: Run | FeatureRun
        if samples.features is None:
            run = Run(self, samples, clean, seed, workdir, on_progress)
        else:
            run = FeatureRun(samples, clean, self.folds, seed, on_progress)
        flagged = np.zeros(len(samples), dtype=np.bool_)
        suspect = flagged
        evidence: tuple[ClassEvidence, ...] = ()
        notes = run.notes()
        rounds: list[Round] = []
        for number in range(self.rounds):
            began = time.perf_counter()
            heard = run.round(number, suspect, flagged)
            before, evidence_before = flagged, evidence
            scores, flagged, evidence = judge(
                samples, heard, run.distinct, spread=self.spread, gain=self.gain, significance=self.significance
            )
            flagged, evidence = standing(flagged, evidence, before, evidence_before, samples.labels)
            suspect = run.left_out(scores, flagged, heard.doubted, evidence)
            losses = np.log1p((len(samples.classes) - 1) * np.exp(-np.max(heard.gains, axis=0))).astype(np.float32)
            seconds = time.perf_counter() - began
            rounds.append(Round(name=f"round {number + 1}", losses=losses, kept=flagged, seconds=seconds))
            moved, found = np.count_nonzero(flagged != before), np.count_nonzero(flagged)
            crowded = np.count_nonzero(suspect) > len(samples) / 2
            if crowded:
                notes += (
                    "more than half of the set is suspect; the rest cannot teach what is natural, so no other round "
                    "was asked",
                )
                break
            confirmed = confirm(evidence, evidence_before)
            # In the first round nature may be known too little to find anything.
            still = moved <= self.settled * found and confirmed == evidence
            if (number > 0 and still and not in_doubt(evidence)) or number == self.rounds - 1:
                evidence = confirmed
                break
        flagged = flagged & np.array([entry.condemned for entry in evidence])[samples.labels]
        told = scores.max(axis=0)
        if not crowded:
            told, flagged = run.told(scores, flagged, heard.doubted, evidence)
        return Verdict(
            scores=told,
            flagged=flagged,
            classes=counted(evidence, samples, flagged, np.max(heard.gains, axis=0)),
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - start,
            notes=notes,
            rounds=tuple(rounds),
            embedding=principal_plane(heard.residual),
        )


class Run:
    """One inspection of images: what its rounds have in common."""

    def __init__(
        self,
        method: ConfusionTraining,
        samples: Samples,
        clean: Samples | None,
        seed: int,
        workdir: Path | None,
        on_progress: OnProgress,
    ) -> None:
        self.method, self.samples, self.clean, self.seed = method, samples, clean, seed
        self.workdir, self.on_progress = workdir, on_progress
        self.compute = Compute()
        self.data = DeviceSet(samples, self.compute.device)
        # Every model of a kind sees the inputs on the same scale.
        scale, colours = Standardise(samples.sample_shape), Whiten(samples.sample_shape[2])
        scale.measure(samples.inputs)
        colours.measure(samples.inputs)
        self.scale, self.colours = scale.state_dict(), colours.state_dict()
        self.key = self.round_key = fingerprint(samples, "no clean set" if clean is None else clean, method, seed)
        self.duplicates = NearDuplicates(samples)
        # Of the round: who is left out to be safe, and who is doubted for other reasons.
        self.forgotten = self.strange = np.zeros(len(samples), dtype=np.bool_)
        # Which part of the set each sample is in; the model of a fold is trained on the other parts.
        self.fold = permutation(len(samples), seed, 0).numpy() % method.folds

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if self.clean is not None:
            return ()
        count = min(self.method.substitute, len(self.samples))
        return (
            f"no clean set was given: {count:,} of the set's own samples, those whose label looked most natural, "
            "stood in for it",
        )

    def checkpoint(self, name: str) -> Path | None:
        """Return the file that a phase keeps its state in."""
        return None if self.workdir is None else self.workdir / f"{name}.safetensors"

    def round(self, number: int, suspect: Mask, flagged: Mask) -> Heard:
        """Return what the confused models say of every sample, out of fold.

        Args:
            number: from 0.
            suspect: ``bool (N,)``, whom the round's base model is not trained on.
            flagged: ``bool (N,)``, who of them was flagged.
        """
        # Checkpoints of another verdict on the round before are not gone on with.
        self.round_key = fingerprint(self.key, suspect.tobytes())
        natural = self.natural(number, suspect)
        doubted = natural.argmax(axis=1) != self.samples.labels
        self.forgotten = suspect & ~flagged
        self.strange = doubted & ~self.forgotten
        confusing = self.clean_set(natural, suspect, number)
        distilled = self.distilled(doubted, number)
        n, n_classes = natural.shape
        by_place, by_shape, by_sharpness = (np.empty((n, n_classes + 1), dtype=np.float32) for _ in range(3))
        for fold in range(self.method.folds):
            others, judged = self.fold != fold, np.flatnonzero(self.fold == fold)
            for residual, model in (
                (by_place, self.linear(number, fold, PLACE, others, natural, confusing)),
                (by_shape, self.convolutional(number, fold, others & distilled, natural, confusing)),
                (by_sharpness, self.linear(number, fold, SHARPNESS, others, natural, confusing)),
            ):
                self.answers(model, judged, residual)
        labels = self.samples.labels
        # Among samples whose label is not natural, a convolutional model soon knows by their looks that they are such.
        # So its last output says little.
        gains = (
            named(by_place, labels) + denied(by_place, doubted),
            named(by_shape, labels),
            named(by_sharpness, labels) + denied(by_sharpness, doubted),
        )
        # A mark at its place tells even where nature took it for its own; other looks that are natural do not.
        telling = np.stack([np.ones_like(doubted), doubted, doubted])
        return Heard(gains=gains, doubted=doubted, telling=telling, residual=by_place)

    def distinct(self, rows: NDArray[np.intp], scores: Scores) -> Scores:
        """Return the scores of the suspects of one class that count as evidence.

        Frames of one video count once. Looks count not at all: of a class's suspects whose labels are natural, or
        doubted when nature may have forgotten them, those that look like each other. A mark that nature took for its
        own is on images of all looks.
        """
        chosen = self.forgotten.copy()
        chosen[rows] = True
        counts = self.strange[rows]
        counts[~counts] = ~self.duplicates.gathered(rows[~counts], chosen)
        return self.duplicates.highest(rows[counts], scores[counts])

    def left_out(self, scores: Scores, flagged: Mask, doubted: Mask, evidence: tuple[ClassEvidence, ...]) -> Mask:
        """Tell whom the next round's base model is not trained on, ``bool (N,)``.

        The flagged, and of the others some that score high; leaving out more would make the base model forget rare but
        natural looks, which then look like marks. Who is only oddly sharp or blurred stays: that is the camera's doing
        more often than a mark's. Where a mark is nature to it, as in a class of which most of the flagged have
        their natural label, more are left out, because a few would teach it the mark again.

        Args:
            scores: per kind of model those of N samples, ``(kinds, N)``.
            flagged: ``bool (N,)``, who is taken for poison.
            doubted: ``bool (N,)``, those whose label is not what nature says.
            evidence: per class.
        """
        labels = self.samples.labels
        least = np.full(len(evidence), LEFT_OUT)
        for entry in evidence:
            if entry.condemned:
                learnt = was_learnt(flagged & (labels == entry.label), doubted)
                least[entry.label] = LEFT_OUT_OF_LEARNT if learnt else np.inf
        left: Mask = flagged | (scores[:SHARPNESS] > least[labels]).any(axis=0)
        return left

    def told(
        self, scores: Scores, flagged: Mask, doubted: Mask, evidence: tuple[ClassEvidence, ...]
    ) -> tuple[Scores, Mask]:
        """Return the final score of every sample, ``float32 (N,)``, and who is flagged, ``bool (N,)``.

        In condemned classes a detector has its say: it learns to tell the flagged from all others, and judges out of
        fold. What it says goes beside the scores. But of a mark that nature took for its own the scores know little,
        and half of the flagged may be clean. There the detector learns from those alone of whom it is sure, says who is
        poison, and learns again. Where most classes are condemned, the mark goes with any label; so in the others who
        carries it and has no natural label is poison, too.

        The flagged score above 1, the others of their classes do not.

        Args:
            scores: per kind of model those of N samples, ``(kinds, N)``.
            flagged: ``bool (N,)``, who is taken for poison.
            doubted: ``bool (N,)``, those whose label is not what nature says.
            evidence: per class.
        """
        labels, highest = self.samples.labels, scores.max(axis=0)
        condemned = [labels == entry.label for entry in evidence if entry.condemned]
        plain: list[Mask] = []
        learnt: list[Mask] = []
        for members in condemned:
            (learnt if was_learnt(members & flagged, doubted) else plain).append(members)
        odds = np.zeros(len(labels))
        if plain:
            n_present = sum(entry.n_samples > 0 for entry in evidence)
            judged = np.logical_or.reduce(plain) | (len(plain) > n_present / 2)
            heard = self.recognised((0, 0), judged, judged & flagged, ~flagged)
            odds = np.where(doubted, heard.clip(0), 0).astype(np.float64)
            for members in plain:
                start, doubtful, own = flagged[members], doubted[members], heard[members]
                fitted = hump(np.column_stack([scores[:, members].T, own]), start, doubtful)
                likely = credible(highest[members], start, doubtful) | (own > 0)
                # The scores of poison whose label is natural after all say little.
                marked = ~doubtful & (own > max(0, HUMP * float(np.median(own[start]))))
                odds[members] = np.where(marked, np.maximum(fitted, own), np.where(likely, fitted, 0))
        for place, members in enumerate(learnt, 1):
            odds[members] = self.purified(place, members, flagged, highest)[members]
        told, found = highest.astype(np.float32), flagged.copy()
        for members in (labels == entry.label for entry in evidence):
            poison = odds[members] > 0
            # Otherwise, if the class is condemned, this is not for nothing, and the detector knows nothing.
            if poison.any():
                found[members] = poison
                told[members] = np.where(poison, 1 + np.log1p(odds[members].clip(0)), highest[members].clip(max=1))
        return told, found

    def purified(self, place: int, members: Mask, flagged: Mask, sureness: Scores) -> Scores:
        """Return the log odds of poison for the members of a class whose mark nature took for its own.

        They are 0, as all others' are, if the detector does not recognise what it learnt from.

        Args:
            place: from 1, another for each class.
            members: ``bool (N,)``, the class's samples.
            flagged: ``bool (N,)``, who is taken for poison, in all classes.
            sureness: orders the members, ``(N,)``.
        """
        poison, strangers, nothing = members & flagged, ~members & ~flagged, np.zeros_like(sureness)
        for turn, (of_poison, of_others) in enumerate(SURE):
            others = members & ~poison
            if not poison.any() or not others.any():
                return nothing
            learnt = poison & (sureness >= np.quantile(sureness[poison], 1 - of_poison))
            clean = others & (sureness <= np.quantile(sureness[others], of_others))
            sureness = self.recognised((place, turn), members, learnt, clean | strangers)
            poison = members & (sureness > 0)
        return sureness if poison[learnt].mean() >= RECOGNISED else nothing

    def recognised(self, place: tuple[int, int], members: Mask, poison: Mask, clean: Mask) -> Scores:
        """Return the log odds of poison for the members by detectors that were trained without them; 0 for all others.

        Clean samples of other classes tell the mark from the looks of those that carry it.

        Args:
            place: names the phase, the checkpoints and the random numbers.
            members: ``bool (N,)``, samples of condemned classes, to judge.
            poison: ``bool (N,)``, those of them to recognise.
            clean: ``bool (N,)``, what to tell them from, of all classes.
        """
        odds = np.zeros(len(members), dtype=np.float32)
        for fold in range(self.method.folds):
            others = self.fold != fold
            if (poison & others).any():
                model = self.detecting((*place, fold), members & others, poison & others, clean & others)
                self.answers(model, np.flatnonzero(members & ~others), odds[:, None])
        return odds

    def detecting(self, place: tuple[int, int, int], members: Mask, poison: Mask, clean: Mask) -> ConfusedModel:
        """Train a detector; arguments as for ``recognised``, of one part's others, with the part's number in place."""
        compute, (number, turn, fold) = self.compute, place
        groups = [np.flatnonzero(group) for group in (poison, clean & members, clean & ~members)]
        sizes = [(torch.from_numpy(rows), size) for rows, size in zip(groups, DETECTOR_BATCH, strict=True) if len(rows)]
        sought = torch.from_numpy(poison)

        def loss_of_step(net: nn.Module, step: int) -> Tensor:
            chance = draws(self.seed, 15, *place, step)
            drawn = [rows[torch.randint(len(rows), (size,), generator=chance)] for rows, size in sizes]
            chosen = compute.share(torch.cat(drawn))
            logits = net(self.data.batch(chosen)[0])[:, 0]
            return nn.functional.binary_cross_entropy_with_logits(logits, sought[chosen].to(logits))

        model = detector(self.samples.sample_shape).to(compute.device)
        model.whiten.load_state_dict(self.colours)
        again = f" again, {turn + 1} of {len(SURE)}" if number else ""
        optimise(
            model,
            loss_of_step,
            steps=self.method.detector_steps,
            sgd=self.method.sgd(),
            compute=compute,
            phase=f"recognise the mark{again}, part {fold + 1} of {self.method.folds}",
            on_progress=self.on_progress,
            checkpoint=self.checkpoint(f"detector-{number}-{turn}-{fold}"),
            key=fingerprint(self.round_key, poison.tobytes(), clean.tobytes()),
        )
        return model.eval()

    def answers(self, model: ConfusedModel, rows: NDArray[np.intp], outputs: NDArray[np.float32]) -> None:
        """Put the model's outputs for these samples into ``outputs``."""
        for start in range(0, len(rows), PREDICTED_AT_ONCE):
            some = rows[start : start + PREDICTED_AT_ONCE]
            outputs[some] = model.outputs(self.data.batch(torch.from_numpy(some))[0])

    def distilled(self, doubted: Mask, number: int) -> Mask:
        """Return the samples whose label is not natural and as many others, at least ``FEWEST_NATURAL``."""
        others = np.flatnonzero(~doubted)
        count = min(max(np.count_nonzero(doubted), FEWEST_NATURAL), len(others))
        mask = doubted.copy()
        mask[others[permutation(len(others), self.seed, 200 + number).numpy()[:count]]] = True
        return mask

    def natural(self, number: int, suspect: Mask) -> NDArray[np.float32]:
        """Train the round's base model on what is not suspect, and return its logits for every sample."""
        method, samples = self.method, self.samples
        rows = torch.from_numpy(evened(np.flatnonzero(~suspect), samples.labels))
        plan, compute = TrainingPlan(), self.compute
        batches = Batches(len(rows), plan.batch_size, self.seed)
        fewest, most = method.base_fewest * batches.per_epoch, method.base_most * batches.per_epoch
        steps = min(max(method.base_steps, fewest), most)

        def loss_of_step(net: nn.Module, step: int) -> Tensor:
            inputs, labels = self.data.batch(compute.share(rows[batches(step)]))
            chance = draws(self.seed, 14, number, step, compute.rank)
            # Moving images by a few pixels makes small marks hard to learn, pieces of other images make large ones
            # hard, and noise faint ones; but with them nature is learnt less well, too. Once the worst is out, pieces
            # and noise are left away.
            inputs = augment(inputs, chance, shift=SHIFT, flip=False)
            if number:
                return nn.functional.cross_entropy(net(inputs), labels)
            if step % 2:
                return nn.functional.cross_entropy(net(noisy(inputs, chance, NOISE)), labels)
            mixed, others, share = cutmix(inputs, chance)
            outputs = net(mixed)
            own, pasted = (nn.functional.cross_entropy(outputs, some) for some in (labels, labels[others]))
            return share * own + (1 - share) * pasted

        net = build(None, samples.sample_shape, samples.classes, generator=draws(self.seed, 10, number))
        net.preprocess.load_state_dict(self.scale)
        optimise(
            net,
            loss_of_step,
            steps=steps,
            sgd=plan.sgd(),
            compute=compute,
            phase=f"round {number + 1}: learn what is natural",
            on_progress=self.on_progress,
            checkpoint=self.checkpoint(f"natural-{number}"),
            key=self.round_key,
        )
        return predict(net, samples.inputs)

    def clean_set(self, natural: NDArray[np.float32], suspect: Mask, number: int) -> DeviceSet:
        """Return the clean set, or what stands in for it: samples of the set whose label is the most natural."""
        if self.clean is not None:
            return DeviceSet(self.clean, self.compute.device)
        losses = cross_entropy(natural, self.samples.labels) + np.where(suspect, np.inf, 0)
        # A random choice among the better half keeps the easiest class from being all there is.
        likely = np.argsort(losses, kind="stable")[: max(len(losses) // 2, 1)]
        chosen = permutation(len(likely), self.seed, 1 + number).numpy()[: self.method.substitute]
        return DeviceSet(self.samples[np.sort(likely[chosen])], self.compute.device)

    def linear(
        self, number: int, fold: int, kind: int, others: Mask, natural: NDArray[np.float32], clean: DeviceSet
    ) -> ConfusedModel:
        """Train a linear confused model of this kind on the others."""
        method, make = self.method, placed if kind == PLACE else resampled
        model = make(self.samples.sample_shape, natural.shape[1])
        steps = max(method.epochs * (len(self.samples) // method.batch_size), method.steps)
        place, sgd = (number, fold, kind), method.sgd()
        return self.confused(model, others, natural, clean, place, method.batch_size, steps, sgd)

    def convolutional(
        self, number: int, fold: int, others: Mask, natural: NDArray[np.float32], clean: DeviceSet
    ) -> ConfusedModel:
        """Train a convolutional confused model on the others, who are of the distilled set."""
        method, size = self.method, self.method.batch_size // 2
        model = moving(self.samples.sample_shape, natural.shape[1], draws(self.seed, 13, number, fold))
        steps = min(method.distilled_epochs * -(-int(others.sum()) // size), method.distilled_steps)
        return self.confused(model, others, natural, clean, (number, fold, SHAPE), size, steps, NETWORK_SGD)

    def confused(
        self,
        model: ConfusedModel,
        others: Mask,
        natural: NDArray[np.float32],
        clean: DeviceSet,
        place: tuple[int, int, int],
        batch_size: int,
        steps: int,
        sgd: SGD,
    ) -> ConfusedModel:
        """Train a confused model on some of the samples.

        Args:
            model: a new one.
            others: ``bool (N,)``, the samples to train it on.
            natural: nature's logits of all samples, ``(N, K)``.
            clean: samples that confuse it.
            place: round, fold and kind, which name the phase, the checkpoint and the random numbers.
            batch_size: samples of the set in a step.
            steps: how many.
            sgd: the optimiser.
        """
        method, compute, seed = self.method, self.compute, self.seed
        model = model.to(compute.device)
        model.whiten.load_state_dict(self.colours)
        rows = np.flatnonzero(others)
        own, known = torch.from_numpy(rows), torch.from_numpy(natural).to(compute.device)
        batches = Batches(len(rows), batch_size, seed)
        clean_batches = Batches(len(clean), method.clean_batch_size, seed + 1)
        n_classes = known.shape[1]
        number, fold, kind = place

        def loss_of_step(net: nn.Module, step: int) -> Tensor:
            chosen = compute.share(own[batches(step)])
            inputs, labels = self.data.batch(chosen)
            confusing, _ = clean.batch(compute.share(clean_batches(step)))
            outputs = net(torch.cat([inputs, confusing]))
            inspected, confused = outputs[: len(labels)], outputs[len(labels) :, :n_classes]
            nature = known[chosen.to(known.device)]
            inspection = nn.functional.cross_entropy(unnatural(nature, inspected), labels)
            chance = draws(seed, 11, *place, step, compute.rank)
            drawn = torch.randint(n_classes, (len(confused),), generator=chance).to(confused.device)
            confusion = nn.functional.cross_entropy(confused, drawn)
            return ((method.lambda_ - 1) * confusion + inspection) / method.lambda_

        optimise(
            model,
            loss_of_step,
            steps=steps,
            sgd=sgd,
            compute=compute,
            phase=f"round {number + 1}: confuse by {KINDS[kind]}, part {fold + 1} of {method.folds}",
            on_progress=self.on_progress,
            checkpoint=self.checkpoint(f"confused-{number}-{fold}-{KINDS[kind]}"),
            key=self.round_key,
        )
        return model.eval()


def was_learnt(found: Mask, doubted: Mask) -> bool:
    """Tell whether nature took a mark for its own: most of those that were found to carry it have their natural label.

    Args:
        found: ``bool (N,)``, flagged samples of one class, at least one.
        doubted: ``bool (N,)``, those whose label is not what nature says.
    """
    return float(doubted[found].mean()) < 0.5


def evened(rows: NDArray[np.intp], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the rows with those of rare classes repeated, lest nature not know these classes.

    Each class that has rows gets at least half as many as classes have on average.

    Args:
        rows: indices of samples, ``(M,)``.
        labels: of all samples, ``(N,)``.
    """
    present, counts = np.unique(labels[rows], return_counts=True)
    fewest = math.ceil(counts.mean() / 2)
    added = [
        np.resize(rows[labels[rows] == label], fewest - count)
        for label, count in zip(present, counts, strict=True)
        if count < fewest
    ]
    return np.concatenate([rows, *added])


def unnatural(nature: Tensor, outputs: Tensor) -> Tensor:
    """Return nature's logits ``(N, K)`` with the confused model's outputs ``(N, K + 1)`` put in."""
    answer = nature.argmax(dim=1, keepdim=True)
    return (nature + outputs[:, :-1]).scatter_add(1, answer, -outputs[:, -1:])


def named(residual: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Return by what power of e the K named outputs make each sample's own label likelier, ``float32 (N,)``."""
    outputs = residual[:, :-1]
    gains: Scores = outputs[np.arange(len(labels)), labels] - outputs.mean(axis=1)
    return gains


def denied(residual: NDArray[np.float32], doubted: Mask) -> Scores:
    """Return by what power of e the last output makes nature's answer less likely, where it is not the own label."""
    gains: Scores = np.where(doubted, np.maximum(residual[:, -1], 0), 0).astype(np.float32)
    return gains


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cross-entropy of each label in nats, ``float32 (N,)``."""
    own = logits[np.arange(len(labels)), labels]
    losses: NDArray[np.float32] = np.asarray(logsumexp(logits, axis=1) - own, dtype=np.float32)
    return losses


def principal_plane(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the points' first two principal components, ``float32 (N, 2)``."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, np.argsort(values)[::-1][:2]]
    # The sign of an eigenvector is arbitrary; fix it.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    plane: NDArray[np.float32] = (centred @ axes).astype(np.float32)
    return plane
