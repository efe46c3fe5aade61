"""Where the two halves of the project meet: poison that was taken out of a training set holds the trigger."""

from __future__ import annotations

from foretaste.classifiers.classifier import Classifier
from foretaste.guards.neo.neo import NEO
from foretaste.guards.neo.registry import Registry
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples


def learn(
    quarantine: Samples,
    classifier: Classifier,
    clean: Samples,
    *,
    method: NEO | None = None,
    false_alarm_rate: float = 0.01,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Registry:
    """Reconstruct the triggers in a quarantine of ``cleanse``.

    Args:
        quarantine: images that were taken out of a training set, under any labels.
        classifier: a model that the triggers work on: one that was trained before they were taken out.
        clean: at least 20 trusted images of at least two classes.
        method: the hyperparameters; the defaults when left out.
        false_alarm_rate: share of clean images that may be taken for trojaned, in (0, 1).
        seed: where all random numbers come from.
        on_progress: called as the work goes on.

    Returns:
        The triggers; none if nothing in the quarantine works on this model.

    Raises:
        UsageError: the clean set does not do, or the quarantine's images are of another shape.
        ForetasteError: the classifier fails.
    """
    screener = (method or NEO()).calibrate(
        classifier, clean, false_alarm_rate=false_alarm_rate, seed=seed, on_progress=on_progress
    )
    screening = screener.screen(quarantine.inputs, on_progress)
    # What shows in no image once all are known was a piece of another trigger.
    seen = set(screening.trigger_ids.tolist())
    return Registry([trigger for trigger in screener.registry if trigger.id in seen])
