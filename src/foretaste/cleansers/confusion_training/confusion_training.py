"""Confusion Training: train models that can learn nothing but the backdoor, and see which samples they know."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.cleansers.confusion_training.base_model import base_logits
from foretaste.cleansers.confusion_training.detector import detect
from foretaste.cleansers.confusion_training.evidence import Mark, calibrate, find_marks
from foretaste.cleansers.confusion_training.mixture import posterior_log_odds
from foretaste.cleansers.confusion_training.near_duplicates import enriched
from foretaste.cleansers.confusion_training.run import Run
from foretaste.cleansers.confusion_training.views import VIEWS, Outputs, view_outputs
from foretaste.cleansers.verdict import ClassEvidence, Round, Verdict
from foretaste.progress import OnProgress, silent
from foretaste.samples import Labels, Mask, Samples
from foretaste.training import check


@dataclass(frozen=True, kw_only=True)
class ConfusionTraining:
    """X

    Attributes:
        rounds: ≥ 1.
    """

    name: ClassVar[str] = "confusion-training"
    summary: ClassVar[str] = "trains models that can learn nothing but the backdoor (arXiv:2205.13616)"

    rounds: int = 2
    folds: int = 3
    base_steps: int = 300
    base_fewest: int = 3
    base_most: int = 20
    base_noise: float = 20.0
    epochs: int = 3
    steps: int = 250
    network_epochs: int = 10
    network_steps: int = 130
    detector_steps: int = 200
    batch_size: int = 256
    clean_batch_size: int = 64
    lambda_: float = 2.0
    substitute: int = 500
    label_noise: float = 0.01
    tolerance: float = 20.0
    false_condemnations: float = 0.01
    spread: float = 4.0

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
        run = Run(self, samples, clean, seed, workdir, on_progress)
        excluded = np.zeros(len(samples), dtype=np.bool_)
        rounds: list[Scored] = []
        for number in range(self.rounds):
            run.begin_round(excluded)
            began = time.perf_counter()
            rounds.append(self.round(run, number, excluded))
            excluded = self.suspects(rounds[-1], samples)
            if not excluded.any():
                break
        marks = combined([scored.marks for scored in rounds])
        return rounds, marks, *self.flag(run, rounds[-1], marks)

    def round(self, run: Run, number: int, excluded: Mask) -> Scored:
        """Train the base model and the views, and score every sample."""
        labels = run.samples.labels
        base = calibrate(base_logits(run, number, excluded), labels, self.label_noise)
        references = run.clean_references(base[np.arange(len(labels)), labels], excluded, number)
        outputs = view_outputs(run, number, base, references)
        marks = find_marks(
            base, outputs, labels, tolerance=self.tolerance, false_condemnations=self.false_condemnations
        )
        scores = np.stack([gains(some, base, labels) for some in outputs], axis=1)
        deviations = 1.4826 * np.median(np.abs(scores - np.median(scores, axis=0)), axis=0)
        scores = scores / np.maximum(self.spread * deviations, 0.7)
        return Scored(base=base, outputs=outputs, marks=marks, scores=scores, disagree=base.argmax(axis=1) != labels)

    def suspects(self, scored: Scored, samples: Samples) -> Mask:
        """Return the samples that the next base model is not trained on, ``bool (N,)``."""
        high = (scored.scores[:, [0, 2]] > 0.75).any(axis=1)
        high &= ~enriched(samples.inputs, samples.labels, high)
        for mark in scored.marks:
            if mark.condemned:
                members = scored.members(mark, samples.labels)
                high[members] = posterior_log_odds(scored.scores[members], mark.seeds[members], scored.disagree[members], 0.1) > 0
        return high

    def flag(self, run: Run, scored: Scored, marks: list[Mark]):
        condemned = [mark for mark in marks if mark.condemned]
        flagged = np.zeros(len(run.samples), dtype=np.bool_)
        odds = np.zeros(len(run.samples))
        if not condemned:
            return flagged, odds
        members = np.stack([scored.members(mark, run.samples.labels) for mark in condemned])
        suspects = np.stack([mark.seeds for mark in condemned]) & members
        ev = scored.scores
        for turn in range(2):
            log_odds = detect(run, f"{turn}", suspects, members)
            for row, mark in enumerate(condemned):
                who = members[row]
                measures = np.column_stack([ev[who], log_odds[row, who] / 2])
                o = posterior_log_odds(measures, suspects[row, who], scored.disagree[who], 0.1)
                suspects[row, who] = o > 0
                odds[who] = o
        return suspects.any(axis=0), odds


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    base: NDArray[np.float64]
    outputs: list[Outputs]
    marks: list[Mark]
    scores: NDArray[np.float32]
    disagree: Mask

    def members(self, mark: Mark, labels: Labels) -> Mask:
        """Return the samples among which the carriers of a mark are poison, ``bool (N,)``."""
        return self.disagree if mark.label == self.base.shape[1] else labels == mark.label


def combined(rounds: list[list[Mark]]) -> list[Mark]:
    return rounds[-1]


def gains(outputs: Outputs, base: NDArray[np.float64], labels: Labels) -> NDArray[np.float32]:
    rows, answers = np.arange(len(labels)), base.argmax(axis=1)
    named = outputs[rows, labels] - outputs[:, :-1].mean(axis=1)
    denied = np.where(answers != labels, np.maximum(outputs[:, -1], 0), 0)
    return (named + denied).astype(np.float32)
