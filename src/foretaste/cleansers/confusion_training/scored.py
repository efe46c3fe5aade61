"""The scores of one round, and what follows from them: suspects, flags, and the evidence for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from foretaste.cleansers.confusion_training.evidence import Mark, Probabilities
from foretaste.cleansers.confusion_training.mixture import posterior_log_odds
from foretaste.cleansers.pixel_spectral_signatures import Pattern
from foretaste.cleansers.verdict import ClassEvidence, Round
from foretaste.samples import Labels, Mask, Samples

LEAST_CUT = 0.7
"""The cut is at this gain at least, in nats: a label that became twice as likely."""

Outputs = NDArray[np.float32]
"""Of a view, ``float32 (N, K + 1)``: added to each label's logit, the last taken from the base answer's."""
LogOdds = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """How one round scored N samples, each by models that never saw its label.

    Attributes:
        labels: ``(N,)``.
        outputs: of each view, ``(N, K + 1)``.
        marks: the clearest mark of each label, and last that of any label but the base model's answer.
        named: ``float32 (N, V)``, by how many nats each view made the sample's own label likelier than the mean of all,
            in multiples of the cut, which lies ``spread`` robust standard deviations above 0.
        denied: ``float32 (N, V)``, by how many it took the base model's answer down, in multiples of that cut.
        disagree: ``bool (N,)``, samples whose label is not the base model's answer.
    """

    labels: Labels
    outputs: Sequence[Outputs]
    marks: Sequence[Mark]
    named: NDArray[np.float32]
    denied: NDArray[np.float32]
    disagree: Mask

    @classmethod
    def of(
        cls, base: Probabilities, outputs: Sequence[Outputs], marks: Sequence[Mark], labels: Labels, spread: float
    ) -> Scored:
        """Score the samples by the outputs of the views.

        Args:
            base: calibrated probabilities of the base model, ``(N, K)``.
            outputs: of each view, ``(N, K + 1)``.
            marks: the clearest mark of each label.
            labels: ``(N,)``.
            spread: of the cut, in robust standard deviations.
        """
        rows = np.arange(len(labels))
        return cls(
            labels=labels,
            outputs=outputs,
            marks=marks,
            named=in_cuts(np.stack([some[rows, labels] - some[:, :-1].mean(axis=1) for some in outputs], 1), spread),
            denied=in_cuts(np.stack([some[:, -1] for some in outputs], 1), spread),
            disagree=base.argmax(axis=1) != labels,
        )

    @property
    def scores(self) -> NDArray[np.float32]:
        """How suspicious each sample is to each view, ``float32 (N, V)``, whatever mark it may carry."""
        return np.where(self.disagree[:, None], np.maximum(self.named, self.denied), self.named)

    @property
    def suspicious(self) -> Mask:
        """Which samples score above the cut in any view, ``bool (N,)``."""
        above: Mask = np.any(self.scores > 1, axis=1)
        return above

    @property
    def condemned(self) -> list[Mark]:
        """The marks that were found."""
        return [mark for mark in self.marks if mark.condemned]

    @property
    def accused(self) -> Mask:
        """Which samples carry a condemned label, ``bool (N,)``."""
        return np.isin(self.labels, [mark.label for mark in self.condemned])

    def members(self, mark: Mark) -> Mask:
        """Return the samples among which the carriers of a mark are poison, ``bool (N,)``."""
        return self.disagree if self.is_any_label(mark) else self.labels == mark.label

    def compared(self, mark: Mark) -> Mask:
        """Return the samples that carriers of a mark are told from by their scores, ``bool (N,)``, themselves included.

        Of a label those that carry it. Of any label all samples: nearly all that disagree with the base model may be
        poison, and so few others would not show how the rest scores.
        """
        return np.ones_like(self.disagree) if self.is_any_label(mark) else self.members(mark)

    def is_any_label(self, mark: Mark) -> bool:
        """Say whether a mark goes with any label but the base model's answer."""
        return mark.label == len(self.marks) - 1

    def log_odds(self, mark: Mark, seeds: Mask, extra: NDArray[np.floating] | None = None) -> LogOdds:
        """Return the log odds that a sample is poison with this mark, ``float64 (N,)``; −∞ outside its members.

        Args:
            mark: the mark.
            seeds: ``bool (N,)``, poison to begin with.
            extra: ``(N,)``, scores of one more view, or None.
        """
        rows, members = np.flatnonzero(self.compared(mark)), self.members(mark)
        # Only what the mark changes: poison which the base model took for natural, or not, then looks the same.
        of_mark = self.denied if self.is_any_label(mark) else self.named
        scores = of_mark[rows] if extra is None else np.column_stack([of_mark[rows], extra[rows]])
        odds = np.full(len(self.labels), -np.inf)
        possible_seeds = seeds & members
        if possible_seeds.any():
            odds[rows] = posterior_log_odds(scores, possible_seeds[rows], self.disagree[rows], members[rows])
        return odds

    def final_scores(self, odds: LogOdds) -> NDArray[np.float32]:
        """Return one score for each sample, ``float32 (N,)``: above 1 where it is poison by the odds."""
        highest = self.scores.max(axis=1).clip(0)
        scores = np.where(odds > 0, 1 + np.log1p(odds.clip(0)), highest / (1 + highest))
        final: NDArray[np.float32] = scores.astype(np.float32)
        return final

    def as_round(self, name: str, kept: Mask, seconds: float) -> Round:
        """Return the round for the report, with the loss of the view that knows each sample's label best, in nats."""
        rows = np.arange(len(self.labels))
        losses = np.min([-log_softmax(some[:, :-1], axis=1)[rows, self.labels] for some in self.outputs], axis=0)
        return Round(name=name, losses=losses.astype(np.float32), kept=kept, seconds=seconds)


def in_cuts(gains: NDArray[np.float32], spread: float) -> NDArray[np.float32]:
    """Return gains ``(N, V)``, in nats, in multiples of each view's cut."""
    deviations = 1.4826 * np.median(np.abs(gains - np.median(gains, axis=0)), axis=0)
    scaled: NDArray[np.float32] = (gains / np.maximum(spread * deviations, LEAST_CUT)).astype(np.float32)
    return scaled


def class_evidence(
    scored: Scored,
    samples: Samples,
    flagged: Mask,
    views: Sequence[str],
    tolerance: float,
    patterns: Mapping[int, Pattern] | None = None,
) -> tuple[ClassEvidence, ...]:
    """Return the evidence of every class: the test that condemned it, or its own if none did.

    Args:
        scored: the scores, with the marks that decided.
        samples: the set.
        flagged: ``bool (N,)``.
        views: names of the views.
        tolerance: factor by which the base model's odds were allowed to be too low.
        patterns: classes that a pattern in pixels condemned, by label.
    """
    evidence = []
    *own, any_label = scored.marks
    suspicious = scored.suspicious
    for label, name in enumerate(samples.classes):
        members = samples.labels == label
        n_flagged = int(np.count_nonzero(flagged & members))
        if patterns and label in patterns:
            statistic, threshold = patterns[label].statistic, patterns[label].threshold
            reason = (
                f"{n_flagged} images carry one pattern that the rest of the class does not: in pixels, "
                f"{patterns[label].reason}"
            )
        else:
            mark = any_label if n_flagged and not own[label].condemned else own[label]
            statistic, threshold = 0.0 - math.log10(mark.p_value), -math.log10(mark.threshold)
            carried = "labelled other than the base model would" if mark is any_label else f"labelled {name}"
            reason = (
                f"of the {mark.n_samples} samples with the clearest mark by {views[mark.view]}, {mark.observed} are "
                f"{carried}; the base model expects at most {mark.expected:.1f}, even if its odds are {tolerance:g} "
                "times too low"
            )
            if mark.condemned and not n_flagged:
                reason += "; but none of them stands out from the rest of the class"
        evidence.append(
            ClassEvidence(
                label=label,
                n_samples=int(np.count_nonzero(members)),
                n_suspects=int(np.count_nonzero(suspicious & members)),
                n_flagged=n_flagged,
                statistic=statistic,
                threshold=threshold,
                condemned=n_flagged > 0,
                reason=reason,
            )
        )
    return tuple(evidence)
