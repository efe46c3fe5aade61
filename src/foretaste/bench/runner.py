"""Run the cells of a specification, one after the other: what is there already is kept, what fails is recorded."""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from foretaste.bench.artefacts import Store
from foretaste.bench.case import Case, DataSets
from foretaste.bench.cell import Cell
from foretaste.bench.doors import REPORT, opened
from foretaste.bench.methods import built
from foretaste.bench.provenance import commit, machine
from foretaste.bench.records import Plan, Record, read_record, write_plan, write_record
from foretaste.bench.specification import ORACLE, Specification
from foretaste.bench.timings import Timings
from foretaste.errors import ForetasteError
from foretaste.progress import OnProgress, Progress, silent

OnRecord = Callable[[Record], None]
"""Called with what became of each cell."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do of a specification.

    Attributes:
        done: what earlier runs measured.
        cells: the others, grouped so that those on one poisoned set and model follow each other.
    """

    done: tuple[Record, ...]
    cells: tuple[Cell, ...]


def left_of(specification: Specification, store: Store) -> Work:
    """Return what is left to do; a cell that failed is tried again."""
    records = {cell.key: read_record(store, cell.key) for cell in specification.cells}
    done = {key: record for key, record in records.items() if record is not None and record.failed is None}
    groups: dict[str, list[Cell]] = {}
    for cell in specification.cells:
        if cell.key not in done:
            groups.setdefault(cell.victim_key, []).append(cell)
    return Work(done=tuple(done.values()), cells=tuple(cell for group in groups.values() for cell in group))


def run(
    specification: Specification,
    store: Store,
    sets: DataSets,
    *,
    on_record: OnRecord = lambda record: None,
    on_progress: OnProgress = silent,
) -> list[Record]:
    """Measure what is left of a specification, in this process.

    A run that was stopped goes on where it was: what is finished is not done again.

    Returns:
        What became of the cells that were measured now.

    Raises:
        ForetasteError: results cannot be written, for example because the disk is full; those before are kept.
    """
    begin(specification, store)
    records = []
    for group in by_victim(left_of(specification, store).cells):
        case = None
        for cell in group:
            # What the cells of a group share stays in memory.
            case = Case(cell, store, sets) if case is None else case.sharing(cell)
            case.on_progress = titled(cell.title(), on_progress)
            record = measure(case, specification.key)
            write_record(store, record)
            note(record)
            records.append(record)
            on_record(record)
        if case is not None:
            case.forget_work()
    return records


def begin(specification: Specification, store: Store) -> None:
    """Write down what is to be measured, and remove what a killed run left half-written."""
    write_plan(store, Plan(title=specification.title, specification=specification.key, cells=specification.cells))
    store.tidy()


def by_victim(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Yield the cells on each poisoned set and model."""
    for _, group in groupby(cells, key=lambda cell: cell.victim_key):
        yield list(group)


def measure(case: Case, specification: str) -> Record:
    """Return what becomes of a cell. It depends on nothing but the cell; whatever fails is a record, too."""
    cell = case.cell
    try:
        figures = opened(cell.door, cell.conditions).measure(method_of(case), case)
        outcome = {
            "commits": tuple(sorted(case.commits)),
            "figures": {name: None if value is None else float(value) for name, value in figures.items()},
            "n_samples": len(case.base),
            "n_poison": int(case.poison.sum()),
            "n_cover": int(case.cover.sum()),
            "report": case.store.exists(case.cell_file(REPORT)),
        }
    except Exception as error:  # a method may fail in any way, and the others go on
        return failure(cell, specification, reason(error))
    return failure(cell, specification, None).model_copy(update=outcome)


def failure(cell: Cell, specification: str, why: str | None) -> Record:
    """Return the record of a cell without figures, and why it has none."""
    return Record(
        cell=cell,
        specification=specification,
        commits=(commit(),),
        machine=machine(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        failed=why,
    )


def method_of(case: Case) -> object:
    """Return the cell's method; an oracle is told the true poison rate."""
    cell = case.cell
    kind = opened(cell.door, cell.conditions).find(cell.defence.name)
    settings = dict(cell.defence.settings)
    if cell.oracle:
        settings[ORACLE] = float(case.poison.mean())
    return built(kind, settings)


def reason(error: Exception) -> str:
    """Say in a sentence why a cell failed, and of what was not foreseen also where."""
    if isinstance(error, ForetasteError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} in {frame.name}: {error}"


def note(record: Record) -> None:
    """Remember how long a cell took on this machine, for the next plan."""
    if record.failed is None:
        Timings.load().with_record(record).save()


def titled(title: str, on_progress: OnProgress) -> OnProgress:
    """Return a listener that puts a cell's name before each phase."""
    return lambda report: on_progress(
        Progress(phase=f"{title}: {report.phase}", done=report.done, total=report.total, note=report.note)
    )
