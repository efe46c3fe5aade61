"""One cell of the matrix: everything that its figures depend on, as plain values, and the names that follow from them.

A cell is data, so that it can be written to JSON, sent to another machine, and hashed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from foretaste.imperfections import Imperfections

UNHASHED: Any = {
    "data": {"label", "source", "test"},
    **{field: {"label"} for field in ("imperfections", "attack", "network", "defence")},
}
"""Labels are for people, and data are known by their content, wherever they lie."""


class Plain(BaseModel):
    """Immutable plain values; an unknown entry is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSet(Plain):
    """A data set and how much of it is used.

    Attributes:
        label: what people call it.
        source: a named set or a path that ``foretaste.io.read`` takes.
        test: the same for the test set; None is the named set's own; a number splits that share off the source.
        resize: pixels that images are scaled to on each side, or None.
        limit: training samples at most, or None.
        share: share of the training samples that is used, in (0, 1].
        clean: samples of the test set that defences are given as their clean set; the rest tests the models.
        content: digest of the training and the test samples, before ``limit`` and ``share``.
        total: training samples before ``limit`` and ``share``.
        used: training samples after them.
    """

    label: str
    source: str
    test: str | float | None = None
    resize: int | None = None
    limit: int | None = None
    share: float = 1.0
    clean: int = 500
    content: str = ""
    total: int = 0
    used: int = 0

    @property
    def title(self) -> str:
        """The label, and how much of the set is used if it is not all."""
        return self.label if self.used == self.total else f"{self.label} ({self.used:,} of {self.total:,})"


class Choice(Plain):
    """A method under a label for people, with all of its hyperparameters.

    Attributes:
        label: what people call it.
        name: what it is found by.
        settings: its hyperparameters.
        files: digests of the files that the settings name.
        code: hash of the code of another package's method; "" for foretaste's own, whose commits the records name.
    """

    label: str
    name: str
    settings: dict[str, Any]
    files: tuple[str, ...] = ()
    code: str = ""


class Cell(Plain):
    """A defence, tried on a poisoned data set and a network, with one seed.

    Attributes:
        data: the data set.
        imperfections: what is done to it before it is poisoned, and what people call that.
        attack: the attack with its rate; None leaves the set as it is.
        network: the victim's architecture; its settings are those of its ``TrainingPlan``.
        door: a key of ``foretaste.bench.doors.DOORS``.
        conditions: the fields of that door.
        defence: a method of the door.
        oracle: whether the method's ``expected_rate`` is set to the true poison rate.
        seed: where all random numbers come from.
    """

    data: DataSet
    imperfections: Choice
    attack: Choice | None
    network: Choice
    door: str
    conditions: dict[str, Any]
    defence: Choice
    oracle: bool
    seed: int

    @property
    def set_key(self) -> str:
        """Name of the poisoned set: what it follows from, hashed."""
        return digest(hashed(self, "data", "imperfections", "attack", "seed"))

    @property
    def victim_key(self) -> str:
        """Name of the model that is trained on the poisoned set."""
        return digest(hashed(self, "data", "imperfections", "attack", "seed", "network"))

    @property
    def key(self) -> str:
        """Name of the cell."""
        return digest(hashed(self, *type(self).model_fields))

    @property
    def rate(self) -> float | None:
        """The poison rate as it was asked for, or None."""
        return None if self.attack is None else self.attack.settings.get("rate")

    def imperfect(self) -> Imperfections:
        """Return the imperfections."""
        return Imperfections(**self.imperfections.settings)

    def title(self) -> str:
        """Say in a line what the cell is."""
        attack = "no attack" if self.attack is None else self.attack.label
        parts = [
            self.data.title,
            *([self.imperfections.label] if self.imperfections.label else []),
            attack + ("" if self.rate is None else f" {100 * self.rate:g} %"),
            self.network.label,
            self.defence.label + (" (oracle)" if self.oracle else ""),
            f"seed {self.seed}",
        ]
        return ", ".join(parts)


def hashed(cell: Cell, *fields: str) -> dict[str, Any]:
    """Return some fields of a cell as plain values, without those that its figures do not depend on."""
    return cell.model_dump(mode="json", include=set(fields), exclude=UNHASHED)


def digest(value: object) -> str:
    """Return 24 hexadecimal digits that follow from plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
