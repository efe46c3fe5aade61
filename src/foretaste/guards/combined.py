"""All guards as one: an input is as suspicious as it is to the guard that it surprises most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.calibration import Threshold, conformal_threshold, tail_scale
from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.counting import Counted
from foretaste.errors import UsageError
from foretaste.guards import FEWEST, check_clean, find
from foretaste.guards.guard import GuardMethod, Screener, Screening
from foretaste.guards.threshold_screener import ThresholdScreener, split
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples


@dataclass(frozen=True, kw_only=True)
class Combined:
    """Run several guards under one false-alarm rate.

    Half of the clean set calibrates the guards and tells how their scores are spread; the other half, unseen by them,
    sets the one threshold. So the rate holds for the whole, however much the guards agree. The corrected label and the
    trigger come from the first guard that has one. It is blind to what all of its guards are blind to.

    Attributes:
        methods: names of the guards. Those that need scores are left out if the classifier gives labels alone.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "all"
    summary: ClassVar[str] = "all guards under one false-alarm rate; those that need scores only where there are some"
    needs_scores: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 2 * FEWEST

    methods: tuple[str, ...] = ("neo", "strip", "scale-up", "teco")

    def __post_init__(self) -> None:
        if not self.methods or self.name in self.methods:
            raise UsageError(f"methods must name one guard or more, and not {self.name!r}")

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> CombinedScreener:
        """Learn what clean inputs look like to this classifier; see ``GuardMethod``.

        Raises:
            UsageError: there are fewer than 40 clean images, a guard is unknown, or none can do without scores.
            ForetasteError: the classifier fails.
        """
        check_clean(classifier, clean, false_alarm_rate)
        if len(clean) < self.fewest_clean:
            raise UsageError(f"the clean set has {len(clean)} images; {self.name} needs {self.fewest_clean} or more")
        reference, unseen = split(clean, np.random.default_rng(seed), part=2)
        asked = Counted(classifier)
        has_scores = asked.classify(np.asarray(reference.inputs[:1])).scores is not None
        guards = [guard() for guard in map(find, self.methods) if has_scores or not guard.needs_scores]
        if not guards:
            raise UsageError(
                f"{', '.join(self.methods)} needs the classifier's scores, and this one gives labels alone"
            )

        def calibrated(guard: GuardMethod) -> Screener:
            return guard.calibrate(
                asked, reference, false_alarm_rate=false_alarm_rate, seed=seed, on_progress=on_progress
            )

        screeners = [calibrated(guard) for guard in guards]
        tails = tuple(Tail.of(screener.screen(reference.inputs, on_progress).scores) for screener in screeners)
        calm = [screener.screen(unseen.inputs, on_progress).scores for screener in screeners]
        threshold = conformal_threshold(most_surprised(tails, calm), false_alarm_rate)
        # Afresh where a guard may have learnt from what it screened; it asks the same, which costs few questions.
        afresh = (
            screener if isinstance(screener, ThresholdScreener) else calibrated(guard)
            for guard, screener in zip(guards, screeners, strict=True)
        )
        return CombinedScreener(tuple(afresh), tails, threshold)


@dataclass(frozen=True, eq=False)
class CombinedScreener:
    """Several screeners with one threshold.

    Attributes:
        screeners: one per guard.
        tails: how the scores of each are spread on clean inputs.
        threshold: on the scale of ``most_surprised``.
    """

    screeners: tuple[Screener, ...]
    tails: tuple[Tail, ...]
    threshold: Threshold

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        """Screen inputs ``uint8 (N, H, W, C)``, any N ≥ 0, of the clean set's shape.

        A score is minus the logarithm of the share of clean inputs that would surprise the same guard as much. The
        questions are those of all guards together.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        parts = [screener.screen(images, on_progress) for screener in self.screeners]
        scores = most_surprised(self.tails, [part.scores for part in parts])
        trojaned = scores > self.threshold.value
        labels = parts[0].labels
        corrected, trigger_ids = labels.copy(), np.full(len(images), "", dtype=np.str_)
        # Backwards, so that the first guard has the last word.
        for part in reversed(parts):
            better = trojaned & (part.corrected != part.labels)
            corrected = np.where(better, part.corrected, corrected)
            trigger_ids = np.where(trojaned & (part.trigger_ids != ""), part.trigger_ids, trigger_ids)
        return Screening(
            labels=labels,
            corrected=corrected,
            trojaned=trojaned,
            scores=scores.astype(np.float32),
            trigger_ids=trigger_ids,
            queries=np.sum([part.queries for part in parts], axis=0),
        )


@dataclass(frozen=True, eq=False)
class Tail:
    """How a guard's scores are spread on clean inputs: as they were seen, and beyond the highest exponentially.

    Attributes:
        ordered: clean scores ``float64 (n,)``, rising.
        scale: the mean excess of the exponential, > 0.
    """

    ordered: NDArray[np.float64]
    scale: float

    @classmethod
    def of(cls, scores: NDArray[np.floating]) -> Tail:
        """Measure clean scores ``(n,)``, n ≥ 1."""
        ordered = np.sort(scores.astype(np.float64))
        return cls(ordered, max(tail_scale(ordered), 1e-6 * (1 + abs(float(ordered[-1])))))

    def surprise(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return minus the logarithm of the share of clean scores that are as high as each of these: ``(N,)``, ≥ 0."""
        n = len(self.ordered)
        as_high = n - np.searchsorted(self.ordered, scores, side="left")
        beyond = np.maximum(scores - self.ordered[-1], 0) / self.scale
        surprise: NDArray[np.float64] = beyond - np.log((as_high + 1) / (n + 1))
        return surprise


def most_surprised(tails: tuple[Tail, ...], scores: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the highest of the guards' surprises at each input, ``(N,)``, from one array of scores per guard."""
    surprises: NDArray[np.float64] = np.max(
        [tail.surprise(some) for tail, some in zip(tails, scores, strict=True)], axis=0
    )
    return surprises
