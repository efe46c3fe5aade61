"""Where foretaste keeps what it can make or fetch again."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from foretaste.errors import ForetasteError

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a file of an unfinished run is taken to be left behind."""


def cache_dir() -> Path:
    """Return the cache folder: ``$FORETASTE_CACHE``, else ``foretaste`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        ForetasteError: none of them is set, and the user has no home folder.
    """
    if chosen := os.environ.get("FORETASTE_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foretaste"
    except RuntimeError:
        raise ForetasteError("there is no home folder for the cache; set FORETASTE_CACHE to a folder") from None


def sweep(folder: Path) -> None:
    """Remove what killed runs left unfinished in a cache folder: ``*.partial`` files and ``*.work`` folders."""
    for path in (*folder.glob("*.partial"), *folder.glob("*.work")):
        try:
            if time.time() - path.stat().st_mtime <= ABANDONED_AFTER:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except OSError:  # another run was quicker
            continue


def file_identity(path: Path) -> tuple[str, int, int]:
    """Return what changes when a file's content does: its place, size in bytes and time of change in ns."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
