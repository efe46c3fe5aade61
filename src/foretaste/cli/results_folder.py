"""The folder that a run writes its results to: its own while it runs, and never a mixture of two runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from foretaste.cli import output
from foretaste.errors import ForetasteError, UsageError
from foretaste.io.atomic import remove_unfinished, writing
from foretaste.progress import OnProgress, Progress

WORK = ".work"
"""The folder inside where a run keeps what it needs to go on after it was killed, until it is done."""
TRIGGERS = "triggers"
"""The folder inside with pictures of triggers."""


def leads() -> bool:
    """Say whether this process writes the results: of several that accelerate started, the first does."""
    return int(os.environ.get("RANK", "0")) == 0


def read_json(path: Path) -> object:
    """Return what a JSON file holds; None if it cannot be read, or is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


class ResultsFolder:
    """A folder that belongs to one run.

    It is locked inside ``with``, which can be entered again. ``start`` removes the results of an earlier run, once this
    one has read its inputs and can begin; ``finish`` removes ``work``, once all results are written. After an error
    before ``start`` nothing is left of the run.

    Args:
        path: the folder; made if it is missing.
        files: names of the files that the run writes, the one that says that all are there last.
        inputs: what the run reads, as the user gave it; None and what is no file are passed over.
        sarif: the SARIF file that the run writes, too, wherever it lies; None for none.
        schema: what the last file, a JSON object, names its schema; None if it names none.

    Raises:
        UsageError: an input would be overwritten, or the results would become part of it; or there are files of these
            names that no run of foretaste left.
        ForetasteError: the folder cannot be written, or another run writes to it.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[str],
        inputs: Iterable[str | Path | None] = (),
        sarif: Path | None = None,
        schema: str | None = None,
    ) -> None:
        self.path, self._files, self._sarif = path, files, sarif
        self.work = path / WORK
        self._started = False
        self.keep(*inputs)
        self._check_own(schema)
        output.check_writable(path)
        if sarif is not None:
            self._check_sarif(sarif)
            output.check_writable(sarif.parent)

    def _check_own(self, schema: str | None) -> None:
        if (self.work / "lock").exists():  # what is there is of a run that was killed
            return
        there = [name for name in self._files if (self.path / name).exists()]
        if self.work.is_dir() and any(self.work.iterdir()):
            there.append(WORK)
        elif there and self._files[-1] in there and len(there) > 1:
            if schema is None:
                return
            summary = read_json(self.path / self._files[-1])
            named = summary.get("schema") if isinstance(summary, dict) else None
            if isinstance(named, str) and named.rpartition(":")[0] == schema.rpartition(":")[0]:
                return
            if isinstance(named, str) and named.startswith("urn:foretaste:"):
                raise UsageError(f"{self.path} holds the results of another command; choose another folder")
        if there:
            raise UsageError(f"{self.path} holds {there[0]}, which foretaste did not write; choose another folder")

    def _check_sarif(self, sarif: Path) -> None:
        from foretaste.report.sarif import is_own

        if sarif.resolve() in {(self.path / name).resolve() for name in self._files}:
            raise UsageError(f"--sarif {sarif} is one of the results; choose another name")
        if not sarif.exists():
            return
        if not is_own(read_json(sarif)):
            raise UsageError(f"{sarif} is no SARIF file of foretaste, and would be overwritten; choose another name")

    def keep(self, *inputs: str | Path | None) -> None:
        """Refuse to overwrite what the run reads.

        Raises:
            UsageError: as for ``inputs``.
        """
        replaced = {(self.path / name).resolve() for name in (*self._files, TRIGGERS)}
        if self._sarif is not None:
            replaced.add(self._sarif.resolve())
        for given in inputs:
            if given is None or not Path(given).exists():
                continue
            place = Path(given).resolve()
            if place in replaced:
                raise UsageError(f"{given} would be overwritten; choose another folder")
            if place.is_dir() and self.path.resolve().is_relative_to(place):
                raise UsageError(
                    f"{self.path} lies in {given}, which the results would become part of; choose another folder"
                )

    def __enter__(self) -> Self:
        """Lock the folder."""
        self._made = [folder for folder in (self.work, self.path) if not folder.exists()]
        with writing(self.path):
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.work / "lock", timeout=0)
            try:
                self._lock.acquire()
            except Timeout:
                raise ForetasteError(
                    f"another run writes to {self.path}; wait for it, or choose another folder"
                ) from None
        return self

    def start(self) -> None:
        """Remove what an earlier run left, the file that says that all are there first; other files stay.

        Once is enough: what this run wrote since stays.

        Raises:
            ForetasteError: it cannot be removed.
        """
        if self._started:
            return
        self._started = True
        with writing(self.path):
            for name in reversed(self._files):
                (self.path / name).unlink(missing_ok=True)
            if self._sarif is not None:
                self._sarif.unlink(missing_ok=True)
            if (self.path / TRIGGERS).is_dir():
                from foretaste.report.summary import remove_triggers

                remove_triggers(self.path / TRIGGERS)
        remove_unfinished(self.path)

    def starting(self, on_progress: OnProgress) -> OnProgress:
        """Return what starts with the first report of a method, which has then found nothing wrong with its arguments.

        A run that is refused then leaves the results of an earlier one.
        """

        def report(progress: Progress) -> None:
            self.start()
            on_progress(progress)

        return report

    def finish(self) -> None:
        """Remove what the run kept to go on after it was killed."""
        remove_unfinished(self.path)
        shutil.rmtree(self.work, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unlock the folder; after an error that came before the start, remove it if it was made and is empty."""
        self._lock.release()
        if kind is None or (self._started and not issubclass(kind, UsageError)):
            return
        with suppress(OSError):  # what is not empty stays
            # Where answers of a model are kept, the lock stays with them: it says whose the folder is.
            if self.work in self._made and [path.name for path in self.work.iterdir()] == ["lock"]:
                (self.work / "lock").unlink()
            for folder in self._made:
                folder.rmdir()
