"""Screen a whole set of inputs, and say what that amounts to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from foretaste.calibration import Threshold
from foretaste.classifiers.answer_cache import AnswerCache
from foretaste.classifiers.answers import MOST_CLASSES
from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.counting import Counted
from foretaste.classifiers.preprocessing import Preprocesses, Preprocessing
from foretaste.errors import UsageError
from foretaste.guards import Guard
from foretaste.guards.clean_accuracy import CleanAccuracy
from foretaste.guards.finding import Finding, FindingRule
from foretaste.guards.guard import Calibrated, Reconstructing, Screening, reconstructing
from foretaste.guards.neo import NEOScreener
from foretaste.guards.neo.registry import Registry
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples, alike, in_colour, renumbered


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A finished scan.

    Attributes:
        samples: the N inputs; their labels are only looked at where the truth is known.
        screening: what the guard said of them.
        classes: the names of the labels that the classifier gives.
        registry: the triggers that were confirmed in these inputs or known before; None if the guard makes none out.
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


def scan(
    samples: Samples,
    classifier: Classifier,
    clean: Samples,
    *,
    method: str = "neo",
    registry: Registry | None = None,
    false_alarm_rate: float = 0.01,
    seed: int = 0,
    on_calibrated: Callable[[], None] = lambda: None,
    on_progress: OnProgress = silent,
    **hyperparameters: Any,
) -> Scan:
    """Screen images before a classifier's answers to them are acted on.

    >>> result = foretaste.scan(images, foretaste.classifiers.open_classifier("model.onnx"), clean)
    >>> result.finding.conclusion, result.screening.corrected

    Args:
        samples: the inputs, N images; grey ones become RGB if the model or the clean set is.
        classifier: the model.
        clean: at least 20 trusted images of at least two classes; classes are matched with the model's by name.
        method: the name of a guard.
        registry: triggers that are known already, or None.
        false_alarm_rate: share of clean inputs that may be flagged, in (0, 1).
        seed: where all random numbers come from, ≥ 0.
        on_calibrated: called when nothing speaks against the arguments any more, before the inputs are screened.
        on_progress: called as the work goes on.
        **hyperparameters: fields of the guard that are not to have their default.

    Raises:
        UsageError: as for ``Guard``; the inputs are no images or of another shape than the clean ones; or a registry
            is given and the method makes out no triggers.
        ForetasteError: the classifier fails.
    """
    if samples.images is None:
        raise UsageError("the inputs are feature vectors; guards screen images")
    samples, trusted = fitting(classifier, samples, clean)
    if samples.sample_shape != trusted.sample_shape:
        raise UsageError(f"the inputs have shape {samples.sample_shape}, and the clean images {trusted.sample_shape}")
    counted, start = Counted(classifier), time.perf_counter()
    classes = numbering(classifier.classes, clean)
    guard = Guard(
        counted,
        renumbered(trusted, classes, "the clean set"),
        method,
        false_alarm_rate=false_alarm_rate,
        seed=seed,
        on_progress=on_progress,
        **hyperparameters,
    )
    finder = reconstructing(guard.screener)
    if registry is not None:
        if finder is None:
            raise UsageError(f"the guard {method} makes out no triggers, so a registry does not apply to it")
        finder.registry = finder.registry.merge(registry)
    on_calibrated()
    calibrated, saved, asked = time.perf_counter(), saved_seconds(classifier), counted.queries
    screening = guard.screen(samples.inputs, on_progress)
    done = time.perf_counter()
    found = None
    if finder is not None:
        screening, found = confirmed(screening, finder.registry, known=registry or Registry())
    return Scan(
        samples=samples,
        screening=screening,
        classes=classes,
        registry=found,
        method=method,
        seed=seed,
        seconds=done - calibrated + saved_seconds(classifier) - saved,
        calibration_seconds=calibrated - start + saved,
        queries=counted.queries - asked,
        calibration_queries=asked,
        false_alarm_rate=false_alarm_rate,
        clean_size=len(trusted),
        clean_accuracy=guard.clean_accuracy,
        preprocessing=classifier.preprocessing if isinstance(classifier, Preprocesses) else None,
        threshold=guard.screener.threshold if isinstance(guard.screener, Calibrated) else None,
        notes=(*guard.clean_accuracy.notes, *shortcomings(finder)),
    )


def confirmed(screening: Screening, found: Registry, known: Registry) -> tuple[Screening, Registry]:
    """Return a screening that names confirmed triggers and those that were known before, and these triggers.

    A look that turns some clean images, as the digits of a sign do, comes up in one of a hundred clean inputs, as the
    false-alarm rate promises. It is no trigger: what shows it stays flagged, and counts as a false alarm may.

    Args:
        screening: what the guard said.
        found: the triggers that the guard made out, with those which were known.
        known: triggers that somebody vouches for.
    """
    vouched = {trigger.id for trigger in known}
    triggers = Registry([trigger for trigger in found if trigger.confirmed or trigger.id in vouched])
    named = np.isin(screening.trigger_ids, [trigger.id for trigger in triggers])
    return replace(screening, trigger_ids=np.where(named, screening.trigger_ids, "")), triggers


def saved_seconds(classifier: Classifier) -> float:
    """Return how long answers took that an earlier run was given."""
    return classifier.saved_seconds if isinstance(classifier, AnswerCache) else 0.0


def shortcomings(finder: Reconstructing | None) -> tuple[str, ...]:
    """Return a note if not every input was searched."""
    if not isinstance(finder, NEOScreener) or not finder.unsearched:
        return ()
    return (f"in {finder.unsearched:,} inputs only known triggers were looked for, because of the search budget",)


def fitting(classifier: Classifier, *sets: Samples) -> tuple[Samples, ...]:
    """Return the sets with grey images as RGB if the classifier, or another set, has RGB."""
    if classifier.sample_shape is not None and classifier.sample_shape[2] == 3:
        return tuple(in_colour(one) for one in sets)
    return alike(*sets)


def numbering(classes: tuple[str, ...] | None, trusted: Samples) -> tuple[str, ...]:
    """Return the names of a model's classes in its own order.

    These are the names that the model states; without them, where all classes of the clean set are called by numbers,
    those numbers; else the classes of the clean set in their order, which only the model's accuracy on it can confirm.
    """
    if classes is not None:
        return classes
    if not all(name.isdecimal() and int(name) < MOST_CLASSES for name in trusted.classes):
        return trusted.classes
    names = {int(name): name for name in trusted.classes}
    if len(names) < len(trusted.classes):  # "1" and "01"
        return trusted.classes
    return tuple(names.get(number, str(number)) for number in range(max(names) + 1))
