"""Confusion Training: train models that can learn nothing but the backdoor, and see which samples they know."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from foretaste.cleansers._base.axes import plane
from foretaste.cleansers._base.near_duplicates import enriched
from foretaste.cleansers.confusion_training.base_model import natural
from foretaste.cleansers.confusion_training.detector import detect
from foretaste.cleansers.confusion_training.evidence import References, find_marks
from foretaste.cleansers.confusion_training.run import Run
from foretaste.cleansers.confusion_training.scored import LogOdds, Scored, class_evidence
from foretaste.cleansers.confusion_training.views import VIEWS, view_outputs
from foretaste.cleansers.pixel_spectral_signatures import Pattern, PixelSpectralSignatures
from foretaste.cleansers.verdict import Round, Verdict
from foretaste.progress import OnProgress, silent
from foretaste.samples import Mask, Samples
from foretaste.training import check, side_by_side

CERTAIN = 5.0
"""Log odds of poison where a pattern alone condemned a class."""


@dataclass(frozen=True, kw_only=True)
class ConfusionTraining:
    """Find poison with models that can learn nothing but the backdoor (Qi et al. 2023, arXiv:2205.13616).

    A *base model* says which label each image would naturally have. Small confused models, the *views*, learn the set's
    labels on top of what the base model says, and random labels on clean references, so that only a mark is left to be
    learnt; one goes by place, one by sharpness, one by shape, and each sample is judged by models that never saw its
    label. A label is *condemned* if, among the samples which show its mark most clearly, it is more frequent than the
    base model can explain, even if that were wrong by a factor. In a condemned class a *detector* learns to tell the
    suspects from the rest, as one more view, and a *mixture* of two distributions over all views says which samples are
    poison. A second round trains the base model without what looked suspicious, so that it unlearns a mark which it had
    taken for natural, and without the noise that hid textures from it; the last round decides. Given a clean set,
    poison whose labels are right is condemned by its pattern alone, where that parts the class in pixels and the clean
    samples of the class lack it (``PixelSpectralSignatures``).

    Feature vectors are left to ``residual-trees``, which works by the same evidence.

    Attributes:
        net: architecture of the base model's networks, a key of ``foretaste.nets.NETS``; None is ``compact-resnet``,
            with which all of the project's figures were measured.
        rounds: rounds at most, ≥ 1; the last decides. After the second, others follow only where poison was missed.
        missed: that is so if, for each suspect in the condemned classes, more samples than this, ≥ 0, score high there,
            were doubted by the first base model, and are no suspects. Later base models are trained without them, too.
        folds: parts of the set that are judged by models that never saw them, ≥ 2.
        base_steps: steps of each network of the base model on 10,000 samples, ≥ 1. They grow with the cube root of the
            set: in many passes over a small set the networks would learn rare marks, and a large one takes fewer.
        shift: images are moved by up to this many pixels each way for the base model, which hides small marks at one
            place, ≥ 0.
        base_noise: standard deviation of the noise in the first round's base model, in values of 0 to 255, ≥ 0.
        view_steps: steps of the linear views at least, and of the detectors, ≥ 1.
        view_passes: of the linear views over the set at least, ≥ 0.
        network_steps: steps of the convolutional view, ≥ 1.
        smallest_distilled: how many samples that agree with the base model the convolutional view learns from at least,
            beside those that do not, if the set holds so many, ≥ 1.
        turns: of self-training, ≥ 0: what one finds, the detectors of the next learn from.
        batch_size: samples of the set in a step of a view, ≥ 4; a quarter as many are clean references.
        lambda_: the loss of a view is ((λ − 1) · confusion + inspection) / λ; above 1. The paper's 20 is for a network
            that knows the classes; the views start from nothing.
        substitute: how many of the set's own samples stand in for a missing clean set, ≥ 1.
        spread: a sample is suspicious if a view makes its label likelier by more than this many robust standard
            deviations of all gains, > 0.
        label_noise: least share of labels that is taken to be random, in (0, 1).
        tolerance: factor by which the odds of the base model may be too low, ≥ 1. In sets without poison, of noisy,
            mixed or rare classes, it stays within 10.
        false_condemnations: chance that a set without poison has a condemned class, in (0, 1).

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "confusion-training"
    summary: ClassVar[str] = "trains models that can learn nothing but the backdoor (arXiv:2205.13616)"

    net: str | None = None
    rounds: int = 4
    missed: float = 1.0
    folds: int = 3
    base_steps: int = 420
    shift: int = 3
    base_noise: float = 20.0
    view_steps: int = 150
    view_passes: int = 3
    network_steps: int = 80
    smallest_distilled: int = 2000
    turns: int = 3
    batch_size: int = 256
    lambda_: float = 2.0
    substitute: int = 500
    spread: float = 4.0
    label_noise: float = 0.01
    tolerance: float = 20.0
    false_condemnations: float = 0.01

    def __post_init__(self) -> None:
        counts = (
            "rounds",
            "base_steps",
            "view_steps",
            "network_steps",
            "smallest_distilled",
            "substitute",
        )
        for name in counts:
            check(getattr(self, name) >= 1, f"{name} must be 1 or more")
        for name in ("shift", "view_passes", "turns"):
            check(getattr(self, name) >= 0, f"{name} must be 0 or more")
        check(self.folds >= 2, "folds must be 2 or more")
        check(self.batch_size >= 4, "batch_size must be 4 or more")
        check(self.base_noise >= 0, "base_noise must be 0 or more")
        check(self.missed >= 0, "missed must be 0 or more")
        check(self.lambda_ > 1, "lambda_ must be above 1")
        check(self.spread > 0, "spread must be above 0")
        check(self.tolerance >= 1, "tolerance must be 1 or more")
        check(0 < self.label_noise < 1, "label_noise must be in (0, 1)")
        check(0 < self.false_condemnations < 1, "false_condemnations must be in (0, 1)")

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
        if samples.features is not None:
            return self.inspect_features(samples, clean, seed, workdir, on_progress)
        start = time.perf_counter()
        run = Run(self, samples, clean, seed, workdir, on_progress)
        # To a base model that learns from them, what is on a good part of a class would be natural.
        patterns = self.patterns(samples, clean, seed, on_progress)
        carriers = np.zeros(len(samples), dtype=np.bool_)
        for pattern in patterns.values():
            carriers[pattern.carriers] = True
        excluded = carriers
        rounds: list[Round] = []
        for number in range(self.rounds):
            began, before = time.perf_counter(), excluded
            scored = self.score(run, number, before)
            suspects = excluded = self.suspects(scored, samples, before)
            rounds.append(scored.as_round(f"round {number + 1}", suspects, time.perf_counter() - began))
            if number == 0:
                doubted = scored.disagree
            else:
                # Later base models are better, but what was not excluded from them they may have learnt as natural.
                missed = scored.accused & scored.suspicious & doubted & ~suspects
                many = self.missed * np.count_nonzero(suspects & scored.accused)
                if number == 1 and np.count_nonzero(missed & ~before) <= many:
                    break
                excluded = suspects | missed
            if np.array_equal(excluded, before):
                break
        odds = self.poison_log_odds(run, scored, suspects)
        # Poison with right labels is what the base model expects, so only its pattern can condemn a class.
        alone = carriers & ~np.isin(samples.labels, samples.labels[odds > 0])
        odds[alone] = CERTAIN
        flagged = odds > 0
        patterns = {label: patterns[label] for label in np.unique(samples.labels[alone]).tolist()}
        return Verdict(
            scores=scored.final_scores(odds),
            flagged=flagged,
            classes=class_evidence(scored, samples, flagged, VIEWS, self.tolerance, patterns),
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - start,
            notes=run.notes(),
            rounds=tuple(rounds),
            embedding=plane(scored.outputs[0]),
        )

    def inspect_features(
        self, samples: Samples, clean: Samples | None, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge feature vectors by ``residual-trees``, and say so."""
        from foretaste.cleansers.residual_trees import ResidualTrees

        method = ResidualTrees(folds=self.folds, false_condemnations=self.false_condemnations)
        verdict = method.inspect(samples, clean, seed=seed, workdir=workdir, on_progress=on_progress)
        note = f"the samples are feature vectors, so they were judged by {method.name}, which has settings of its own"
        return replace(verdict, method=self.name, notes=(note, *verdict.notes))

    def patterns(
        self, samples: Samples, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> dict[int, Pattern]:
        """Return the patterns in pixels that condemn a class, by label; without a clean set any may be natural."""
        if clean is None:
            return {}
        method = PixelSpectralSignatures(folds=self.folds, false_condemnations=self.false_condemnations)
        _, patterns = method.project(samples, clean, seed, on_progress)
        return {label: pattern for label, pattern in enumerate(patterns) if pattern.condemns}

    def score(self, run: Run, number: int, excluded: Mask) -> Scored:
        """Train the base model without what is excluded, then the views, and score every sample out of fold."""
        labels = run.samples.labels
        run.begin_round(excluded)
        known = natural(run, number, excluded)
        base = known[: len(labels)]
        clean = run.clean_references(base[np.arange(len(labels)), labels], excluded, number)
        outputs, of_clean = (list(some) for some in view_outputs(run, number, base, clean))
        # Only a clean set can be trusted to hold no mark; what stands in for it may.
        trusted = None
        if run.clean is not None:
            trusted = References(base=known[len(labels) :], outputs=of_clean, labels=clean.labels)
        marks = find_marks(
            base,
            outputs,
            labels,
            references=trusted,
            tolerance=self.tolerance,
            false_condemnations=self.false_condemnations,
        )
        return Scored.of(base, outputs, marks, labels, self.spread)

    def suspects(self, scored: Scored, samples: Samples, before: Mask) -> Mask:
        """Return the samples that the next base model is not trained on, ``bool (N,)``.

        Of classes that are not condemned those which score high, but not if their neighbours do too: a natural look
        that is excluded as a whole would look like a mark to the next round. Of condemned ones those which are poison
        by the views, where ``before`` are those of the round before.
        """
        high = scored.suspicious
        high &= ~enriched(samples.inputs, samples.labels, high)
        for mark in scored.condemned:
            members = scored.members(mark)
            high[members] = scored.log_odds(mark, mark.seeds | before)[members] > 0
        return high

    def poison_log_odds(self, run: Run, scored: Scored, suspects: Mask) -> LogOdds:
        """Return the log odds that each sample is poison by all views and detectors; −∞ where nothing is condemned.

        What starts from the clearest few alone may stop at those whose fold learnt the mark best, so it goes on from
        the suspects of the last round.
        """
        odds = np.full(len(run.samples), -np.inf)
        marks = scored.condemned
        if not marks:
            return odds
        compared = np.stack([scored.compared(mark) for mark in marks])
        of_marks = np.stack([scored.log_odds(mark, mark.seeds | suspects) for mark in marks])
        for turn in range(self.turns):
            carriers = of_marks > 0
            (detected,) = side_by_side(
                [partial(detect, run, f"{turn}", carriers, compared)],
                compute=run.compute,
                phase=f"train detectors of {len(marks)} mark{'s' if len(marks) > 1 else ''}",
                on_progress=run.on_progress,
            )
            of_marks = np.stack(
                [
                    scored.log_odds(mark, some, extra)
                    for mark, some, extra in zip(marks, carriers, detected, strict=True)
                ]
            )
        highest: LogOdds = np.max(of_marks, axis=0)
        return highest
