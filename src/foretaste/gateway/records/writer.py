"""Many requests' records in one transaction: with each on its own, the disk would set the pace."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from sqlalchemy.exc import OperationalError

from foretaste.gateway.records.store import Record, Revision, Store, StoreError

AT_ONCE = 256
"""Requests whose records go into one transaction, at most."""


@dataclass(eq=False)
class Job:
    """Records and revisions of one request, and the promise that they are on disk."""

    records: Sequence[Record] = ()
    revisions: Sequence[Revision] = ()
    done: Future[None] = field(default_factory=Future)


class Writer:
    """Writes records in a thread of its own, all that are waiting in one transaction, in the order of the calls.

    Args:
        store: where to.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def submit(self, records: Sequence[Record] = (), revisions: Sequence[Revision] = ()) -> Future[None]:
        """Have something written, and return the promise that it is on disk; it fails with a ``StoreError``."""
        job = Job(records, revisions)
        with self._lock:
            if self._closed:
                job.done.set_exception(StoreError("the records are closed"))
            else:
                self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Write what is waiting, and end."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            job = self._jobs.get()
            jobs = [] if job is None else [job]
            open_ = job is not None
            while open_ and len(jobs) < AT_ONCE:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    open_ = False
                else:
                    jobs.append(job)
            if jobs:
                self._write(jobs)

    def _write(self, jobs: list[Job]) -> None:
        if (error := self._attempt(jobs)) is None:
            for job in jobs:
                job.done.set_result(None)
        elif len(jobs) == 1 or isinstance(error.__cause__, OperationalError):
            # A database that is locked, full or gone would keep each of them waiting as long once more.
            for job in jobs:
                job.done.set_exception(error)
        else:
            # One request's records must not spoil the others'.
            for job in jobs:
                self._write([job])

    def _attempt(self, jobs: list[Job]) -> StoreError | None:
        try:
            with self._store.transaction() as connection:
                if records := [row for job in jobs for row in job.records]:
                    self._store.write(connection, records)
                if revisions := [row for job in jobs for row in job.revisions]:
                    self._store.revise(connection, revisions)
        except StoreError as error:
            return error
        except Exception as error:  # any error must reach the callers that wait
            return StoreError(f"the records cannot be written: {type(error).__name__}")
        return None
