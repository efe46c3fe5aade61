"""Make sure that results can be written before the long work starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foretaste.errors import ForetasteError


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
