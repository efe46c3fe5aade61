"""Confusion Training as it was published: a classifier is trained until only a backdoor can still be learnt."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import Tensor, nn

from foretaste import __version__
from foretaste.cleansers.verdict import ClassEvidence, Round, Verdict
from foretaste.errors import UsageError
from foretaste.nets import CompactResNet, Net, ResNet18, build
from foretaste.progress import OnProgress, silent
from foretaste.samples import Labels, Mask, Samples, listed
from foretaste.training import (
    SGD,
    Batches,
    Compute,
    DeviceSet,
    TrainingPlan,
    check,
    content,
    draws,
    fingerprint,
    optimise,
    predict,
    supervised,
)

Losses = NDArray[np.float32]
Value = TypeVar("Value")


class Stream(IntEnum):
    """What random weights are drawn for; batches follow from the seed alone."""

    VICTIM = 30
    PRETRAINED = 31


# The published numbers.


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What the authors chose per data set; ``PRESETS`` holds their choices.

    Tuples have one value per round. The last value holds for all rounds that follow.

    Attributes:
        victim_epochs: passes of the victim over the set, ≥ 1. The authors name the number for CIFAR-10 alone; the
            other presets take the same.
        shares: share of the set that is distilled after each round but the last, in (0, 1]; so there is one more round.
        floors: share of each class that is distilled at least, rounded up to whole samples, in [0, 1]; it keeps the
            labels balanced enough for the next round to be able to learn every class.
        pretrain_epochs: passes over the distilled set before each confusion, ≥ 1.
        pretrain_rate: learning rate of these passes, > 0.
        pretrain_momentum: in [0, 1).
        pretrain_batch_size: samples per step, ≥ 2.
        warm_start: whether a round starts from the weights that the round before was pretrained to, or from new ones.
        clean_from: round, from 1, from which the clean set joins the pretraining under wrong labels.
        confusion_steps: steps of each confusion, ≥ 1.
        confusion_rates: learning rate of each confusion, > 0.
        momentum: of each confusion, in [0, 1).
        weight_decay: of pretraining and confusion, ≥ 0.
        lambda_: weight of the clean samples' loss in a confusion, λ − 1 to 1 for the distilled samples'; above 1.
        every: the k of a confusion that takes a batch of the distilled set in every k-th step, ≥ 1.
        batch_size: clean samples in a step, and as many of the distilled set, ≥ 2.
        clean_size: clean samples that the authors had, ≥ 1.
        flagged_share: None tests each class; otherwise this share of the set, in (0, 1], is flagged without a test.

    Raises:
        UsageError: a value is out of range.
    """

    victim_epochs: int = 100
    shares: tuple[float, ...]
    floors: tuple[float, ...]
    pretrain_epochs: tuple[int, ...]
    pretrain_rate: float
    pretrain_momentum: float = 0.9
    pretrain_batch_size: int
    warm_start: bool
    clean_from: int
    confusion_steps: tuple[int, ...]
    confusion_rates: tuple[float, ...]
    momentum: float
    weight_decay: float
    lambda_: tuple[float, ...]
    every: tuple[int, ...]
    batch_size: int
    clean_size: int
    flagged_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("victim_epochs", "clean_from", "clean_size"):
            check(getattr(self, name) >= 1, f"{name} must be 1 or more")
        for name in ("batch_size", "pretrain_batch_size"):
            check(getattr(self, name) >= 2, f"{name} must be 2 or more")
        for name in ("floors", "pretrain_epochs", "confusion_steps", "confusion_rates", "lambda_", "every"):
            check(len(getattr(self, name)) > 0, f"{name} needs a value for the first round")
        for name in ("pretrain_epochs", "confusion_steps", "every"):
            check(all(value >= 1 for value in getattr(self, name)), f"{name} must be 1 or more")
        check(all(0 < share <= 1 for share in self.shares), "shares must be in (0, 1]")
        check(all(0 <= floor <= 1 for floor in self.floors), "floors must be in [0, 1]")
        check(all(value > 1 for value in self.lambda_), "lambda_ must be above 1")
        check(self.flagged_share is None or 0 < self.flagged_share <= 1, "flagged_share must be in (0, 1]")
        self.pretrain_sgd()
        for number in range(self.rounds):
            self.confusion_sgd(number)

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return len(self.shares) + 1

    def pretrain_sgd(self) -> SGD:
        """Return the optimiser of the pretraining."""
        return sgd(self.pretrain_rate, self.pretrain_momentum, self.weight_decay)

    def confusion_sgd(self, number: int) -> SGD:
        """Return the optimiser of a round's confusion; rounds are numbered from 0."""
        return sgd(of_round(self.confusion_rates, number), self.momentum, self.weight_decay)


def sgd(learning_rate: float, momentum: float, weight_decay: float) -> SGD:
    """Return gradient descent as the authors have it: plain momentum and one learning rate throughout."""
    return SGD(
        learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay, schedule="constant", nesterov=False
    )


def of_round(values: tuple[Value, ...], number: int) -> Value:
    """Return the value for a round, numbered from 0."""
    return values[min(number, len(values) - 1)]


CIFAR10 = Configuration(
    shares=(1 / 2, 1 / 5, 1 / 25, 1 / 50, 1 / 100),
    floors=(1 / 50, 1 / 50, 1 / 50, 1 / 50, 1 / 100),
    pretrain_epochs=(100, 100, 40),
    pretrain_rate=0.01,
    pretrain_batch_size=32,
    warm_start=True,
    clean_from=6,
    confusion_steps=(6000, 6000, 6000, 6000, 2000),
    confusion_rates=(0.001, 0.001, 0.001, 0.01),
    momentum=0.7,
    weight_decay=1e-4,
    lambda_=(20.0, 20.0, 20.0, 30.0, 30.0, 15.0),
    every=(2,),
    batch_size=32,
    clean_size=2000,
)
IMAGENET = Configuration(
    shares=(1 / 5, 1 / 20, 1 / 40, 1 / 80),
    floors=(1 / 50, 1 / 50, 1 / 50, 1 / 100),
    pretrain_epochs=(20,),
    pretrain_rate=0.5,
    pretrain_batch_size=1024,
    warm_start=False,
    clean_from=3,
    confusion_steps=(10_000, 5000),
    confusion_rates=(0.01,),
    momentum=0.5,
    weight_decay=5e-5,
    lambda_=(20.0,),
    every=(1, 2, 4),
    batch_size=128,
    clean_size=5000,
)

Preset = Literal["cifar10", "gtsrb", "imagenet", "ember"]
PRESETS: dict[Preset, Configuration] = {
    "cifar10": CIFAR10,
    "gtsrb": replace(CIFAR10, confusion_rates=(0.001,), lambda_=(20.0,), every=(2, 2, 4, 8, 8, 2)),
    "imagenet": IMAGENET,
    "ember": replace(
        IMAGENET,
        pretrain_epochs=(10, 5),
        pretrain_rate=0.1,
        pretrain_batch_size=512,
        confusion_steps=(6000, 4000),
        confusion_rates=(0.1, 0.01),
        weight_decay=1e-6,
        every=(1, 16, 64, 128),
        batch_size=64,
        flagged_share=1 / 25,
    ),
}
"""The published configurations by the data set that each was made for."""


# The method.


@dataclass(frozen=True, kw_only=True)
class ConfusionTrainingPaper:
    """Confusion Training as published (Qi et al. 2023, arXiv:2205.13616).

    1. A *victim* is trained on the set, as any model would be. It only says which labels to avoid.
    2. Each *round* pretrains a classifier on what the round before distilled (the first on the whole set), and then
       confuses it: it is trained on clean samples under wrong labels, which undoes what it learnt from clean features,
       while some batches of the distilled set keep the backdoor alive. The samples whose labels it then still gives at
       the lowest loss are distilled for the next round.
    3. The *verdict* looks at each class in two dimensions of the last confused classifier's features, and asks how much
       likelier they become if the samples that are still given their label have a Gaussian of their own. For feature
       vectors the authors make no test, but flag a fixed share of the set.

    Nothing here knows the attack. The fields from ``victim_epochs`` on are those of ``Configuration``; None, the
    default, takes the preset's value.

    Attributes:
        preset: which published configuration; None is "cifar10" for images and "ember" for feature vectors.
        budget: what the numbers of epochs and steps are multiplied by, in (0, 1]; 1 is the published procedure. None is
            1 on a GPU and 0.1 on a CPU, where the whole takes hours.
        net: a key of ``foretaste.nets.NETS``. None is ``mlp`` for feature vectors; for images ``resnet18``, as
            published, on a GPU and ``compact-resnet`` on a CPU.
        smoothing: a class's loss is weighted by 1 / √(its share of the distilled set + this), > 0; it bounds the weight
            of classes of which little is left.
        ridge: added to the variance along each principal axis, > 0, so that points on a line have a density.
        ratio: a class is condemned if the likelihood per sample grows by more than this factor, > 1.
        top_ratio: the same for the class whose factor is the highest, > 1.
        victim_epochs: passes of the victim over the set, ≥ 1. The authors name the number for CIFAR-10 alone; the
            other presets take the same.
        shares: share of the set that is distilled after each round but the last, in (0, 1]; so there is one more round.
        floors: share of each class that is distilled at least, rounded up to whole samples, in [0, 1]; it keeps the
            labels balanced enough for the next round to be able to learn every class.
        pretrain_epochs: passes over the distilled set before each confusion, ≥ 1.
        pretrain_rate: learning rate of these passes, > 0.
        pretrain_momentum: in [0, 1).
        pretrain_batch_size: samples per step, ≥ 2.
        warm_start: whether a round starts from the weights that the round before was pretrained to, or from new ones.
        clean_from: round, from 1, from which the clean set joins the pretraining under wrong labels.
        confusion_steps: steps of each confusion, ≥ 1.
        confusion_rates: learning rate of each confusion, > 0.
        momentum: of each confusion, in [0, 1).
        weight_decay: of pretraining and confusion, ≥ 0.
        lambda_: weight of the clean samples' loss in a confusion, λ − 1 to 1 for the distilled samples'; above 1.
        every: the k of a confusion that takes a batch of the distilled set in every k-th step, ≥ 1.
        batch_size: clean samples in a step, and as many of the distilled set, ≥ 2.
        clean_size: clean samples that the authors had, ≥ 1.
        flagged_share: None tests each class; otherwise this share of the set, in (0, 1], is flagged without a test.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "confusion-training-paper"
    summary: ClassVar[str] = "Confusion Training step by step as published; slow, needs a clean set (arXiv:2205.13616)"

    preset: Preset | None = None
    budget: float | None = None
    net: str | None = None
    smoothing: float = 0.001
    ridge: float = 0.001
    ratio: float = 2.0
    top_ratio: float = 1.5
    victim_epochs: int | None = None
    shares: tuple[float, ...] | None = None
    floors: tuple[float, ...] | None = None
    pretrain_epochs: tuple[int, ...] | None = None
    pretrain_rate: float | None = None
    pretrain_momentum: float | None = None
    pretrain_batch_size: int | None = None
    warm_start: bool | None = None
    clean_from: int | None = None
    confusion_steps: tuple[int, ...] | None = None
    confusion_rates: tuple[float, ...] | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    lambda_: tuple[float, ...] | None = None
    every: tuple[int, ...] | None = None
    batch_size: int | None = None
    clean_size: int | None = None
    flagged_share: float | None = None

    def __post_init__(self) -> None:
        check(self.preset is None or self.preset in PRESETS, f"preset must be one of {', '.join(PRESETS)}")
        check(self.budget is None or 0 < self.budget <= 1, "budget must be in (0, 1]")
        check(self.smoothing > 0 and self.ridge > 0, "smoothing and ridge must be above 0")
        check(self.ratio > 1 and self.top_ratio > 1, "ratio and top_ratio must be above 1")
        self.configured("cifar10" if self.preset is None else self.preset)

    def configured(self, preset: Preset) -> Configuration:
        """Return a preset with the values that were given put in."""
        given = {field.name: getattr(self, field.name) for field in fields(Configuration)}
        return replace(PRESETS[preset], **{name: value for name, value in given.items() if value is not None})

    def inspect(
        self,
        samples: Samples,
        clean: Samples | None,
        *,
        seed: int = 0,
        workdir: Path | None = None,
        on_progress: OnProgress = silent,
    ) -> Verdict:
        """Judge every sample; arguments as for every ``Cleanser``, but there must be a clean set.

        Raises:
            UsageError: there is no clean set or too small a one, or the net is unknown or does not take these samples.
        """
        start = time.perf_counter()
        preset = self.preset or ("ember" if samples.images is None else "cifar10")
        plan = self.configured(preset)
        clean = checked(clean, plan)
        compute = Compute()
        budget = self.budget or (1.0 if compute.device.type == "cuda" else CPU_BUDGET)
        run = Run(self, scaled(plan, budget), samples, clean, compute, seed, workdir, on_progress)
        victim = run.victim()
        run.avoid(predict(victim, clean.inputs).argmax(axis=1))
        rounds: list[Round] = []
        distilled, pretrained = np.ones(len(samples), dtype=np.bool_), None
        for number in range(plan.rounds):
            began = time.perf_counter()
            pretrained = run.pretrain(number, distilled, pretrained)
            confused = run.confuse(number, distilled, pretrained)
            logits = predict(confused, samples.inputs)
            losses = cross_entropy(logits, samples.labels)
            own = logits.argmax(axis=1) == samples.labels
            if number < plan.rounds - 1:
                share, floor = plan.shares[number], of_round(plan.floors, number)
                distilled = distil(losses, samples.labels, share, floor)
            else:
                distilled = own
            seconds = time.perf_counter() - began
            rounds.append(Round(name=f"round {number + 1}", losses=losses, kept=distilled, seconds=seconds))
        plane = principal_planes(embed(confused, run.data), samples.labels)
        if plan.flagged_share is None:
            ratios = likelihood_ratios(plane, own, samples.labels, len(samples.classes), self.ridge)
            flagged, evidence = self.judge(ratios, own, samples)
        else:
            flagged, evidence = lowest(losses, own, samples, plan.flagged_share)
        return Verdict(
            scores=-losses,
            flagged=flagged,
            classes=evidence,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - start,
            notes=notes(preset, plan, run.plan, budget, samples, clean),
            rounds=tuple(rounds),
            embedding=plane,
        )

    def judge(self, ratios: NDArray[np.float64], own: Mask, samples: Samples) -> tuple[Mask, tuple[ClassEvidence, ...]]:
        """Return which samples are flagged, ``bool (N,)``, and the evidence per class.

        Args:
            ratios: likelihood ratio of each class, ``(K,)``; NaN where there was nothing to compare.
            own: ``bool (N,)``, samples that the confused classifier gives their label.
            samples: the set.
        """
        highest = float(np.max(ratios, where=~np.isnan(ratios), initial=-np.inf))
        flagged = np.zeros(len(samples), dtype=np.bool_)
        evidence = []
        for label, ratio in enumerate(ratios.tolist()):
            members = samples.labels == label
            threshold = self.top_ratio if ratio == highest else self.ratio
            condemned = ratio > threshold
            kept = members & own
            if condemned:
                flagged |= kept
            n_kept, n_samples = int(kept.sum()), int(members.sum())
            if np.isnan(ratio):
                reason = f"the confused classifier keeps the label of {n_kept}, which leaves no two groups to compare"
            else:
                apart, above = ("lie", "above") if condemned else ("do not lie", "not above")
                reason = (
                    f"the {n_kept} samples whose label the confused classifier keeps {apart} apart from the rest: "
                    f"the likelihood ratio of two groups to one is {above} {threshold:g}"
                )
            evidence.append(
                ClassEvidence(
                    label=label,
                    n_samples=n_samples,
                    n_suspects=n_kept,
                    n_flagged=n_kept if condemned else 0,
                    statistic=ratio,
                    threshold=threshold,
                    condemned=condemned,
                    reason=reason,
                )
            )
        return flagged, tuple(evidence)


CPU_BUDGET = 0.1
"""The default budget on a CPU: 0.8 million passes of single images for a set of 25,000, minutes on two cores."""


def checked(clean: Samples | None, plan: Configuration) -> Samples:
    """Return the clean set if it is large enough.

    It takes at least one batch: from fewer samples each step would show all of them, and their part in the batch
    statistics would be smaller than published.

    Raises:
        UsageError: there is none, or it is too small.
    """
    had = 0 if clean is None else len(clean)
    if clean is None or had < plan.batch_size:
        given = "none was given" if clean is None else f"only {had} were given"
        raise UsageError(
            f"{ConfusionTrainingPaper.name} needs clean samples, at least a batch of {plan.batch_size} "
            f"({plan.clean_size:,} in the paper), and {given}"
        )
    return clean


def scaled(plan: Configuration, budget: float) -> Configuration:
    """Return the configuration with its numbers of epochs and steps multiplied by the budget, at least 1 each."""

    def less(count: int) -> int:
        return max(round(budget * count), 1)

    return replace(
        plan,
        victim_epochs=less(plan.victim_epochs),
        pretrain_epochs=tuple(map(less, plan.pretrain_epochs)),
        confusion_steps=tuple(map(less, plan.confusion_steps)),
    )


def notes(
    preset: Preset, plan: Configuration, run: Configuration, budget: float, samples: Samples, clean: Samples
) -> tuple[str, ...]:
    """Return what a reader of the verdict should know.

    Args:
        preset: the configuration that was chosen.
        plan: with what was set otherwise.
        run: as it was run, scaled by the budget.
        budget: in (0, 1].
        samples: the inspected set.
        clean: the clean set.
    """
    told = [f"the published configuration for {preset} was taken"]
    if budget < 1:
        told.append(
            f"epochs and steps were scaled by {budget:g}: {run.victim_epochs} epochs of the victim instead of "
            f"{plan.victim_epochs}, {total(run, run.pretrain_epochs)} of pretraining instead of "
            f"{total(plan, plan.pretrain_epochs)} and {total(run, run.confusion_steps):,} steps of confusion instead "
            f"of {total(plan, plan.confusion_steps):,}; budget=1 runs them all"
        )
    if len(clean) < plan.clean_size:
        told.append(f"the clean set holds {len(clean):,} samples, the paper's {plan.clean_size:,}")
    lacking = np.setdiff1d(samples.labels, clean.labels).tolist()
    if lacking:
        names = listed([samples.classes[label] for label in lacking])
        told.append(f"the clean set holds no sample of {names}: what these classes look like is not confused")
    if plan.flagged_share is not None:
        told.append(
            f"there was no test: {plan.flagged_share:.3g} of the set is flagged, whether or not it holds poison"
        )
    return tuple(told)


def total(plan: Configuration, values: tuple[int, ...]) -> int:
    """Return the sum of a number over all rounds."""
    return sum(of_round(values, number) for number in range(plan.rounds))


class Run:
    """One inspection: the trainings of its rounds."""

    def __init__(
        self,
        method: ConfusionTrainingPaper,
        plan: Configuration,
        samples: Samples,
        clean: Samples,
        compute: Compute,
        seed: int,
        workdir: Path | None,
        on_progress: OnProgress,
    ) -> None:
        self.method, self.plan, self.samples, self.clean = method, plan, samples, clean
        self.compute, self.seed, self.workdir, self.on_progress = compute, seed, workdir, on_progress
        self.data, self.clean_data = DeviceSet(samples, compute.device), DeviceSet(clean, compute.device)
        self.avoided = self.clean_data.labels
        self.key = fingerprint(samples, content(samples), clean, content(clean), method, plan, seed, __version__)

    def victim(self) -> Net:
        """Train as the reference trainer does, with augmentation, on the whole set."""
        plan = TrainingPlan(epochs=self.plan.victim_epochs)
        net = self.new(Stream.VICTIM, 0)
        self.train(
            net,
            "train the victim",
            "victim",
            supervised(self.data, plan, self.seed, self.compute),
            plan.epochs * Batches(len(self.data), plan.batch_size, self.seed).per_epoch,
            plan.sgd(),
            self.key,
        )
        return net

    def avoid(self, labels: NDArray[np.int64]) -> None:
        """Take the victim's answers to the clean samples, ``int64 (M,)``, for the labels not to confuse with."""
        self.avoided = torch.from_numpy(labels).to(self.compute.device)

    def pretrain(self, number: int, distilled: Mask, before: Net | None) -> Net:
        """Train on the distilled samples under their labels, and in late rounds on the clean ones under wrong labels.

        Args:
            number: the round, from 0.
            distilled: ``bool (N,)``.
            before: what the round before was pretrained to, which a warm start trains on; None in the first.
        """
        plan, compute = self.plan, self.compute
        net = before if plan.warm_start and before is not None else self.new(Stream.PRETRAINED, number)
        rows, joined = torch.from_numpy(np.flatnonzero(distilled)), number + 1 >= plan.clean_from
        wrong = offset(self.avoided, torch.arange(len(self.clean)).to(compute.device), len(self.samples.classes))
        batches = Batches(len(rows) + joined * len(self.clean), plan.pretrain_batch_size, self.seed)

        def loss_of_step(model: nn.Module, step: int) -> Tensor:
            drawn = compute.share(batches(step))
            of_set, of_clean = drawn[drawn < len(rows)], drawn[drawn >= len(rows)] - len(rows)
            inputs, labels = self.data.batch(rows[of_set])
            if joined:
                inputs = torch.cat([inputs, self.clean_data.batch(of_clean)[0]])
                labels = torch.cat([labels, wrong[of_clean.to(wrong.device)]])
            return nn.functional.cross_entropy(model(inputs), labels)

        self.train(
            net,
            f"round {number + 1}: pretrain",
            f"pretrained-{number}",
            loss_of_step,
            of_round(plan.pretrain_epochs, number) * batches.per_epoch,
            plan.pretrain_sgd(),
            fingerprint(self.key, distilled.tobytes()),
        )
        return net

    def confuse(self, number: int, distilled: Mask, pretrained: Net) -> Net:
        """Train a copy of the pretrained net on clean samples under wrong labels, and now and then on distilled ones.

        Args:
            number: the round, from 0.
            distilled: ``bool (N,)``.
            pretrained: left as it is.
        """
        plan, compute, n_classes = self.plan, self.compute, len(self.samples.classes)
        net = copy.deepcopy(pretrained)
        rows = torch.from_numpy(np.flatnonzero(distilled))
        batches = Batches(len(rows), plan.batch_size, self.seed)
        clean_batches = Batches(len(self.clean), plan.batch_size, self.seed + 1)
        lambda_, every = of_round(plan.lambda_, number), of_round(plan.every, number)
        weights = None
        if number < plan.rounds - 1:
            labels = self.samples.labels[distilled]
            weights = class_weights(labels, n_classes, self.method.smoothing).to(compute.device)

        def loss_of_step(model: nn.Module, step: int) -> Tensor:
            shown = compute.share(clean_batches(step))
            inputs, _ = self.clean_data.batch(shown)
            wrong = offset(self.avoided[shown.to(compute.device)], step, n_classes)
            if step % every:
                return nn.functional.cross_entropy(model(inputs), wrong)
            inspected, labels = self.data.batch(compute.share(rows[batches(step // every)]))
            return confusion_loss(model(torch.cat([inputs, inspected])), wrong, labels, weights, lambda_)

        self.train(
            net,
            f"round {number + 1}: confuse",
            f"confused-{number}",
            loss_of_step,
            of_round(plan.confusion_steps, number),
            plan.confusion_sgd(number),
            fingerprint(self.key, distilled.tobytes()),
        )
        return net

    def new(self, stream: Stream, number: int) -> Net:
        """Return a net with fresh weights."""
        name, samples = self.method.net, self.samples
        if name is None and samples.images is not None:
            name = (ResNet18 if self.compute.device.type == "cuda" else CompactResNet).name
        net = build(name, samples.sample_shape, samples.classes, generator=draws(self.seed, stream, number))
        net.preprocess.measure(samples.inputs)
        return net

    def train(
        self,
        net: Net,
        phase: str,
        file: str,
        loss_of_step: Callable[[nn.Module, int], Tensor],
        steps: int,
        optimizer: SGD,
        key: str,
    ) -> None:
        """Train a net in place; its checkpoint has this name."""
        optimise(
            net,
            loss_of_step,
            steps=steps,
            sgd=optimizer,
            compute=self.compute,
            phase=phase,
            on_progress=self.on_progress,
            checkpoint=None if self.workdir is None else self.workdir / f"{file}.safetensors",
            key=key,
        )


# The steps, each by itself.


def offset(labels: Tensor, number: int | Tensor, n_classes: int) -> Tensor:
    """Return wrong labels: each moved on by 1 to K − 1 classes, as far as the number of the batch or sample says.

    Args:
        labels: ``int64 (B,)``, those to avoid.
        number: of the batch, or of each sample ``(B,)``; the offsets repeat after K − 1 of them.
        n_classes: K.
    """
    return (labels + 1 + number % (n_classes - 1)) % n_classes


def class_weights(labels: Labels, n_classes: int, smoothing: float) -> Tensor:
    """Return each class's weight in the distilled samples' loss, ``float32 (K,)``.

    Args:
        labels: of the distilled samples, ``(M,)``.
        n_classes: K.
        smoothing: added to a class's share of them.
    """
    frequencies = np.bincount(labels, minlength=n_classes) / len(labels)
    return torch.from_numpy(1 / np.sqrt(frequencies + smoothing)).float()


def confusion_loss(outputs: Tensor, wrong: Tensor, labels: Tensor, weights: Tensor | None, lambda_: float) -> Tensor:
    """Return ((λ − 1) · confusion + inspection) / λ.

    Args:
        outputs: logits of the clean samples, followed by those of the distilled ones, ``(B + M, K)``.
        wrong: labels for the clean samples, ``(B,)``.
        labels: labels of the distilled ones, ``(M,)``.
        weights: the classes' weights in the mean over the distilled ones, ``(K,)``; None weighs all alike.
        lambda_: λ.
    """
    confusion = nn.functional.cross_entropy(outputs[: len(wrong)], wrong)
    inspection = nn.functional.cross_entropy(outputs[len(wrong) :], labels, weight=weights)
    return ((lambda_ - 1) * confusion + inspection) / lambda_


def cross_entropy(logits: NDArray[np.float32], labels: Labels) -> Losses:
    """Return the loss of each label in nats, ``float32 (N,)``, exact also where it is next to nothing."""
    rows = np.arange(len(labels))
    rest = logits.astype(np.float64) - logits[rows, labels][:, None]
    rest[rows, labels] = -np.inf
    losses: Losses = np.logaddexp(0, logsumexp(rest, axis=1)).astype(np.float32)
    return losses


def distil(losses: Losses, labels: Labels, share: float, floor: float) -> Mask:
    """Return the samples of the lowest loss, ``bool (N,)``: a share of all, and of each class a share at least.

    Args:
        losses: of the samples' labels, ``(N,)``.
        labels: ``(N,)``.
        share: of all samples, in (0, 1], rounded down but to no less than one sample.
        floor: of each class, in [0, 1], rounded up.
    """
    order = np.argsort(losses, kind="stable")
    distilled = np.zeros(len(labels), dtype=np.bool_)
    distilled[order[: max(int(share * len(order)), 1)]] = True
    for label in np.unique(labels):
        members = order[labels[order] == label]
        distilled[members[: math.ceil(floor * len(members))]] = True
    return distilled


def embed(net: Net, data: DeviceSet) -> NDArray[np.float32]:
    """Return what the net's head sees of each sample, ``float32 (N, F)``."""
    net.eval()
    cuda, parts = data.device.type == "cuda", []
    with torch.inference_mode(), torch.autocast(data.device.type, torch.bfloat16, enabled=cuda):
        for start in range(0, len(data), 1000):
            rows = torch.arange(start, min(start + 1000, len(data)))
            parts.append(net.features(data.batch(rows)[0]).float().cpu().numpy())
    return np.concatenate(parts)


def principal_planes(features: NDArray[np.float32], labels: Labels) -> NDArray[np.float32]:
    """Return where each sample lies on its class's two principal axes, ``float32 (N, 2)``; 0 for one alone in a class.

    Args:
        features: ``(N, F)``, F ≥ 2.
        labels: ``(N,)``.
    """
    plane = np.zeros((len(labels), 2), dtype=np.float32)
    for label in np.unique(labels):
        members = labels == label
        if members.sum() > 1:
            plane[members] = PCA(2, svd_solver="full").fit_transform(features[members].astype(np.float64))
    return plane


def likelihood_ratios(
    plane: NDArray[np.float32], own: Mask, labels: Labels, n_classes: int, ridge: float
) -> NDArray[np.float64]:
    """Return by what factor each class becomes likelier, per sample, if those of its label have their own Gaussian.

    One Gaussian is fitted to the samples of a class that the confused classifier gives their label, one to the rest.
    The factor compares both, each for its own samples, with the rest's Gaussian for all of the class.

    Args:
        plane: ``(N, 2)``.
        own: ``bool (N,)``, samples that the confused classifier gives their label.
        labels: ``(N,)``.
        n_classes: K.
        ridge: added to the variances.

    Returns:
        ``(K,)``; NaN for a class in which fewer than two samples are on either side.
    """
    ratios = np.full(n_classes, np.nan)
    for label in np.unique(labels):
        members = labels == label
        kept, rest = plane[members & own].astype(np.float64), plane[members & ~own].astype(np.float64)
        if len(kept) > 1 and len(rest) > 1:
            gain = log_density(kept, kept, ridge) - log_density(kept, rest, ridge)
            # Beyond the largest number the exponential would only warn.
            ratios[label] = np.exp(min(gain.sum() / len(plane[members]), LARGEST))
    return ratios


LARGEST = math.log(sys.float_info.max)
"""The exponential of more is infinite."""


def log_density(points: NDArray[np.float64], fitted: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Return the logarithm of the points' density, ``(N,)``, under the Gaussian fitted to other points ``(M, 2)``."""
    covariance = np.cov(fitted, rowvar=False) + ridge * np.eye(fitted.shape[1])
    density: NDArray[np.float64] = multivariate_normal.logpdf(points, fitted.mean(axis=0), covariance)
    return density


def lowest(losses: Losses, own: Mask, samples: Samples, share: float) -> tuple[Mask, tuple[ClassEvidence, ...]]:
    """Return the share of the set with the lowest losses, ``bool (N,)``, and the evidence per class.

    Args:
        losses: of the samples' labels, ``(N,)``.
        own: ``bool (N,)``, samples that the confused classifier gives their label.
        samples: the set.
        share: in (0, 1], rounded down but to no less than one sample.
    """
    flagged = distil(losses, samples.labels, share, 0)
    cut = float(losses[flagged].max())
    evidence = []
    for label in range(len(samples.classes)):
        members = samples.labels == label
        n_flagged = int((members & flagged).sum())
        least = float(np.min(losses, where=members, initial=np.inf))
        evidence.append(
            ClassEvidence(
                label=label,
                n_samples=int(members.sum()),
                n_suspects=int((members & own).sum()),
                n_flagged=n_flagged,
                statistic=-least,
                threshold=-cut,
                condemned=n_flagged > 0,
                reason=f"{n_flagged} are among the {share:.3g} of the set with the lowest loss, {cut:.3g} nats at most",
            )
        )
    return flagged, tuple(evidence)
