"""The places at which poison is stopped: which methods stand there, what they are tried on, how they are judged.

A door is a frozen dataclass; its fields are the conditions of the trial, which a specification sets under
``[doors.NAME]``. It needs the members of ``Door`` and a name in ``DOORS``: specification, runner and report take all
else from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretaste.bench.doors.cleansers import CleanserDoor, OnVictim
from foretaste.bench.doors.door import MODEL_SECONDS, REPORT, Column, Door, Effort, Figures, percent
from foretaste.bench.doors.guards import GuardDoor
from foretaste.bench.doors.inspectors import InspectorDoor
from foretaste.bench.doors.repairs import RepairDoor
from foretaste.bench.methods import built

__all__ = [
    "DOORS",
    "MODEL_SECONDS",
    "REPORT",
    "CleanserDoor",
    "Column",
    "Door",
    "Effort",
    "Figures",
    "GuardDoor",
    "InspectorDoor",
    "OnVictim",
    "RepairDoor",
    "opened",
    "percent",
]

DOORS: dict[str, type[Door]] = {
    "cleansers": CleanserDoor,
    "repairs": RepairDoor,
    "inspectors": InspectorDoor,
    "guards": GuardDoor,
}
"""The doors by name, which is also the name of their methods' tables in a specification."""


def opened(name: str, conditions: Mapping[str, Any]) -> Door:
    """Return a door with these conditions.

    Raises:
        UsageError: a value is of a wrong type or out of range.
    """
    door: Door = built(DOORS[name], conditions)
    return door
