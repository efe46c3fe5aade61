import io
import sys

import pytest

from foretaste.cli.progress import bars
from foretaste.progress import Progress, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return screen


def test_each_phase_has_a_bar_with_its_note(terminal: Terminal) -> None:
    with bars(quiet=False) as show:
        show(Progress(phase="read", done=10, total=10))
        show(Progress(phase="round [1]: confuse", done=1, total=4, note="loss 0.31"))
        show(Progress(phase="round [1]: confuse", done=4, total=4, note="loss 0.29"))
    text = terminal.getvalue()
    for word in ("read", "round [1]: confuse", "loss 0.29"):
        assert word in text


def test_quiet_draws_nothing(terminal: Terminal) -> None:
    with bars(quiet=True) as show:
        assert show is silent
    assert terminal.getvalue() == ""


def test_a_pipe_draws_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with bars(quiet=False) as show:
        assert show is silent
