"""Show a running task's reports as bars on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from foretaste.progress import OnProgress, Progress, silent
from foretaste.sanitising import printable


@contextmanager
def bars(*, quiet: bool) -> Iterator[OnProgress]:
    """Give a listener that draws one bar per phase on standard error, with the phase's note and the time left.

    Args:
        quiet: draw nothing; a standard output or error that is no terminal has the same effect.
    """
    if quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    display = Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=Console(stderr=True),
    )
    current: TaskID | None = None

    def show(progress: Progress) -> None:
        nonlocal current
        phase = printable(progress.phase)
        if current is None or display.tasks[-1].description != phase:
            current = display.add_task(phase, total=progress.total, note="")
        display.update(current, completed=progress.done, total=progress.total, note=progress.note)

    with display:
        yield show
