"""The guard, calibrated once: what it found out is kept, and taken up again at the next start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from foretaste import guards, io, plugins
from foretaste.classifiers.answer_cache import AnswerCache
from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.classifiers.forwarding import Forwarding
from foretaste.errors import ForetasteError, UsageError
from foretaste.gateway.settings import Settings
from foretaste.guards import neo
from foretaste.guards.clean_accuracy import CleanCheck
from foretaste.guards.guard import Calibrated, Screener
from foretaste.guards.scan import numbering
from foretaste.io.atomic import atomic_json
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples, renumbered

FOLDER, ORIGIN = "calibration", "origin.json"
"""The folder in the gateway's state, and the file in it that says what it was calibrated with."""

CHECKED = 16
"""Clean images that the model is asked about at a start, to see that it is still the one that was calibrated with."""


def read_clean(settings: Settings, classifier: Classifier) -> Samples:
    """Read the trusted images, and number their labels as the model does.

    Raises:
        UsageError: there is no such source, or it holds no images.
        ForetasteError: it cannot be read.
    """
    read = io.read(settings.clean, resize=settings.resize)
    if read.skipped:
        raise ForetasteError(f"{settings.clean} holds samples that cannot be read")
    if read.samples.images is None:
        raise UsageError(f"{settings.clean} holds feature vectors; guards screen images")
    return renumbered(read.samples, numbering(classifier.classes, read.samples), settings.clean)


def calibrate(
    settings: Settings,
    classifier: Classifier,
    clean: Samples,
    *,
    on_doubt: Callable[[str], None] = lambda sentence: None,
    on_progress: OnProgress = silent,
) -> Screener:
    """Calibrate the guard, or take up what an earlier start found out.

    ``on_doubt`` is told if the model gives few of the clean images their own label, unless that was told before.

    It is taken up if the method, its settings and the clean images are the same, and the model answers some of the
    clean images as it did. A guard that cannot be saved is calibrated again from the model's kept answers, which comes
    to the same without a question.

    Raises:
        UsageError: there is no such guard or hyperparameter, the clean set does not do, or the model hardly knows it.
        ForetasteError: the model fails, or the folder cannot be written.
    """
    method = plugins.build(settings.method, guards.find(settings.method), settings.hyperparameters)
    guards.check_clean(classifier, clean, settings.false_alarm_rate)
    folder = settings.state / FOLDER
    checked = classifier.classify(np.asarray(clean.inputs[:CHECKED]))
    origin = {
        "method": settings.method,
        "hyperparameters": json.loads(json.dumps(asdict(method), default=str)),  # type: ignore[call-overload]
        "false_alarm_rate": settings.false_alarm_rate,
        "seed": settings.seed,
        "clean": hashlib.sha256(np.ascontiguousarray(clean.inputs).tobytes() + clean.labels.tobytes()).hexdigest(),
        "answers": checked.labels.tolist(),
        "model": [repr(settings.preprocessing), repr(settings.classes)],
    }
    same = saved_origin(folder) == origin
    if same and settings.method == neo.NEO.name:
        try:
            return neo.load(folder, classifier)
        except ForetasteError:  # damaged: calibrate anew
            same = False
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    answered = AnswerCache(classifier, folder, key)
    # Each worker starts by what the first one saved, and need not look again.
    if not same:
        for doubt in CleanCheck().require(answered, clean, settings.seed).notes:
            on_doubt(doubt)
    journal = Relay(answered)
    screener = method.calibrate(
        journal, clean, false_alarm_rate=settings.false_alarm_rate, seed=settings.seed, on_progress=on_progress
    )
    # From here on the model itself answers: what it says of other people's inputs is not kept.
    journal.exchange(classifier)
    if isinstance(screener, neo.NEOScreener):
        neo.save(screener, folder)
    atomic_json(folder / ORIGIN, origin)
    return screener


def saved_origin(folder: Path) -> Any:
    """Return what the saved calibration was made with; None if there is none that can be read."""
    try:
        return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def promised_rate(screener: Screener) -> float | None:
    """Return the share of clean inputs that may score above the threshold; None if the guard does not say."""
    return screener.threshold.rate if isinstance(screener, Calibrated) else None


class Relay(Forwarding):
    """Asks another classifier, which can be exchanged."""

    def exchange(self, classifier: Classifier) -> None:
        """Ask this classifier from now on."""
        self._classifier = classifier

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, as the other classifier does.

        Raises:
            ForetasteError: as the other classifier does.
        """
        return self._classifier.classify(images)
