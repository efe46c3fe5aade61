"""What every guard returns, and what every guard is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Classifier
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Labels, Mask, Samples

if TYPE_CHECKING:
    from foretaste.calibration import Threshold
    from foretaste.guards.neo.registry import Registry


@dataclass(frozen=True, kw_only=True, eq=False)
class Screening:
    """What a guard says of N inputs.

    Attributes:
        labels: ``int64 (N,)``, the classifier's answer to each input as it came.
        corrected: ``int64 (N,)``, the label to give instead; equal to ``labels`` where nothing better is known.
        trojaned: ``bool (N,)``, inputs that carry a trigger.
        scores: ``float32 (N,)``, higher is more suspicious. The scale belongs to the guard.
        trigger_ids: N strings, the id of the trigger found in each input, "" where there is none.
        queries: ``int64 (N,)``, what each input cost in questions to the classifier, its own answer included.
    """

    labels: Labels
    corrected: Labels
    trojaned: Mask
    scores: NDArray[np.float32]
    trigger_ids: NDArray[np.str_]
    queries: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@runtime_checkable
class Screener(Protocol):
    """A guard that knows its classifier and what clean inputs look like; safe to use from several threads."""

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        """Screen inputs ``uint8 (N, H, W, C)``, any N ≥ 0, of the clean set's shape.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A screener that tells where its suspicion begins, and from which clean scores that follows."""

    @property
    def threshold(self) -> Threshold:
        """What inputs must score above to be called trojaned."""
        ...


@runtime_checkable
class Reconstructing(Protocol):
    """A screener that makes out triggers, and recognises those that it knows."""

    registry: Registry
    """The known triggers."""


def reconstructing(screener: Screener) -> Reconstructing | None:
    """Return the screener, or the part of a combined one, that makes out triggers; None if none does."""
    for part in (screener, *getattr(screener, "screeners", ())):
        if isinstance(part, Reconstructing):
            return part
    return None


@runtime_checkable
class GuardMethod(Protocol):
    """A way to screen inputs: a frozen dataclass whose fields are its hyperparameters."""

    name: ClassVar[str]
    """The registered name."""
    summary: ClassVar[str]
    """One line for ``foretaste guard scan --list``."""
    needs_scores: ClassVar[bool]
    """Whether labels alone are not enough."""

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> Screener:
        """Learn what clean inputs look like to this classifier.

        Args:
            classifier: the model to guard.
            clean: at least 20 trusted images of at least two classes.
            false_alarm_rate: share of unseen clean inputs that may be called trojaned, in (0, 1).
            seed: where all random numbers come from.
            on_progress: called as the work goes on.

        Raises:
            UsageError: the clean set is too small or of one class only, or the classifier gives no scores and the
                method needs them.
            ForetasteError: the classifier fails.
        """
        ...
