"""What a benchmark leaves behind: the plan, and one JSON file for each cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError

from foretaste.bench.artefacts import Store
from foretaste.bench.cell import Cell, Plain
from foretaste.errors import ForetasteError, UsageError

PLAN = "plan.json"
PLAN_SCHEMA = "urn:foretaste:bench-plan:1"
"""The schema of ``plan.json``, in ``docs/schemas``."""
CELL_SCHEMA = "urn:foretaste:bench-cell:1"
"""The schema of a cell's file, likewise. What was written before these had names has none."""


class Plan(Plain):
    """The cells that the latest run was to measure, in the order of the report.

    Attributes:
        title: of the specification.
        specification: its hash.
        cells: the cells.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    title: str
    specification: str
    cells: tuple[Cell, ...]


class Record(Plain):
    """What became of a cell.

    Attributes:
        cell: the cell; its labels are those of the run that measured it.
        specification: hash of the specification that asked for it.
        commits: commits of the code that measured it and that made what it was measured on.
        machine: where it was measured.
        created: when, in UTC.
        n_samples: size of the training set that was poisoned.
        n_poison: poison samples in it.
        n_cover: cover samples in it.
        figures: the door's figures by column; empty if the cell failed.
        failed: why it failed, or None.
        report: whether it has a report of its own.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    cell: Cell
    specification: str
    commits: tuple[str, ...]
    machine: str
    created: str
    n_samples: int = 0
    n_poison: int = 0
    n_cover: int = 0
    figures: Mapping[str, float | None] = {}
    failed: str | None = None
    report: bool = False


def record_name(key: str) -> str:
    """Return the name of a cell's file."""
    return f"cells/{key}.json"


def write_record(store: Store, record: Record) -> None:
    """Write what became of a cell.

    Raises:
        ForetasteError: it cannot be written.
    """
    store.write(record_name(record.cell.key), as_json(record, CELL_SCHEMA))


def read_record(store: Store, key: str) -> Record | None:
    """Return what became of a cell; None if it was not measured, or what was left of it cannot be read."""
    content = store.read(record_name(key))
    if content is None:
        return None
    try:
        return Record.model_validate_json(content)
    except ValidationError:
        store.on_damage(f"{store.root}/{record_name(key)} is damaged; the cell counts as not measured")
        return None


def write_plan(store: Store, plan: Plan) -> None:
    """Write the plan.

    Raises:
        ForetasteError: it cannot be written.
    """
    store.write(PLAN, as_json(plan, PLAN_SCHEMA))


def read_plan(store: Store) -> Plan:
    """Return the plan of the latest run.

    Raises:
        UsageError: there is none.
        ForetasteError: it is damaged.
    """
    content = store.read(PLAN)
    if content is None:
        raise UsageError(f"{store.root} holds no {PLAN}; give a folder that foretaste bench run wrote")
    try:
        return Plan.model_validate_json(content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ForetasteError(
            f"cannot read {store.root}/{PLAN}: {reason}; run the benchmark again to renew it"
        ) from None


def as_json(value: Plain, schema: str) -> bytes:
    """Return a value as indented JSON that names its schema."""
    plain: dict[str, Any] = {"schema": schema} | value.model_dump(mode="json")
    return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
