"""What a screening amounts to: a trigger, more alarms than were promised, or no more than that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.stats import betabinom, binom, hypergeom

from foretaste.calibration import Threshold
from foretaste.guards.guard import Screening


class Conclusion(Enum):
    """What a screening amounts to."""

    TRIGGER = "trigger"
    """A trigger was confirmed on clean images, and inputs carry it."""
    EXCESS = "excess"
    """No trigger was confirmed, but more inputs are flagged than the false-alarm rate explains."""
    NOTHING = "nothing"
    """No trigger was confirmed, and no more inputs are flagged than the false-alarm rate explains."""


@dataclass(frozen=True, kw_only=True)
class LabelShift:
    """A label that is answered more often than to the clean images, and that no trigger explains.

    Attributes:
        label: which.
        n_inputs: inputs without a confirmed trigger that got it.
        share: their share of all inputs without one, in [0, 1].
        clean_share: its share of the answers to the clean images, in [0, 1].
        p_value: how probable so large a share is if both come from one distribution (Fisher's exact test, times the
            number of labels).
    """

    label: int
    n_inputs: int
    share: float
    clean_share: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a screening amounts to, and by which tests.

    Attributes:
        conclusion: which of the three.
        n_carriers: flagged inputs that carry a confirmed trigger.
        n_unexplained: the other flagged inputs.
        n_expected: how many of those the false-alarm rate lets be flagged on average.
        p_value: how probable at least ``n_unexplained`` false alarms are.
        shift: the label whose share has grown most surprisingly; None if none has, or nothing is known to compare with.
    """

    conclusion: Conclusion
    n_carriers: int
    n_unexplained: int
    n_expected: float
    p_value: float
    shift: LabelShift | None


@dataclass(frozen=True, kw_only=True)
class FindingRule:
    """Say what a screening amounts to as a whole.

    The number of false alarms among N inputs is beta-binomial for a threshold that is the k-th highest of n clean
    scores (Angelopoulos and Bates 2021, arXiv:2107.07511, section 3.2).

    Attributes:
        excess_level: p-value at which more inputs are flagged than the false-alarm rate explains, in (0, 1). One clean
            stream of a hundred is called suspicious at 0.01.
        shift_level: p-value at which the share of a label has grown, in (0, 1).
    """

    excess_level: float = 0.01
    shift_level: float = 0.001

    def apply(
        self,
        screening: Screening,
        *,
        false_alarm_rate: float,
        threshold: Threshold | None = None,
        clean_labels: Mapping[int, int] | None = None,
    ) -> Finding:
        """Return what a screening amounts to.

        Args:
            screening: what the guard said of N ≥ 0 inputs.
            false_alarm_rate: what the guard was calibrated to, in (0, 1).
            threshold: where suspicion begins, if the guard tells.
            clean_labels: how often each label was answered to clean images.
        """
        carries = screening.trojaned & (screening.trigger_ids != "")
        unexplained, rest = int((screening.trojaned & ~carries).sum()), int((~carries).sum())
        p_value = excess_p_value(unexplained, rest, false_alarm_rate, threshold)
        conclusion = Conclusion.NOTHING
        if carries.any():
            conclusion = Conclusion.TRIGGER
        elif p_value <= self.excess_level:
            conclusion = Conclusion.EXCESS
        return Finding(
            conclusion=conclusion,
            n_carriers=int(carries.sum()),
            n_unexplained=unexplained,
            n_expected=false_alarm_rate * rest,
            p_value=p_value,
            shift=self.label_shift(screening, clean_labels or {}),
        )

    def label_shift(self, screening: Screening, clean_labels: Mapping[int, int]) -> LabelShift | None:
        """Return the label whose share among inputs without a confirmed trigger has grown most surprisingly."""
        answers = screening.labels[~(screening.trojaned & (screening.trigger_ids != ""))]
        n_clean, n_inputs = sum(clean_labels.values()), len(answers)
        if not n_clean or not n_inputs:
            return None
        labels, counts = np.unique(answers, return_counts=True)
        before = np.array([clean_labels.get(label, 0) for label in labels.tolist()])
        p_values = hypergeom.sf(counts - 1, n_inputs + n_clean, counts + before, n_inputs)
        most = int(np.argmin(p_values))
        p_value = min(float(p_values[most]) * len(set(labels.tolist()) | set(clean_labels)), 1.0)
        if p_value > self.shift_level:
            return None
        return LabelShift(
            label=int(labels[most]),
            n_inputs=int(counts[most]),
            share=float(counts[most] / n_inputs),
            clean_share=float(before[most] / n_clean),
            p_value=p_value,
        )


def excess_p_value(flagged: int, n: int, rate: float, threshold: Threshold | None) -> float:
    """Return how probable it is that at least so many of n clean inputs are flagged.

    Where the threshold is one of the clean scores, it also counts how far these few may have put it wrong; elsewhere
    the false-alarm rate is taken to hold.
    """
    if threshold is None or not threshold.guaranteed:
        return float(binom.sf(flagged - 1, n, rate))
    above = int((threshold.scores > threshold.value).sum()) + 1
    return float(betabinom.sf(flagged - 1, n, above, threshold.n + 1 - above))
