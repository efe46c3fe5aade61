"""Confusion Training's models for images: a network that knows what is natural, and small ones that look for marks."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from torch import Tensor, nn

from foretaste import __version__
from foretaste.cleansers.confused_models import ConfusedModel, Whiten, detector, moving, placed, resampled
from foretaste.cleansers.judgement import HUMP, Heard, Scores, credible, hump, most, named, was_learnt
from foretaste.cleansers.looks import Looks
from foretaste.cleansers.parted_classes import patterned
from foretaste.cleansers.verdict import ClassEvidence
from foretaste.nets import Net, build
from foretaste.nets.net import Standardise
from foretaste.progress import OnProgress
from foretaste.samples import Mask, Samples
from foretaste.training import (
    SGD,
    Batches,
    Compute,
    DeviceSet,
    TrainingPlan,
    augment,
    cutmix,
    draws,
    fingerprint,
    noisy,
    optimise,
    permutation,
    predict,
)

if TYPE_CHECKING:
    from foretaste.cleansers.confusion_training import ConfusionTraining

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
ERASING_SGD = SGD(learning_rate=0.02, schedule="constant")
"""The optimiser that confuses the base model."""
ERASING_BATCH = 128
"""Clean samples in each of its steps, and as many of the set."""
ERASING_LAMBDA = 20
"""Confusion weighs this much less one, the set's own labels 1."""
STILL_SURE = 0.25
"""A mark speaks if the confused base model gives a label more than this, as a share of the way from chance to 1."""


class ImageRun:
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
        trusted = "no clean set" if clean is None else clean
        self.key = self.round_key = fingerprint(samples, trusted, method, seed, __version__)
        self.looks = Looks(samples)
        # Which part of the set each sample is in; the model of a fold is trained on the other parts.
        self.fold = permutation(len(samples), seed, 0).numpy() % method.folds
        # To a base model that learns from them, what is on much of a class whose labels are right would be nature.
        self.patterned = patterned(samples, clean, colours, self.fold, self.looks, on_progress)

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if self.clean is not None:
            return ()
        halves = -(-np.bincount(self.samples.labels) // 2)
        count = min(self.method.substitute, int(halves.sum()))
        return (
            f"no clean set was given: {count:,} of the set's own samples, of those whose label looked most natural, "
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
        confusing = DeviceSet(self.clean_samples(natural, suspect, number), self.compute.device)
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
            named(by_place[:, :-1], labels) + denied(by_place, doubted),
            named(by_shape[:, :-1], labels),
            named(by_sharpness[:, :-1], labels) + denied(by_sharpness, doubted),
        )
        # A mark at its place tells even where nature took it for its own; other looks that are natural do not.
        telling = np.stack([np.ones_like(doubted), doubted, doubted])
        distinct = partial(self.looks.distinct, doubted, suspect & ~flagged)
        return Heard(
            gains=gains,
            doubted=doubted,
            telling=telling,
            patterned=self.patterned,
            distinct=distinct,
            residual=by_place,
        )

    def left_out(self, scores: Scores, flagged: Mask, doubted: Mask, evidence: tuple[ClassEvidence, ...]) -> Mask:
        """Tell whom the next round's base model is not trained on, ``bool (N,)``.

        The flagged, and of the others some that score high; leaving out more would make the base model forget rare but
        natural looks, which then look like marks. Who is only oddly sharp or blurred stays: that is the camera's doing
        more often than a mark's. What most of a class that is not condemned shows by its shape is what the class looks
        like, and leaves nobody out. Where a mark is nature to it, as in a class of which most of the flagged have
        their natural label, more are left out, because a few would teach it the mark again.

        Args:
            scores: per kind of model those of N samples, ``(kinds, N)``.
            flagged: ``bool (N,)``, who is taken for poison.
            doubted: ``bool (N,)``, those whose label is not what nature says.
            evidence: per class.
        """
        labels, left = self.samples.labels, flagged.copy()
        by_place, by_shape = scores[PLACE] > LEFT_OUT, scores[SHAPE] > LEFT_OUT
        marked = (scores[[PLACE, SHAPE]] > LEFT_OUT_OF_LEARNT).any(axis=0)
        for entry in evidence:
            members = labels == entry.label
            if not entry.condemned:
                left |= members & (by_place if most(members, by_shape) else by_place | by_shape)
            elif was_learnt(members & flagged, doubted):
                left |= members & marked
        return left

    def told(
        self, scores: Scores, flagged: Mask, doubted: Mask, evidence: tuple[ClassEvidence, ...]
    ) -> tuple[Scores, Mask]:
        """Return the final score of every sample, ``float32 (N,)``, and who is flagged, ``bool (N,)``.

        In condemned classes a detector has its say: it learns to tell the flagged from all others, and judges out of
        fold. What it says goes beside the scores. But of a mark that nature took for its own the scores know little,
        and half of the flagged may be clean. There the detector learns from those alone of whom it is sure, says who is
        poison, and learns again. Where most classes are condemned by marks that it did not take for its own, the mark
        goes with any label; so in the others who carries it and has no natural label is poison, too.

        Where the detector is believed, the flagged score above 1, the others of their classes do not.

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
        """Return how natural each label is for every sample, as logits ``(N, K)``.

        That is what the round's base model says, less what it goes on saying when it has been confused: nature is what
        clean samples show, so confusion by them erases it. A mark on much of a class, which the base model learnt with
        the class, stays. Of whom it is no longer sure, as of next to all clean samples, nothing is taken off.
        """
        net = self.base(number, suspect)
        known = predict(net, self.samples.inputs)
        clean = self.clean_samples(known, suspect, number)
        self.erase(net, suspect, clean, number)
        stayed, usual = (log_softmax(predict(net, some.inputs), axis=1) for some in (self.samples, clean))
        chance = 1 / known.shape[1]
        marked = stayed.max(axis=1) > math.log(chance + STILL_SURE * (1 - chance))
        natural: NDArray[np.float32] = known - np.where(marked[:, None], stayed - usual.mean(axis=0), 0)
        return natural

    def base(self, number: int, suspect: Mask) -> Net:
        """Train the round's base model on what is not suspect."""
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
        return net

    def erase(self, net: Net, suspect: Mask, clean: Samples, number: int) -> None:
        """Train the base model on the clean samples with random labels, while it keeps what it can of the others."""
        compute, seed, confusing = self.compute, self.seed, DeviceSet(clean, self.compute.device)
        rows = torch.from_numpy(np.flatnonzero(~suspect))
        batches, clean_batches = (Batches(len(some), ERASING_BATCH, seed + 2) for some in (rows, clean))

        def loss_of_step(net: nn.Module, step: int) -> Tensor:
            inputs, labels = self.data.batch(compute.share(rows[batches(step)]))
            shown, _ = confusing.batch(compute.share(clean_batches(step)))
            chance = draws(seed, 16, number, step, compute.rank)
            outputs = net(augment(torch.cat([inputs, shown]), chance, shift=SHIFT, flip=False))
            drawn = torch.randint(outputs.shape[1], (len(shown),), generator=chance).to(outputs.device)
            inspection = nn.functional.cross_entropy(outputs[: len(labels)], labels)
            confusion = nn.functional.cross_entropy(outputs[len(labels) :], drawn)
            return ((ERASING_LAMBDA - 1) * confusion + inspection) / ERASING_LAMBDA

        optimise(
            net,
            loss_of_step,
            steps=self.method.erasing_steps,
            sgd=ERASING_SGD,
            compute=compute,
            phase=f"round {number + 1}: erase what is natural",
            on_progress=self.on_progress,
            checkpoint=self.checkpoint(f"erased-{number}"),
            key=self.round_key,
        )

    def clean_samples(self, natural: NDArray[np.float32], suspect: Mask, number: int) -> Samples:
        """Return the clean set, or what stands in for it: samples of the set whose label is the most natural."""
        if self.clean is not None:
            return self.clean
        likely = better_half(cross_entropy(natural, self.samples.labels), self.samples.labels, suspect)
        chosen = permutation(len(likely), self.seed, 1 + number).numpy()[: self.method.substitute]
        return self.samples[np.sort(likely[chosen])]

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


def better_half(losses: NDArray[np.float32], labels: NDArray[np.int64], suspect: Mask) -> NDArray[np.intp]:
    """Return those of each class, half of it, whose labels are the most natural.

    Of each class: what samples of an easy class do not show, the confused models would not unlearn of the others.

    Args:
        losses: of the samples' labels by nature, ``(N,)``.
        labels: of the samples, ``(N,)``.
        suspect: ``bool (N,)``, who is not taken; not everybody.
    """
    halves = []
    for label in np.unique(labels[~suspect]):
        rows = np.flatnonzero((labels == label) & ~suspect)
        halves.append(rows[np.argsort(losses[rows], kind="stable")[: -(-len(rows) // 2)]])
    return np.concatenate(halves)


def unnatural(nature: Tensor, outputs: Tensor) -> Tensor:
    """Return nature's logits ``(N, K)`` with the confused model's outputs ``(N, K + 1)`` put in."""
    answer = nature.argmax(dim=1, keepdim=True)
    return (nature + outputs[:, :-1]).scatter_add(1, answer, -outputs[:, -1:])


def denied(residual: NDArray[np.float32], doubted: Mask) -> Scores:
    """Return by what power of e the last output makes nature's answer less likely, where it is not the own label."""
    gains: Scores = np.where(doubted, np.maximum(residual[:, -1], 0), 0).astype(np.float32)
    return gains


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cross-entropy of each label in nats, ``float32 (N,)``."""
    own = logits[np.arange(len(labels)), labels]
    losses: NDArray[np.float32] = np.asarray(logsumexp(logits, axis=1) - own, dtype=np.float32)
    return losses
