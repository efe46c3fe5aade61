"""Spread the cells over a Ray cluster: each is a task, after the task that trains the model it is tried on.

Results go to the store as soon as they are there, so a worker that dies loses the cell it was at and no other; Ray
gives that cell to another worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from foretaste.bench.artefacts import Store
from foretaste.bench.case import Case, DataSets
from foretaste.bench.cell import Cell
from foretaste.bench.doors import opened
from foretaste.bench.records import Record, write_record
from foretaste.bench.runner import OnRecord, begin, by_victim, failure, left_of, measure, method_of, note, reason
from foretaste.bench.specification import Specification
from foretaste.errors import ForetasteError

RETRIES = 3
"""How often a task is tried again whose worker died."""


def run(
    specification: Specification, store: Store, address: str, *, on_record: OnRecord = lambda record: None
) -> list[Record]:
    """Measure what is left of a specification on a cluster; the arguments are as for ``runner.run``.

    Every machine reads the data itself and writes to the store, so both must be in the same place for all of them.

    Args:
        specification: what to measure.
        store: where results go.
        address: of the cluster, as Ray takes it; "local" starts one on this machine. If this process is connected to a
            cluster already, it is that one.
        on_record: called with what became of each cell.

    Raises:
        ForetasteError: Ray is not installed, the cluster cannot be reached, or results cannot be written.
    """
    ray = imported()
    begin(specification, store)
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise ForetasteError(f"cannot use the Ray cluster {address}: {str(error).splitlines()[0]}") from error
    try:
        return collected(ray, specification, store, on_record)
    finally:
        if started:
            ray.shutdown()


def imported() -> Any:
    """Return the package.

    Raises:
        ForetasteError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here reports to nobody
    try:
        import ray
    except ImportError:
        raise ForetasteError("Ray is not installed; pip install 'foretaste[ray]'") from None
    return ray


def collected(ray: Any, specification: Specification, store: Store, on_record: OnRecord) -> list[Record]:
    """Hand out the tasks, and gather what becomes of them as it comes."""
    needs = {"num_cpus": specification.resources.cpus, "num_gpus": specification.resources.gpus}
    prepare = ray.remote(max_retries=RETRIES, **needs)(prepared)
    task = ray.remote(max_retries=RETRIES, **needs)(measured)
    root = store.root if store.remote else str(Path(store.root).absolute())
    here, waiting = str(Path.cwd()), dict[Any, Cell]()
    for group in by_victim(left_of(specification, store).cells):
        ready = prepare.remote([cell.model_dump_json() for cell in group], root, here)
        for cell in group:
            waiting[task.remote(cell.model_dump_json(), root, here, specification.key, ready)] = cell
    records = []
    while waiting:
        [done], _ = ray.wait(list(waiting), num_returns=1)
        cell = waiting.pop(done)
        try:
            record = Record.model_validate_json(ray.get(done))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # of a task that raised, for example because its disk is full
            died = f"its worker died, again and again: {str(error).splitlines()[0]}"
            why = reason(cause) if isinstance(cause, Exception) else died
            record = failure(cell, specification.key, why)
            write_record(store, record)
        note(record)
        records.append(record)
        on_record(record)
    for cell in specification.cells:
        store.forget(f"set-{cell.set_key}")
    return records


def case_of(cell: str, root: str, here: str) -> Case:
    """Return the case of a cell that came as JSON, with the data sets that this worker has read already.

    What earlier runs left on this machine is removed.

    Paths of data and modules of methods are relative to the folder in which the run was started.
    """
    if Path(here).is_dir():
        os.chdir(here)
    store = Store(root)
    store.sweep()
    return Case(Cell.model_validate_json(cell), store, WORKERS_DATA)


WORKERS_DATA = DataSets()
"""What a worker process has read, for its next task."""


def prepared(group: list[str], root: str, here: str) -> None:
    """Make what the cells of a group share; if that fails, each of them says why."""
    first = case_of(group[0], root, here)
    quietly(lambda: first.victim)
    for cell in group:
        quietly(partial(make_shared, first.sharing(Cell.model_validate_json(cell))))


def make_shared(case: Case) -> None:
    """Make what a cell's method shares with others."""
    opened(case.cell.door, case.cell.conditions).prepare(method_of(case), case)


def measured(cell: str, root: str, here: str, specification: str, ready: None) -> str:
    """Measure a cell and write down what became of it."""
    case = case_of(cell, root, here)
    record = measure(case, specification)
    write_record(case.store, record)
    return record.model_dump_json()


def quietly(make: Callable[[], object]) -> None:
    """Do something whose failure somebody else reports."""
    try:
        make()
    except Exception:  # whatever a third party's attack may raise
        return
