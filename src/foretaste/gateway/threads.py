"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

T = TypeVar("T")


async def in_thread(request: Request, work: Callable[[], T]) -> T:
    """Do blocking work in one of the application's threads."""
    threads: ThreadPoolExecutor = request.app.state.threads
    return await asyncio.get_running_loop().run_in_executor(threads, work)
