"""Keep backdoors out of image classifiers: find the poison in the training data before a model learns from it.

>>> import foretaste
>>> samples = foretaste.load("train.parquet")
>>> verdict = foretaste.cleanse(samples, clean=foretaste.load("trusted.parquet"))
>>> safe = samples[~verdict.flagged]

Importing this package is quick: what each name needs (torch above all) is loaded when the name is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from foretaste.errors import ForetasteError, UsageError

if TYPE_CHECKING:
    from foretaste.attacks import ATTACKS
    from foretaste.attacks._base.attack import Poisoned
    from foretaste.cleansers import CLEANSERS, cleanse
    from foretaste.cleansers.verdict import Verdict
    from foretaste.guards import GUARDS, Guard
    from foretaste.guards.guard import Screening
    from foretaste.guards.neo.flagged import reconstruct_triggers
    from foretaste.guards.scan import Scan, scan
    from foretaste.guards.trigger import Trigger
    from foretaste.inspectors import INSPECTORS, inspect
    from foretaste.inspectors.diagnosis import Diagnosis
    from foretaste.io import load
    from foretaste.repairs import REPAIRS, repair
    from foretaste.repairs.repaired import Repaired
    from foretaste.samples import Samples
    from foretaste.training import train

__version__ = "0.1.0"

SPINS = "1000"
"""Turns that OpenMP's threads spin for while they wait for each other, before they sleep. By default it is 300,000:
beside other work, which has their core meanwhile, a training of two threads then takes ten times as long and more."""

if "OMP_WAIT_POLICY" not in os.environ:  # before torch is imported, which reads it then
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

__all__ = [
    "ATTACKS",
    "CLEANSERS",
    "GUARDS",
    "INSPECTORS",
    "REPAIRS",
    "Diagnosis",
    "ForetasteError",
    "Guard",
    "Poisoned",
    "Repaired",
    "Samples",
    "Scan",
    "Screening",
    "Trigger",
    "UsageError",
    "Verdict",
    "__version__",
    "cleanse",
    "inspect",
    "load",
    "reconstruct_triggers",
    "repair",
    "scan",
    "train",
]

_HOME = {
    "ATTACKS": "foretaste.attacks",
    "CLEANSERS": "foretaste.cleansers",
    "Diagnosis": "foretaste.inspectors.diagnosis",
    "GUARDS": "foretaste.guards",
    "Guard": "foretaste.guards",
    "INSPECTORS": "foretaste.inspectors",
    "Poisoned": "foretaste.attacks._base.attack",
    "REPAIRS": "foretaste.repairs",
    "Repaired": "foretaste.repairs.repaired",
    "Samples": "foretaste.samples",
    "Scan": "foretaste.guards.scan",
    "Screening": "foretaste.guards.guard",
    "Trigger": "foretaste.guards.trigger",
    "Verdict": "foretaste.cleansers.verdict",
    "cleanse": "foretaste.cleansers",
    "inspect": "foretaste.inspectors",
    "load": "foretaste.io",
    "reconstruct_triggers": "foretaste.guards.neo.flagged",
    "repair": "foretaste.repairs",
    "scan": "foretaste.guards.scan",
    "train": "foretaste.training",
}
"""The module that each lazy name is loaded from (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
