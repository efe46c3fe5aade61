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
from scipy.stats import binom
from torch import Tensor, nn

from foretaste.cleansers.feature_marks import FeatureRun
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
    check,
    draws,
    fingerprint,
    optimise,
    permutation,
    predict,
    supervised,
)

LARGEST_SIDE = 64
"""The confused model sees larger images shrunk to this side, in pixels, which bounds its size."""
REACH = 2
"""Distance, in pixels, of the neighbours that the confused model compares a pixel with."""
PREDICTED_AT_ONCE = 500

HUMP = 1 / 3
"""In a condemned class, suspects that score below this share of their median are strays from the clean samples."""

Scores = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ConfusionTraining:
    """Find poison with a model that can learn nothing but the backdoor (Qi et al. 2023, arXiv:2205.13616).

    Each round has three steps.

    1. A *base model* is trained briefly on what is not suspect yet. It says which label is natural.
    2. A *confused model* is trained on the set's own labels, robbed of nature twice over. Its output is added to the
       base model's, so that nothing is gained by repeating what nature says; and every batch brings clean samples with
       random labels, so that what clean features say is unlearnt. What it can still gain by is a mark that goes with a
       label for no natural reason: a trigger. Its last output is for marks that go with *any* unnatural label, as in
       all-to-all attacks.
    3. Every sample is *scored* by a confused model that was trained without it: by how many times its own label has
       become likelier. Memory helps nobody here; only a mark that others share does.

    Suspects of a class that is condemned are left out of the next round's base model, which so unlearns what it knew of
    the trigger. The rounds end when the verdict no longer moves; without suspects the first is the last.

    It differs from the paper in three ways, each because it measured better on the sets it was developed on: nature is
    also taken out by subtraction, not by confusion alone; samples are judged out of fold; and the confused model looks
    at each pixel against its neighbours, at its place, which learns a fixed trigger from a few dozen poison samples in
    seconds. The price: a trigger that moves about or is drawn anew for every image has no place of its own, and poison
    that keeps its natural label gains nothing, so neither can be expected to be found.

    For feature vectors both models are made of decision trees; see ``feature_marks``.

    Attributes:
        rounds: at most this many, ≥ 1.
        folds: parts of the set that are judged by models that never saw them, ≥ 2.
        base_steps: steps of the base model, ≥ 1, within the next two bounds.
        base_fewest: passes of the base model over the set at least, ≥ 1.
        base_most: passes at most, ≥ ``base_fewest``: on a small set more of them would teach it the trigger as nature.
        epochs: passes of each confused model over the set, ≥ 1.
        steps: each confused model takes at least this many steps, ≥ 1.
        batch_size: samples of the set in a step of the confused model, ≥ 1.
        clean_batch_size: clean samples in it, ≥ 1.
        lambda_: the loss is ((λ − 1) · confusion + inspection) / λ; above 1.
        learning_rate: the confused model's highest, > 0.
        weight_decay: the confused model's, ≥ 0.
        substitute: how many of the set's own, most natural samples stand in for a missing clean set, ≥ 1.
        spread: a sample is a suspect if it scores above this many standard deviations of the scores, > 0. The standard
            deviation is a robust one, from the median absolute deviation, which poison hardly moves.
        gain: and if its own label became more than e^gain times likelier, by default twice; > 0.
        significance: a class is condemned if its suspects are less likely than this to be the tail of the clean
            samples' scores, in (0, 1).
        settled: the rounds end when this share of the flagged samples or less changed, in [0, 1].

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "confusion-training"
    summary: ClassVar[str] = "trains a model that can learn nothing but the backdoor (arXiv:2205.13616)"

    rounds: int = 3
    folds: int = 3
    base_steps: int = 600
    base_fewest: int = 3
    base_most: int = 10
    epochs: int = 4
    steps: int = 400
    batch_size: int = 256
    clean_batch_size: int = 64
    lambda_: float = 2.0
    learning_rate: float = 0.02
    weight_decay: float = 1e-3
    substitute: int = 500
    spread: float = 4.0
    gain: float = 0.7
    significance: float = 1e-4
    settled: float = 0.02

    def __post_init__(self) -> None:
        counts = (
            "rounds",
            "base_steps",
            "base_fewest",
            "epochs",
            "steps",
            "batch_size",
            "clean_batch_size",
            "substitute",
        )
        for name in counts:
            check(getattr(self, name) >= 1, f"{name} must be 1 or more")
        check(self.folds >= 2, "folds must be 2 or more")
        check(self.base_most >= self.base_fewest, "base_most must not be below base_fewest")
        check(self.lambda_ > 1, "lambda_ must be above 1")
        check(self.spread > 0 and self.gain > 0, "spread and gain must be above 0")
        check(0 < self.significance < 1, "significance must be in (0, 1)")
        check(0 <= self.settled <= 1, "settled must be in [0, 1]")
        self.sgd()

    def sgd(self) -> SGD:
        """Return the confused model's optimiser."""
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
        rounds: list[Round] = []
        for number in range(self.rounds):
            began = time.perf_counter()
            residual, scores = run.round(number, flagged)
            before = flagged
            flagged, evidence = self.verdict(samples, scores)
            losses = np.log1p((len(samples.classes) - 1) * np.exp(-scores)).astype(np.float32)
            seconds = time.perf_counter() - began
            rounds.append(Round(name=f"round {number + 1}", losses=losses, kept=flagged, seconds=seconds))
            moved, found = np.count_nonzero(flagged != before), np.count_nonzero(flagged)
            # Where half the set is suspect, the rest cannot teach what is natural.
            if moved <= self.settled * found or found > len(samples) / 2:
                break
        return Verdict(
            scores=scores,
            flagged=flagged,
            classes=evidence,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - start,
            notes=run.notes(),
            rounds=tuple(rounds),
            embedding=principal_plane(residual),
        )

    def verdict(self, samples: Samples, scores: Scores) -> tuple[Mask, tuple[ClassEvidence, ...]]:
        """Return who is flagged, ``bool (N,)``, and the evidence per class."""
        cut = max(self.spread * robust_deviation(scores), self.gain)
        flagged = np.zeros(len(samples), dtype=np.bool_)
        evidence = []
        for label, name in enumerate(samples.classes):
            members = samples.labels == label
            suspects = members & (scores > cut)
            n_suspects = int(suspects.sum())
            chance = tail_probability(scores[suspects], cut)
            condemned = chance < self.significance
            found = suspects & (scores > HUMP * np.median(scores[suspects])) if condemned else np.zeros_like(suspects)
            flagged |= found
            n_flagged = int(found.sum())
            if condemned:
                reason = (
                    f"{n_flagged} samples carry a mark that has nothing to do with what {name} looks like, and that "
                    f"makes this label {math.exp(float(np.median(scores[found]))):,.0f} times likelier"
                )
            elif n_suspects:
                reason = f"{n_suspects} suspects, too few or too close to the clean samples to be a group of their own"
            else:
                reason = "no suspects"
            evidence.append(
                ClassEvidence(
                    label=label,
                    n_samples=int(members.sum()),
                    n_suspects=n_suspects,
                    n_flagged=n_flagged,
                    statistic=math.log10(1 / chance),
                    threshold=-math.log10(self.significance),
                    condemned=condemned,
                    reason=reason,
                )
            )
        return flagged, tuple(evidence)


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
        measured = Standardise(samples.sample_shape)
        measured.measure(samples.inputs)
        # Every model of the run sees the inputs on the same scale.
        self.scale = measured.state_dict()
        self.key = fingerprint(samples, "no clean set" if clean is None else clean, method, seed)
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

    def round(self, number: int, suspect: Mask) -> tuple[NDArray[np.float32], Scores]:
        """Return the confused models' outputs out of fold, ``(N, K + 1)``, and the scores, ``(N,)``."""
        natural = self.natural(number, suspect)
        confusing = self.clean_set(natural, suspect, number)
        residual = np.empty((len(self.samples), natural.shape[1] + 1), dtype=np.float32)
        for fold in range(self.method.folds):
            model = self.confused(number, fold, natural, confusing)
            judged = np.flatnonzero(self.fold == fold)
            for start in range(0, len(judged), PREDICTED_AT_ONCE):
                rows = judged[start : start + PREDICTED_AT_ONCE]
                residual[rows] = model.outputs(self.data.batch(torch.from_numpy(rows))[0])
        return residual, score(residual, natural, self.samples.labels)

    def natural(self, number: int, suspect: Mask) -> NDArray[np.float32]:
        """Train the round's base model on what is not suspect, and return its logits for every sample."""
        method, samples = self.method, self.samples
        rows = torch.from_numpy(np.flatnonzero(~suspect))
        per_epoch = Batches(len(rows), TrainingPlan.batch_size, self.seed).per_epoch
        steps = min(max(method.base_steps, method.base_fewest * per_epoch), method.base_most * per_epoch)
        # Moving images by a few pixels makes small marks hard to learn, and hardly hurts nature.
        plan = TrainingPlan(shift=3)
        net = build(None, samples.sample_shape, samples.classes, generator=draws(self.seed, 10, number))
        net.preprocess.load_state_dict(self.scale)
        optimise(
            net,
            supervised(self.data, plan, self.seed, self.compute, rows=rows),
            steps=steps,
            sgd=plan.sgd(),
            compute=self.compute,
            phase=f"round {number + 1}: learn what is natural",
            on_progress=self.on_progress,
            checkpoint=self.checkpoint(f"natural-{number}"),
            key=self.key,
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

    def confused(self, number: int, fold: int, natural: NDArray[np.float32], clean: DeviceSet) -> ConfusedModel:
        """Train the confused model of one fold."""
        method, compute, seed = self.method, self.compute, self.seed
        model = ConfusedModel(self.samples.sample_shape, len(self.samples.classes)).to(compute.device)
        model.preprocess.load_state_dict(self.scale)
        rows = torch.from_numpy(np.flatnonzero(self.fold != fold))
        known = torch.from_numpy(natural).to(compute.device)
        batches = Batches(len(rows), method.batch_size, seed)
        clean_batches = Batches(len(clean), method.clean_batch_size, seed + 1)
        n_classes = known.shape[1]

        def loss_of_step(net: nn.Module, step: int) -> Tensor:
            chosen = compute.share(rows[batches(step)])
            inputs, labels = self.data.batch(chosen)
            confusing, _ = clean.batch(compute.share(clean_batches(step)))
            outputs = net(torch.cat([inputs, confusing]))
            inspected, confused = outputs[: len(labels)], outputs[len(labels) :, :n_classes]
            nature = known[chosen.to(known.device)]
            inspection = nn.functional.cross_entropy(unnatural(nature, inspected), labels)
            chance = draws(seed, 11, number, fold, step, compute.rank)
            drawn = torch.randint(n_classes, (len(confused),), generator=chance).to(confused.device)
            confusion = nn.functional.cross_entropy(confused, drawn)
            return ((method.lambda_ - 1) * confusion + inspection) / method.lambda_

        optimise(
            model,
            loss_of_step,
            steps=max(method.epochs * (len(self.samples) // method.batch_size), method.steps),
            sgd=method.sgd(),
            compute=compute,
            phase=f"round {number + 1}: confuse, part {fold + 1} of {method.folds}",
            on_progress=self.on_progress,
            checkpoint=self.checkpoint(f"confused-{number}-{fold}"),
            key=self.key,
        )
        return model


class ConfusedModel(nn.Module):
    """What looks for marks: a map of raw images to K + 1 outputs that knows nothing when it is new.

    It is linear in each pixel's difference from its neighbours, at its place. The first K outputs are added to
    nature's logits; the last is taken from the logit of nature's answer.
    """

    def __init__(self, sample_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.preprocess = Standardise(sample_shape)
        self.side: tuple[int, int] | None = None
        height, width, channels = sample_shape
        if max(height, width) > LARGEST_SIDE:
            self.side = height, width = min(height, LARGEST_SIDE), min(width, LARGEST_SIDE)
        self.linear = nn.Linear(height * width * channels, n_classes + 1, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``float32 (N, K + 1)`` of raw images ``uint8 (N, H, W, C)``."""
        seen = self.preprocess(images)
        if self.side is not None:
            seen = nn.functional.adaptive_avg_pool2d(seen, self.side)
        # Outliers would drown everybody else.
        outputs: Tensor = self.linear(contrast(seen).clamp(-1, 1).flatten(1))
        return outputs

    @torch.inference_mode()
    def outputs(self, inputs: Tensor) -> NDArray[np.float32]:
        """Return the outputs as an array."""
        outputs: NDArray[np.float32] = self(inputs).float().cpu().numpy()
        return outputs


def contrast(images: Tensor) -> Tensor:
    """Return each pixel of ``(N, C, H, W)`` less the mean of its four neighbours at ``REACH``, edges repeated."""
    padded = nn.functional.pad(images, (REACH,) * 4, mode="replicate")
    up, down = padded[:, :, : -2 * REACH, REACH:-REACH], padded[:, :, 2 * REACH :, REACH:-REACH]
    left, right = padded[:, :, REACH:-REACH, : -2 * REACH], padded[:, :, REACH:-REACH, 2 * REACH :]
    return images - (up + down + left + right) / 4


def unnatural(nature: Tensor, outputs: Tensor) -> Tensor:
    """Return nature's logits ``(N, K)`` with the confused model's outputs ``(N, K + 1)`` put in."""
    answer = nature.argmax(dim=1, keepdim=True)
    return (nature + outputs[:, :-1]).scatter_add(1, answer, -outputs[:, -1:])


def score(residual: NDArray[np.float32], natural: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Return by what power of e the confused model makes each sample's own label likelier, ``float32 (N,)``."""
    named = residual[:, :-1]
    rows = np.arange(len(labels))
    gain = named[rows, labels] - named.mean(axis=1)
    denied = np.where(natural.argmax(axis=1) != labels, np.maximum(residual[:, -1], 0), 0)
    scores: Scores = (gain + denied).astype(np.float32)
    return scores


def robust_deviation(scores: Scores) -> float:
    """Return the standard deviation that normal scores of this median absolute deviation would have."""
    return float(1.4826 * np.median(np.abs(scores - np.median(scores))))


def tail_probability(scores: Scores, cut: float) -> float:
    """Return how likely scores above ``cut`` are to be the tail of clean ones, in (0, 1]; not below 1e-300.

    Clean scores thin out: of those above the cut, fewer than one in e² lies above 1.5 times the cut. Poison forms a
    hump of its own far above it. So this is the binomial probability of as many above 1.5 times the cut as there are.
    """
    above = np.count_nonzero(scores > 1.5 * cut)
    return max(float(binom.sf(above - 1, len(scores), math.exp(-2))), 1e-300)


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
