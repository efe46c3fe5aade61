import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import foretaste
from foretaste import cli
from foretaste.errors import ForetasteError, UsageError


@pytest.fixture
def verb_raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make every verb raise this once its output folder is checked."""

    def set_error(error: BaseException) -> None:
        def stop(out: Path) -> None:
            raise error

        monkeypatch.setattr("foretaste.cli.output.check_writable", stop)

    return set_error


POISON = ["poison", "signs", "--attack", "badnets", "--out", "unused"]


def test_help_names_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    verbs = ("demo", "cleanse", "inspect", "repair", "guard", "poison", "train")
    for word in (*verbs, "1 poison, a backdoor or trojaned inputs found", "4 bad usage"):
        assert word in text


@pytest.mark.parametrize("verb", ["demo", "cleanse", "inspect", "repair", "poison", "train"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert "--out" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"foretaste {foretaste.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["taste"], "No such command 'taste'; see foretaste --help"),
        (["--loud"], "No such option: --loud; see foretaste --help"),
        (["cleanse"], "Missing argument 'SRC'; see foretaste cleanse --help"),
        (["cleanse", "signs"], "Missing option '--out'; see foretaste cleanse --help"),
        (["train", "signs", "--out", "x", "--epochs", "many"], "see foretaste train --help"),
        (["poison", "signs", "--attack", "nonesuch", "--out", "x"], "there is no attack 'nonesuch'; known: "),
        ([*POISON, "--set", "sise=3"], "there is no setting 'sise'; known: alpha, place, rate, size, target"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_4(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("foretaste: error: ")
    assert complaint in output.err
    assert output.err.count("\n") == 1


def test_no_verb_shows_the_help_as_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 4
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (ForetasteError("the file is torn"), 2, "the file is torn"),
        (UsageError("rate is odd"), 4, "rate is odd"),
        (FileNotFoundError(2, "No such file or directory", "a.npz"), 2, "a.npz: No such file or directory"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (
            ValueError("odd"),
            2,
            "unexpected ValueError: odd (run foretaste --debug … for the traceback)",
        ),
        (MemoryError(), 2, "unexpected MemoryError:  (run foretaste --debug … for the traceback)"),
    ],
)
def test_a_failure_is_one_line_on_standard_error(
    error: Exception,
    exit_code: int,
    line: str,
    verb_raising: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb_raising(error)
    assert cli.main(POISON) == exit_code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"foretaste: error: {line}\n"


def test_debug_shows_the_traceback(
    verb_raising: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb_raising(ForetasteError("the file is torn"))
    assert cli.main(["--debug", *POISON]) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.endswith("foretaste: error: the file is torn\n")


def test_interruption_says_how_to_go_on(
    verb_raising: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb_raising(KeyboardInterrupt())
    assert cli.main(POISON) == 130
    assert capsys.readouterr().err == "interrupted; start again with the same arguments to go on\n"


def test_a_closed_pipe_does_not_read_as_poison_found(verb_raising: Callable[[BaseException], None]) -> None:
    verb_raising(BrokenPipeError(32, "Broken pipe"))
    assert cli.main(POISON) == 2


def test_an_output_folder_that_cannot_be_made_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert cli.main(["poison", "no-such-source", "--attack", "badnets", "--out", str(tmp_path / "taken")]) == 2
    assert capsys.readouterr().err.startswith(f"foretaste: error: cannot write to {tmp_path / 'taken'}: ")


def test_the_installed_command_gives_the_exit_code() -> None:
    command = Path(sys.executable).with_name("foretaste")
    assert subprocess.run([command, "cleanse"], capture_output=True, check=False).returncode == 4


def test_a_name_that_the_terminal_cannot_show_does_not_end_the_run(tmp_path: Path) -> None:
    code = (
        "import sys; from foretaste import cli; from foretaste.cli.output import say; "
        "cli.main(['--version']); say('caf\u00e9 \u2192 \u4e2d')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout
    assert told.splitlines()[1] == b"caf\xe9 \\u2192 \\u4e2d"
