"""What a finished scan of inputs consists of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from foretaste.calibration import Threshold
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.guards.clean_accuracy import CleanAccuracy
from foretaste.guards.finding import Finding, FindingRule
from foretaste.guards.guard import Screening
from foretaste.guards.neo.registry import Registry
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A finished scan.

    Attributes:
        samples: the N inputs; their labels are only looked at where the truth is known.
        screening: what the guard said of them.
        classes: the names of the labels that the classifier gives.
        registry: the triggers that the guard knows, found in these inputs or before; None if it makes none out.
        method: the guard's registered name.
        seed: what the run's random numbers came from.
        seconds: wall time of the screening.
        calibration_seconds: wall time of the calibration before it.
        queries: questions to the classifier that screening took in all; identical images are asked about once.
        calibration_queries: questions that calibration took before it.
        false_alarm_rate: what the guard was calibrated to, in (0, 1).
        clean_size: number of trusted images it was calibrated on.
        threshold: where suspicion begins, None if the guard does not tell.
        clean_accuracy: how many trusted images the classifier gives their own label.
        preprocessing: what is done to the pixels before the classifier gets them, None if nothing is.
        notes: sentences that a reader of the verdict should know.
    """

    samples: Samples
    screening: Screening
    classes: tuple[str, ...]
    registry: Registry | None
    method: str
    seed: int
    seconds: float
    calibration_seconds: float
    queries: int
    calibration_queries: int
    false_alarm_rate: float
    clean_size: int
    clean_accuracy: CleanAccuracy
    preprocessing: Preprocessing | None = None
    threshold: Threshold | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def finding(self) -> Finding:
        """What the screening amounts to."""
        return FindingRule().apply(
            self.screening,
            false_alarm_rate=self.false_alarm_rate,
            threshold=self.threshold,
            clean_labels=self.clean_accuracy.label_counts,
        )

    @property
    def n_classes(self) -> int:
        """How many classes the classifier has: it may have more than the clean set shows."""
        return self.clean_accuracy.n_classes or len(self.classes)
