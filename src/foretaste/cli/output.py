"""What the commands do alike with what they read and write."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.io.decoding import Loaded
    from foretaste.samples import Samples


def prepare(out: Path) -> None:
    """Make the output folder, and try that a file can be written there.

    Raises:
        ForetasteError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ForetasteError(f"cannot write to {out}: {error.strerror}") from error


def whole(loaded: Loaded, source: str) -> Samples:
    """Return what was read, and say on stderr what of it was left out."""
    if loaded.skipped:
        first = loaded.skipped[0]
        left_out = f"left out {len(loaded.skipped)}; first {first.name}, which {first.reason}"
        typer.echo(f"note: {source}: {left_out}", err=True)
    return loaded.samples
