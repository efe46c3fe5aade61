import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from foretaste.cli.progress import bars
from foretaste.progress import Progress, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def streams(out: io.StringIO, err: io.StringIO) -> Iterator[None]:
    """Put these in the place of standard output and error; pytest's capture undoes what a fixture would put there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "120")
        yield


def test_each_phase_has_a_bar_with_its_note() -> None:
    screen = Terminal()
    with streams(Terminal(), screen), bars(quiet=False) as show:
        show(Progress(phase="read", done=10, total=10))
        show(Progress(phase="round [1]: confuse", done=1, total=4, note="loss 0.31"))
        show(Progress(phase="round [1]: confuse", done=4, total=4, note="loss 0.29"))
    last = screen.getvalue().split("read")[-1]
    for word in ("round [1]: confuse", "loss 0.29"):
        assert word in last
    assert last.count("round [1]: confuse") == 1


@pytest.mark.parametrize(
    ("out", "err", "quiet"),
    [(Terminal, Terminal, True), (io.StringIO, Terminal, False), (Terminal, io.StringIO, False)],
)
def test_quiet_or_a_pipe_draws_nothing(out: type[io.StringIO], err: type[io.StringIO], quiet: bool) -> None:
    screen = err()
    with streams(out(), screen), bars(quiet=quiet) as show:
        assert show is silent
    assert screen.getvalue() == ""
