"""The triggers of what a cleanser flagged, also where nothing but the training set is at hand."""

from __future__ import annotations

import numpy as np

from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards.neo.learn import learn
from foretaste.guards.neo.registry import Registry
from foretaste.progress import OnProgress, silent
from foretaste.samples import Mask, Samples

MOST_STAND_INS = 500
"""Samples that passed, at most, that stand in for a clean set."""


def reconstruct_triggers(
    samples: Samples,
    flagged: Mask,
    classifier: Classifier,
    clean: Samples | None = None,
    *,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Registry:
    """Reconstruct the triggers of the flagged samples of a training set, by asking a model that was trained on it.

    >>> verdict = foretaste.cleanse(samples, clean)
    >>> triggers = foretaste.reconstruct_triggers(samples, verdict.flagged, classifier, clean)

    Args:
        samples: the training set, N images.
        flagged: ``bool (N,)``, which of them were flagged.
        classifier: a model that was trained before they were taken out, with the same classes.
        clean: at least 20 trusted images of at least two classes; None takes ``stand_ins``.
        seed: where all random numbers come from, ≥ 0.
        on_progress: called as the work goes on.

    Returns:
        The triggers; none if nothing is flagged, or nothing that is works on this model.

    Raises:
        UsageError: the samples are no images, or the clean set does not do.
        ForetasteError: the classifier fails.
    """
    if samples.images is None:
        raise UsageError("triggers are reconstructed in images, and these samples are feature vectors")
    if not flagged.any():
        return Registry()
    if clean is None:
        clean = stand_ins(samples, flagged, seed)
    return learn(samples[flagged], classifier, clean, seed=seed, on_progress=on_progress)


def stand_ins(samples: Samples, flagged: Mask, seed: int) -> Samples:
    """Return samples that were not flagged, at most ``MOST_STAND_INS`` and drawn at random, in place of a clean set."""
    passed = np.flatnonzero(~flagged)
    chosen = np.random.default_rng(seed).choice(passed, min(MOST_STAND_INS, len(passed)), replace=False)
    return samples[np.sort(chosen)]
