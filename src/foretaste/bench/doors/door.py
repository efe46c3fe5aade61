"""What the runner and the report need to know of a kind of defence, and what all kinds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from foretaste.attacks import Attack
from foretaste.bench.case import Case
from foretaste.samples import Mask, Samples

Figures = dict[str, float | None]
"""Figures by column; None where there is nothing to measure."""
REPORT = "report.html"
"""The file of a cell's own report, beside its result."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure that a door's methods are judged by.

    Attributes:
        key: its name in result files.
        title: its name in tables.
        unit: "share" in [0, 1], "seconds", "milliseconds" or "number".
        best: which end is better, or None if neither is.
    """

    key: str
    title: str
    unit: Literal["share", "seconds", "milliseconds", "number"]
    best: Literal["high", "low"] | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a method has to do.

    Attributes:
        samples: how many it looks at.
        model: whether the model that is trained on the poisoned set is needed, for the method or to judge it.
        trainings: how many more models are trained to judge it.
        classifier: whether it trains a classifier of its own on the set, which methods of its kind share.
    """

    samples: int
    model: bool = True
    trainings: int = 0
    classifier: bool = False


@runtime_checkable
class Door(Protocol):
    """What the runner and the report need to know of one kind of defence."""

    title: ClassVar[str]
    """What tables call its methods ("Cleansers")."""
    legend: ClassVar[str]
    """What the numbers and the shades of the heat map say, in a sentence or two."""
    columns: ClassVar[tuple[Column, ...]]
    """What they are judged by, in the order of the table."""

    def find(self, name: str) -> type[Any]:
        """Return the method of this name, a frozen dataclass.

        Raises:
            UsageError: there is none.
        """
        ...

    def refuses(self, attack: type[Attack] | None, method: type[Any]) -> str | None:
        """Say in half a sentence why one of its methods cannot be tried on an attack; None if it can."""
        ...

    def refuses_samples(self, samples: Samples) -> str | None:
        """Say in half a sentence why its methods cannot be tried on samples; None if they can."""
        ...

    def fewest_clean(self, method: type[Any]) -> int:
        """Return how many clean samples one of its methods needs at least."""
        ...

    def prepare(self, method: Any, case: Case) -> None:
        """Make what several methods of the door share on a case, before any of them is measured."""
        ...

    def measure(self, method: Any, case: Case) -> Figures:
        """Try a method, and return its figures. A report of its own goes to ``case.cell_file(REPORT)``.

        What takes long is kept by ``case.once``, so that a run that is started again does not do it twice.

        Raises:
            ForetasteError: the method cannot work on the case, or fails.
        """
        ...

    def effort(self, method: type[Any], n_samples: int) -> Effort:
        """Return what a method has to do on a training set of this size, to tell how long it will take."""
        ...

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return how good figures are in one number, from 0 (useless) to 1, for the heat map; None if unknown."""
        ...

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return the figures that say most, as short as the heat map needs them."""
        ...


TIME = (
    Column(key="seconds", title="seconds", unit="seconds", best="low"),
    Column(key="cpu_seconds", title="CPU seconds", unit="seconds", best="low"),
)
"""What every door's methods cost."""
MODEL_SECONDS = "model_seconds"
"""A figure without a column: what it took to train the model of the trial. It tells how long other trainings take."""
CAUGHT = (
    "True-positive and false-positive rate in percent. The darker, the better: found minus false alarms; without an "
    "attack, how far the false alarms are from 5 %."
)
"""The legend of doors whose methods tell what an attacker touched from the rest."""
ALARMING = 0.05
"""False-positive rate at which a method is as good as none on a set without poison: it throws away a twentieth."""


def caught(tpr: float | None, fpr: float | None) -> float | None:
    """Return how well poison is told from the rest: found minus false alarms, or without poison, how few alarms."""
    if fpr is None:
        return None
    if tpr is None:
        return 1 - min(fpr / ALARMING, 1.0)
    return max(tpr - fpr, 0.0)


def percent(value: float | None) -> str:
    """Write a share in percent, without a false 0 or 100: 0, 0.01, 0.10, 1.0, 99.0, 99.90, 99.99, 100."""
    if value is None:
        return "–"
    if value <= 0 or value >= 1:
        return f"{100 * value:.0f}"
    digits = 1 if 0.01 <= value <= 0.99 else 2
    return f"{min(max(100 * value, 0.01), 99.99):.{digits}f}"


def share(mask: Mask) -> float | None:
    """Return the share that is true, None of nothing."""
    return float(mask.mean()) if mask.size else None
