"""What a finished scan of inputs consists of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.guards.guard import Screening
from foretaste.guards.trigger import Trigger
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A finished scan.

    Attributes:
        samples: the N inputs; their labels are only looked at where the truth is known.
        screening: what the guard said of them.
        classes: the names of the labels that the classifier gives.
        triggers: the triggers that the guard knows, found in these inputs or before; None if it makes none out.
        method: the guard's registered name.
        seed: what the run's random numbers came from.
        seconds: wall time of the screening, without calibration.
        false_alarm_rate: what the guard was calibrated to, in (0, 1).
        clean_size: number of trusted images it was calibrated on.
        clean_scores: ``float32 (M,)``, scores of clean images that the guard was calibrated on, None if it tells none.
        threshold: inputs that score above it are called trojaned, None if the guard tells none.
        notes: sentences that a reader of the verdict should know.
    """

    samples: Samples
    screening: Screening
    classes: tuple[str, ...]
    triggers: tuple[Trigger, ...] | None
    method: str
    seed: int
    seconds: float
    false_alarm_rate: float
    clean_size: int
    clean_scores: NDArray[np.float32] | None = None
    threshold: float | None = None
    notes: tuple[str, ...] = ()
