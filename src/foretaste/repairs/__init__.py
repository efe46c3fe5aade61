"""Repairs take the backdoor out of a model."""

from __future__ import annotations

import copy
import time
from functools import cache
from typing import Any

import torch
from torch import nn

from foretaste import plugins
from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import OnProgress, silent
from foretaste.repairs.repaired import Mended, Repair, Repaired
from foretaste.repairs.tuning import logits_of
from foretaste.samples import Samples

__all__ = ["REPAIRS", "Mended", "Repair", "Repaired", "apply", "find", "names", "repair"]

REPAIRS: dict[str, type[Repair]]
"""The built-in repairs by name; loaded when first used (PEP 562)."""

PLUGINS = "foretaste.repairs"
"""The entry-point group through which other packages add repairs."""

LEAST_ACCURACY = 0.5
"""Share of the clean set that a model must get right: a repair keeps what it knows, and teaches it nothing."""


def __getattr__(name: str) -> Any:
    if name == "REPAIRS":
        return built_in()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def built_in() -> dict[str, type[Repair]]:
    """Load the built-in repairs and return them by name: the one dictionary that ``REPAIRS`` is."""
    from foretaste.repairs.abl import ABL
    from foretaste.repairs.anp import ANP
    from foretaste.repairs.fine_pruning import FinePruning
    from foretaste.repairs.fine_tuning import FineTuning
    from foretaste.repairs.i_bau import IBAU
    from foretaste.repairs.nad import NAD
    from foretaste.repairs.neural_cleanse import UnlearnTrigger
    from foretaste.repairs.retrain import Retrain

    return {
        "fine-tuning": FineTuning,
        "fine-pruning": FinePruning,
        "neural-cleanse": UnlearnTrigger,
        "nad": NAD,
        "anp": ANP,
        "i-bau": IBAU,
        "abl": ABL,
        "retrain": Retrain,
    }


def names() -> list[str]:
    """Return the names of all repairs, built-in and from other packages, sorted."""
    return plugins.names(built_in(), PLUGINS)


def find(name: str) -> type[Repair]:
    """Return the repair of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's repair cannot be loaded.
    """
    return plugins.find(name, built_in(), PLUGINS, "repair", "mend")


def repair(
    net: nn.Module,
    *,
    method: str,
    train: Samples | None = None,
    clean: Samples | None = None,
    seed: int = 0,
    on_progress: OnProgress = silent,
    **hyperparameters: Any,
) -> Repaired:
    """Take the backdoor out of a model.

    >>> repaired = foretaste.repair(net, method="i-bau", clean=foretaste.load("trusted.parquet"))

    Args:
        net: a ``Net`` or an ``OnnxModule``; it is left as it is.
        method: the name of a repair.
        train: the set that the model was trained on, poison included; for methods that start from it.
        clean: trusted samples of the model's classes; for methods that tune the model.
        seed: where all random numbers come from, ≥ 0; same seed, same machine kind: the same weights, bit for bit.
        on_progress: called as the work goes on.
        **hyperparameters: fields of the repair that are not to have their default.

    Raises:
        UsageError: there is no such repair or hyperparameter, a value is out of range, or the samples are too few, of
            other classes, or hardly known to the model.
        ForetasteError: the model has NaN weights, or the loss or the weights became infinite or NaN.
    """
    mender = plugins.build(method, find(method), hyperparameters)
    return apply(mender, net, train=train, clean=clean, seed=seed, on_progress=on_progress)


def apply(
    mender: Repair,
    net: nn.Module,
    *,
    train: Samples | None = None,
    clean: Samples | None = None,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Repaired:
    """Take the backdoor out of a model with a repair that is built already; the arguments are those of ``repair``.

    Raises:
        UsageError: the samples are too few, of other classes, or hardly known to the model.
        ForetasteError: the model has NaN weights, or the loss or the weights became infinite or NaN.
    """
    if not finite(net):
        raise ForetasteError("the model has weights that are NaN or infinite")
    # An empty set is none.
    train, clean = (samples if samples is not None and len(samples) else None for samples in (train, clean))
    if mender.needs_training_set and train is None:
        raise UsageError(f"{mender.name} works on the set that the model was trained on; give it")
    n_clean = 0 if clean is None else len(clean)
    if n_clean < mender.fewest_clean:
        raise UsageError(f"{mender.name} needs {mender.fewest_clean} clean samples or more, not {n_clean}")
    net = copy.deepcopy(net).cpu().eval()
    for name, samples in (("training", train), ("clean", clean)):
        if samples is not None:
            check_samples(net, samples, name)
    start = time.perf_counter()
    mended = mender.mend(net, train=train, clean=clean, seed=seed, on_progress=on_progress)
    if not finite(mended.net):
        raise ForetasteError(
            f"{mender.name} left weights that are NaN or infinite: its loss grew without bound; a lower learning rate "
            "may help"
        )
    return Repaired(
        net=mended.net.cpu().eval(),
        method=mender.name,
        seed=seed,
        seconds=time.perf_counter() - start,
        facts=mended.facts,
        notes=mended.notes,
    )


def finite(net: nn.Module) -> bool:
    """Return whether all weights of a model are numbers, neither NaN nor infinite."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


def check_samples(net: nn.Module, samples: Samples, name: str) -> None:
    """Refuse samples that are not the model's, under the name that messages give the set.

    Raises:
        UsageError: their classes or shape are others, or the model gets less than half of them right.
    """
    classes, shape = getattr(net, "classes", None), getattr(net, "sample_shape", None)
    if classes is not None and samples.classes != classes:
        raise UsageError(f"the {name} set's classes are not those of the model")
    if shape is not None and samples.sample_shape != shape:
        raise UsageError(f"the {name} set's samples have shape {samples.sample_shape}, and the model takes {shape}")
    logits = logits_of(net, samples)
    if logits.shape[1] != len(samples.classes):
        raise UsageError(f"the model has {logits.shape[1]} classes, and the {name} set {len(samples.classes)}")
    right = float((logits.argmax(axis=1) == samples.labels).mean())
    if right < LEAST_ACCURACY:
        raise UsageError(
            f"the model gets {right:.0%} of the {name} set right, where {LEAST_ACCURACY:.0%} are needed; are these "
            "samples and classes that it was trained for?"
        )
