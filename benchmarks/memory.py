"""The memory that a process takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLED_EVERY = 0.01
"""Seconds between two looks at the memory."""


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """Note the peak of the process's anonymous memory, in bytes, while the block runs."""
    memory, over = {"peak": 0}, threading.Event()

    def look() -> None:
        while not over.wait(SAMPLED_EVERY):
            memory["peak"] = max(memory["peak"], status("RssAnon"))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        over.set()
        watcher.join()


def status(field: str) -> int:
    """Return a field of ``/proc/self/status`` in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def gigabytes(size: int) -> float:
    """Return bytes as GB, 10⁹ bytes."""
    return round(size / 1e9, 3)
