"""Files that appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foretaste.errors import ForetasteError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block ends; if it fails, it is removed.

    Missing parent folders are made. A reader of ``path`` sees the old file or the whole new one.

    Raises:
        ForetasteError: the disk is full, the place cannot be written, or any other ``OSError`` in the block.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its name when the block ends; if it fails, it is removed.

    Raises:
        ForetasteError: ``path`` is there and not empty, or as for ``atomic_path``.
    """
    temporary = temporary_name(path)
    try:
        with writing(path):
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Return the name beside ``path`` that it has while it is written."""
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.partial")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left under temporary names; nobody else may be writing to the folder."""
    for path in folder.glob(f".*.{'[0-9a-f]' * 12}.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` in the block into a ``ForetasteError`` that names what could not be written."""
    try:
        yield
    except OSError as error:
        raise ForetasteError(f"cannot write {path}: {error.strerror or error}") from error


def atomic_text(path: str | Path, text: str) -> None:
    r"""Write a UTF-8 text file whole or not at all.

    Half of a surrogate pair, as file names that are not UTF-8 hold, is written as an escape, ``\udc80``.

    Raises:
        ForetasteError: as for ``atomic_path``.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def atomic_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        ForetasteError: as for ``atomic_path``.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole or not at all, indented, without NaN (which JSON does not have).

    Raises:
        ForetasteError: as for ``atomic_path``.
        ValueError: ``value`` holds NaN or infinity.
    """
    atomic_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
