"""Guards screen the inputs of a black-box classifier."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from foretaste import plugins
from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards.clean_accuracy import CleanAccuracy, CleanCheck
from foretaste.guards.guard import GuardMethod, Screener, Screening
from foretaste.guards.trigger import Trigger
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples

__all__ = ["GUARDS", "Guard", "GuardMethod", "Screener", "Screening", "Trigger", "check_clean", "find", "names"]

GUARDS: dict[str, type[GuardMethod]]
"""The built-in guards by name; loaded when first used (PEP 562)."""

PLUGINS = "foretaste.guards"
"""The entry-point group through which other packages add guards."""

FEWEST = 20
"""With fewer clean images than this nothing can be said of how often a guard is wrong."""


def __getattr__(name: str) -> Any:
    if name == "GUARDS":
        return built_in()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def built_in() -> dict[str, type[GuardMethod]]:
    """Load the built-in guards and return them by name: the one dictionary that ``GUARDS`` is."""
    from foretaste.guards.combined import Combined
    from foretaste.guards.neo import NEO, NEOPaper
    from foretaste.guards.scale_up import ScaleUp
    from foretaste.guards.strip import STRIP
    from foretaste.guards.teco import TeCo

    return {
        "neo": NEO,
        "neo-paper": NEOPaper,
        "strip": STRIP,
        "scale-up": ScaleUp,
        "teco": TeCo,
        "all": Combined,
    }


def names() -> list[str]:
    """Return the names of all guards, built-in and from other packages, sorted."""
    return plugins.names(built_in(), PLUGINS)


def find(name: str) -> type[GuardMethod]:
    """Return the guard of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's guard cannot be loaded.
    """
    return plugins.find(name, built_in(), PLUGINS, "guard", "calibrate")


class Guard:
    """A classifier's guard: it has seen clean images, and screens all others.

    >>> guard = foretaste.Guard(classifier, clean, false_alarm_rate=0.01)
    >>> screening = guard.screen(images)
    >>> answers = screening.corrected

    Safe to use from several threads.

    Attributes:
        method: the guard's frozen dataclass with its hyperparameters.
        screener: what ``method`` made of the clean set; some guards offer more on it than ``screen``.
        clean_accuracy: how many clean images the classifier gives their own label; its ``doubt`` is None if that is
            enough.
    """

    def __init__(
        self,
        classifier: Classifier,
        clean: Samples,
        method: str = "neo",
        *,
        false_alarm_rate: float = 0.01,
        seed: int = 0,
        on_progress: OnProgress = silent,
        **hyperparameters: Any,
    ) -> None:
        """Learn what clean inputs look like to the classifier.

        Args:
            classifier: the model to guard.
            clean: at least 20 trusted images of at least two classes, of the shape that the model takes.
            method: the name of a guard.
            false_alarm_rate: share of unseen clean inputs that may be called trojaned, in (0, 1). It takes
                1 / rate − 1 clean images to promise it; with fewer, the guard assumes how the scores go on.
            seed: where all random numbers come from, ≥ 0; same seed and same answers, same verdicts.
            on_progress: called as the work goes on.
            **hyperparameters: fields of the guard that are not to have their default.

        Raises:
            UsageError: there is no such guard or hyperparameter, a value is out of range, the clean set does not do,
                or the classifier hardly knows it.
            ForetasteError: the classifier fails.
        """
        self.method: GuardMethod = plugins.build(method, find(method), hyperparameters)
        check_clean(classifier, clean, false_alarm_rate)
        self.clean_accuracy: CleanAccuracy = CleanCheck().require(classifier, clean, seed)
        self.screener: Screener = self.method.calibrate(
            classifier, clean, false_alarm_rate=false_alarm_rate, seed=seed, on_progress=on_progress
        )

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        """Screen inputs ``uint8 (N, H, W, C)``, any N ≥ 0, of the clean set's shape.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        return self.screener.screen(images, on_progress)


def check_clean(classifier: Classifier, clean: Samples, false_alarm_rate: float) -> None:
    """Refuse a clean set or a rate that no guard can be calibrated with.

    Raises:
        UsageError: the clean samples are no images, too few, of one class only, or of a shape that the classifier does
            not take; or the rate is not in (0, 1).
    """
    if not 0 < false_alarm_rate < 1:
        raise UsageError(f"the false-alarm rate must be between 0 and 1, not {false_alarm_rate:g}")
    if clean.images is None:
        raise UsageError("guards screen images, and these clean samples are feature vectors")
    if len(clean) < FEWEST:
        raise UsageError(f"the clean set has {len(clean)} images; a guard needs {FEWEST} or more")
    if len(np.unique(clean.labels)) < 2:
        raise UsageError("the clean set's images are all of one class; a guard needs two classes or more")
    if classifier.sample_shape is not None and clean.sample_shape != classifier.sample_shape:
        raise UsageError(
            f"the clean set's images have shape {clean.sample_shape}, and the model takes {classifier.sample_shape}"
        )
