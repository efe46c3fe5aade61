"""Arrays gathered from a stream: in memory while they are small, else in a memory-mapped file of the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_json, atomic_path, writing
from foretaste.io.cache import cache_dir, sweep

IN_MEMORY = 2**30
"""Bytes up to which an array is held in memory."""

_LAYOUT = 1


@dataclass(frozen=True)
class Gathered:
    """An array, and what was noted while it was gathered.

    Attributes:
        array: ``(N, …)``; memory-mapped, and then read-only, if it is large.
        notes: anything JSON can hold.
    """

    array: NDArray[Any]
    notes: Any


@dataclass(frozen=True)
class Entry:
    """A place in the cache for one array; ``raw`` counts only if ``head``, which is written last, is there."""

    raw: Path
    head: Path

    @classmethod
    def of(cls, identity: object) -> Entry:
        """Return the place for what ``identity``, anything JSON can hold, determines."""
        key = hashlib.sha256(json.dumps([_LAYOUT, identity]).encode()).hexdigest()[:32]
        folder = cache_dir() / "decoded"
        return cls(folder / f"{key}.raw", folder / f"{key}.json")

    def read(self) -> Gathered | None:
        """Return the array, memory-mapped, if an earlier run left it whole."""
        try:
            head = json.loads(self.head.read_bytes())
            shape, dtype = tuple(head["shape"]), np.dtype(head["dtype"])
            if self.raw.stat().st_size != prod(shape) * dtype.itemsize:
                return None
            return Gathered(np.memmap(self.raw, dtype, mode="r", shape=shape), head["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, chunks: Iterator[NDArray[Any]], notes: Callable[[], Any]) -> Gathered:
        """Write the chunks one after another and return them as one memory-mapped array."""
        rows, row = 0, np.empty(0)
        with writing(self.raw):
            self.raw.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.raw.parent)
        # Plain writes: on a full disk a write fails with an error, a store into a mapped page kills the process.
        with atomic_path(self.raw) as temporary, temporary.open("wb") as file:
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk).data)
                rows, row = rows + len(chunk), chunk[:0]
        atomic_json(self.head, {"shape": [rows, *row.shape[1:]], "dtype": row.dtype.str, "notes": notes()})
        gathered = self.read()
        if gathered is None:
            raise ForetasteError(f"cannot read back {self.raw}; set FORETASTE_CACHE to a folder on a sound disk")
        return gathered


def gather(
    chunks: Iterator[NDArray[Any]], rows: int, identity: object, notes: Callable[[], Any] = lambda: None
) -> Gathered:
    """Join chunks of rows into one array.

    Args:
        chunks: arrays of one dtype and one shape past the first axis.
        rows: how many rows may come in all; fewer is fine.
        identity: what the array is made from, as JSON; the same identity finds the same cached array again.
        notes: asked once the chunks are used up.

    Raises:
        ForetasteError: the cache cannot be written.
    """
    with suppress(ForetasteError):  # without a cache there is nothing earlier, and small arrays need none
        if (earlier := Entry.of(identity).read()) is not None:
            return earlier
    first = next(chunks, None)
    if first is None:
        return Gathered(np.empty((0,), np.uint8), notes())
    chunks = chain([first], chunks)
    if rows * first[0].nbytes > IN_MEMORY:
        return Entry.of(identity).write(chunks, notes)
    array, done = np.empty((rows, *first.shape[1:]), first.dtype), 0
    for chunk in chunks:
        array[done : done + len(chunk)] = chunk
        done += len(chunk)
    return Gathered(array[:done], notes())
