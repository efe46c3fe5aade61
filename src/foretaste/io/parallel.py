"""Work on a stream in threads, in order, with a bounded number of blocks under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ordered(function: Callable[[T], R], blocks: Iterable[T]) -> Iterator[R]:
    """Yield ``function(block)`` for each block, in order.

    Blocks are drawn only a few ahead of what was consumed, so memory stays bounded however long the stream is. Threads
    do, because the codecs underneath release the interpreter lock.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    window: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for block in blocks:
                window.append(pool.submit(function, block))
                if len(window) > 2 * workers:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()
