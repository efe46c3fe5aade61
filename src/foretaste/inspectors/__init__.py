"""Inspectors judge a model: has it a backdoor, which class does the trigger force, and what does it look like?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from foretaste import plugins
from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.counting import Counted
from foretaste.classifiers.torch_module import TorchModule
from foretaste.errors import ForetasteError, UsageError
from foretaste.inspectors.diagnosis import Diagnosis, Evidence, Finding, Inspector, Reconstruction, Subject
from foretaste.inspectors.nulls import FEWEST_NULL_MODELS, measured_p_values
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples

__all__ = [
    "INSPECTORS",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Inspector",
    "Reconstruction",
    "Subject",
    "apply",
    "find",
    "inspect",
    "names",
    "subject_of",
]

INSPECTORS: dict[str, type[Inspector]]
"""The built-in inspectors by name; loaded when first used (PEP 562)."""

PLUGINS = "foretaste.inspectors"
"""The entry-point group through which other packages add inspectors."""

LEAST_ACCURACY = 0.5
"""Share of the clean set that a model must get right for its answers to mean anything."""

MOST_ASKED = 200
"""Clean images at most that a model is asked about to see whether it knows them."""


def __getattr__(name: str) -> Any:
    if name == "INSPECTORS":
        return built_in()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def built_in() -> dict[str, type[Inspector]]:
    """Load the built-in inspectors and return them by name: the one dictionary that ``INSPECTORS`` is."""
    from foretaste.inspectors.combined import Combined
    from foretaste.inspectors.debackdoor import DeBackdoor
    from foretaste.inspectors.final_layer import FinalLayer
    from foretaste.inspectors.mm_bd import MMBD
    from foretaste.inspectors.neural_cleanse import NeuralCleanse

    return {
        "debackdoor": DeBackdoor,
        "neural-cleanse": NeuralCleanse,
        "mm-bd": MMBD,
        "final-layer": FinalLayer,
        "all": Combined,
    }


def names() -> list[str]:
    """Return the names of all inspectors, built-in and from other packages, sorted."""
    return plugins.names(built_in(), PLUGINS)


def find(name: str) -> type[Inspector]:
    """Return the inspector of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's inspector cannot be loaded.
    """
    return plugins.find(name, built_in(), PLUGINS, "inspector", "look")


def inspect(
    model: Classifier | nn.Module,
    clean: Samples | None = None,
    *,
    method: str = "all",
    weights: nn.Module | None = None,
    null: Sequence[Subject] = (),
    false_alarm_rate: float = 0.05,
    seed: int = 0,
    on_progress: OnProgress = silent,
    **hyperparameters: Any,
) -> Diagnosis:
    """Judge whether a model has a backdoor.

    >>> diagnosis = foretaste.inspect(net, foretaste.load("trusted.parquet"))
    >>> diagnosis.backdoored, diagnosis.suspect_classes

    Args:
        model: a module that takes raw images ``(N, H, W, C)`` and returns logits, which is left as it is, or a
            black-box classifier.
        clean: images that you trust, under the model's classes, or None for a method that needs none.
        method: the name of an inspector.
        weights: the model as a module, where ``model`` is a quicker way to ask it.
        null: clean models of the same kind, at least 3, to measure p-values on; without them they are the method's own,
            and with fewer than 1 / ``false_alarm_rate`` − 1 never less than those.
        false_alarm_rate: share of the clean models that may be called backdoored, in (0, 1).
        seed: where all random numbers come from, ≥ 0; same seed, same machine kind, same diagnosis.
        on_progress: called as the work goes on.
        **hyperparameters: fields of the inspector that are not to have their default.

    Raises:
        UsageError: there is no such inspector or hyperparameter, a value is out of range, the model has not what the
            method needs, or the clean set is too small, of other classes, or hardly known to the model.
        ForetasteError: the model fails, or has NaN weights.
    """
    inspector = plugins.build(method, find(method), hyperparameters)
    return apply(
        inspector,
        model,
        clean,
        weights=weights,
        null=null,
        false_alarm_rate=false_alarm_rate,
        seed=seed,
        on_progress=on_progress,
    )


def apply(
    inspector: Inspector,
    model: Classifier | nn.Module,
    clean: Samples | None = None,
    *,
    weights: nn.Module | None = None,
    null: Sequence[Subject] = (),
    false_alarm_rate: float = 0.05,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Diagnosis:
    """Judge a model with an inspector that is built already; the arguments are those of ``inspect``.

    Raises:
        UsageError: the model has not what the method needs, or the clean set is too small, of other classes, or hardly
            known to the model.
        ForetasteError: the model fails, or has NaN weights.
    """
    if not 0 < false_alarm_rate < 1:
        raise UsageError(f"the false-alarm rate must be between 0 and 1, not {false_alarm_rate:g}")
    if 0 < len(null) < FEWEST_NULL_MODELS:
        raise UsageError(f"{len(null)} clean models are too few to measure p-values on; give {FEWEST_NULL_MODELS}")
    subject = subject_of(model, clean, weights)
    for one in (subject, *null):
        if (one.sample_shape, one.classes) != (subject.sample_shape, subject.classes):
            raise UsageError("the clean models take other images or classes than the model")
        check(inspector, one, clean)
    start = time.perf_counter()
    finding = inspector.look(subject, clean, seed=seed, on_progress=on_progress)
    seconds, notes = time.perf_counter() - start, finding.notes
    p_values = np.array([entry.p_value for entry in finding.evidence])
    if null:
        scores = []
        for number, one in enumerate(null):
            on_progress(Progress(phase=f"{inspector.name}: clean models", done=number, total=len(null)))
            scores.append(inspector.look(one, clean, seed=seed, on_progress=silent).score)
        statistics = np.array([entry.statistic for entry in finding.evidence])
        p_values, note = measured_p_values(statistics, np.array(scores), false_alarm_rate, p_values)
        notes = (*notes, note)
    judged = [
        replace(entry, p_value=float(p), suspect=bool(p <= false_alarm_rate))
        for entry, p in zip(finding.evidence, p_values, strict=True)
    ]
    suspects = {(entry.source, entry.target) for entry in judged if entry.suspect}
    return Diagnosis(
        backdoored=bool(suspects),
        p_value=float(p_values.min()),
        score=finding.score,
        evidence=tuple(sorted(judged, key=lambda entry: (entry.p_value, -entry.statistic))),
        reconstructions=tuple(one for one in finding.reconstructions if (one.source, one.target) in suspects),
        method=inspector.name,
        seed=seed,
        seconds=seconds,
        queries=subject.classifier.queries,
        false_alarm_rate=false_alarm_rate,
        null_size=len(null),
        notes=notes,
    )


def subject_of(model: Classifier | nn.Module, clean: Samples | None, weights: nn.Module | None = None) -> Subject:
    """Return a model as inspectors see it: its weights are a copy, on the CPU and in evaluation mode.

    Args:
        model: a module, or a classifier.
        clean: images for it, which say what the model does not; or None.
        weights: the module, where ``model`` is a classifier.

    Raises:
        UsageError: neither the model nor the clean set says of which shape images are, or which classes there are; or
            they say different things.
        ForetasteError: weights are NaN or infinite.
    """
    if isinstance(model, nn.Module):
        weights = model
    classifier = TorchModule(model) if isinstance(model, nn.Module) else model
    if weights is not None and not all(bool(torch.isfinite(tensor).all()) for tensor in weights.parameters()):
        raise ForetasteError("the model has weights that are NaN or infinite")
    if clean is not None and clean.images is None:
        raise UsageError("inspectors judge classifiers of images, and these clean samples are feature vectors")
    shape = classifier.sample_shape or (None if clean is None else clean.sample_shape)
    classes = classifier.classes or (None if clean is None else clean.classes)
    if shape is None or classes is None:
        raise UsageError("the model does not say what images and classes it takes; give clean images")
    if clean is not None and clean.sample_shape != shape:
        raise UsageError(f"the clean set's images have shape {clean.sample_shape}, and the model takes {shape}")
    if clean is not None and clean.classes != classes:
        raise UsageError("the clean set's classes are not those of the model")
    if weights is not None:
        weights = deepcopy(weights).cpu().eval()
        with torch.no_grad():
            n_logits = weights(torch.zeros((1, *shape))).shape[1]
        if n_logits != len(classes):
            raise UsageError(f"the model has {n_logits} classes, and the clean set {len(classes)}")
    return Subject(Counted(classifier), weights, shape, classes)


def check(inspector: Inspector, subject: Subject, clean: Samples | None) -> None:
    """Refuse a model or a clean set that the inspector can do nothing with.

    Raises:
        UsageError: weights, classes or clean images are missing, or the model hardly knows the clean images.
        ForetasteError: the model fails.
    """
    name = inspector.name
    if inspector.needs_weights and subject.weights is None:
        raise UsageError(f"{name} needs the model's weights, and this model is a black box; take debackdoor")
    n_classes, fewest = len(subject.classes), inspector.fewest_classes
    if n_classes < fewest:
        raise UsageError(f"{name} compares classes and needs {fewest} or more; the model has {n_classes}")
    n_clean = 0 if clean is None else len(clean)
    if n_clean < inspector.fewest_clean:
        raise UsageError(f"{name} needs {inspector.fewest_clean} clean images or more, not {n_clean}")
    if clean is None or n_clean == 0:
        return
    some = clean[np.unique(np.linspace(0, n_clean - 1, MOST_ASKED).astype(np.int64))]
    right = float((subject.classifier.classify(some.inputs).labels == some.labels).mean())
    if right < LEAST_ACCURACY:
        raise UsageError(
            f"the model gets {right:.0%} of the clean set right, where {LEAST_ACCURACY:.0%} are needed; are these "
            "images and classes that it was trained for?"
        )
