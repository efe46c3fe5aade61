"""What the commands do alike with what they read and write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from foretaste.cli.options import size
from foretaste.errors import ForetasteError, UsageError
from foretaste.sanitising import printable

if TYPE_CHECKING:
    from foretaste.io.decoding import Loaded
    from foretaste.io.truth import Truth
    from foretaste.progress import OnProgress
    from foretaste.samples import Samples


def say(line: str, *, err: bool = False) -> None:
    """Print one line, with whatever names of data and models it holds made safe to print."""
    typer.echo(printable(line), err=err)


def check_writable(out: Path) -> None:
    """Try that files can be written to the output folder, or to the one that it will be made in.

    It is not made yet, so that a command that refuses its input leaves nothing behind.

    Raises:
        ForetasteError: it cannot be made or written to.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ForetasteError(f"cannot write to {out}: {error.strerror}") from error


def truth_of_training_set(path: Path) -> Truth:
    """Read the truth about a training set.

    Raises:
        UsageError: it is about test inputs.
        ForetasteError: it cannot be read.
    """
    from foretaste.io.truth import read_truth

    truth = read_truth(path)
    if truth.trojaned is not None:
        raise UsageError(f"{path} is about test inputs, not about a training set")
    return truth


def place_of(source: str, split: str | None) -> str:
    """Return where the files of a source lie: the folder of the split where splits are folders, else the source."""
    return source if split is None or not (Path(source) / split).is_dir() else str(Path(source) / split)


def reader(
    resize: str | None,
    image_column: str | None,
    label_column: str | None,
    on_bad: Literal["stop", "skip"],
    on_progress: OnProgress,
) -> Callable[..., Loaded]:
    """Return ``foretaste.io.read`` with what the options say of all sources of a command.

    Raises:
        UsageError: ``--resize`` is neither N nor WxH.
    """
    from foretaste import io

    return partial(
        io.read,
        resize=size(resize),
        image_column=image_column,
        label_column=label_column,
        on_bad=on_bad,
        on_progress=on_progress,
    )


def whole(loaded: Loaded, source: str) -> Samples:
    """Return what was read, and say on stderr what of it was left out or taken for granted."""
    from foretaste.io.sources import left_out

    for note in (*loaded.notes, *left_out(loaded, source)):
        say(f"note: {note}", err=True)
    return loaded.samples
