"""Cleansers find the poison in a training set before a model learns from it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from foretaste import plugins
from foretaste.cleansers.verdict import Cleanser, Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples

__all__ = ["CLEANSERS", "Cleanser", "Verdict", "cleanse", "find", "names"]

CLEANSERS: dict[str, type[Cleanser]]
"""The built-in cleansers by name; loaded when first used, because they need torch (PEP 562)."""

PLUGINS = "foretaste.cleansers"
"""The entry-point group through which other packages add cleansers."""

FEWEST = 10
"""A class with fewer samples than this cannot be told from its own poison."""


def __getattr__(name: str) -> Any:
    if name == "CLEANSERS":
        return built_in()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def built_in() -> dict[str, type[Cleanser]]:
    """Load the built-in cleansers and return them by name: the one dictionary that ``CLEANSERS`` is."""
    from foretaste.cleansers.confusion_training import ConfusionTraining
    from foretaste.cleansers.confusion_training_paper import ConfusionTrainingPaper

    return {"confusion-training": ConfusionTraining, "confusion-training-paper": ConfusionTrainingPaper}


def names() -> list[str]:
    """Return the names of all cleansers, built-in and from other packages, sorted."""
    return plugins.names(built_in(), PLUGINS)


def find(name: str) -> type[Cleanser]:
    """Return the cleanser of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's cleanser cannot be loaded.
    """
    return plugins.find(name, built_in(), PLUGINS, "cleanser")


def cleanse(
    samples: Samples,
    clean: Samples | None = None,
    *,
    method: str = "confusion-training",
    seed: int = 0,
    workdir: Path | None = None,
    on_progress: OnProgress = silent,
    **hyperparameters: Any,
) -> Verdict:
    """Find the poison in a training set.

    Args:
        samples: the set to inspect; each class that is present has at least 10 samples.
        clean: trusted samples of the same classes and shape, or None.
        method: the name of a cleanser.
        seed: where all random numbers come from, ≥ 0; same seed, same machine kind, same verdict, bit for bit.
        workdir: an existing folder for checkpoints, so that a run started again with the same arguments goes on.
        on_progress: called as the work goes on.
        **hyperparameters: fields of the cleanser that are not to have their default.

    Raises:
        UsageError: there is no such cleanser or hyperparameter, a value is out of range, or the samples do not fit.
    """
    cleanser = plugins.build(method, find(method), hyperparameters)
    check_samples(samples)
    if clean is not None:
        check_clean(clean, samples)
    return cleanser.inspect(samples, clean, seed=seed, workdir=workdir, on_progress=on_progress)


def check_samples(samples: Samples) -> None:
    """Refuse a set in which poison cannot be told from a class.

    Raises:
        UsageError: fewer than two classes are present, or one of them has too few samples.
    """
    present, counts = np.unique(samples.labels, return_counts=True)
    if len(present) < 2:
        raise UsageError(f"the set to inspect needs samples of at least two classes, not {len(present)}")
    small = int(np.argmin(counts))
    if counts[small] < FEWEST:
        raise UsageError(
            f"class {samples.classes[present[small]]} has {counts[small]} samples; {FEWEST} are needed to judge a class"
        )


def check_clean(clean: Samples, samples: Samples) -> None:
    """Refuse a clean set that is not of the same kind as the set to inspect.

    Raises:
        UsageError: it is empty, or its classes or shape differ.
    """
    if len(clean) == 0:
        raise UsageError("the clean set is empty; leave it out, or give some samples that you trust")
    if clean.classes != samples.classes:
        raise UsageError("the clean set's classes are not those of the set to inspect")
    if clean.sample_shape != samples.sample_shape:
        raise UsageError(
            f"the clean set's samples have shape {clean.sample_shape}, "
            f"those of the set to inspect {samples.sample_shape}"
        )
