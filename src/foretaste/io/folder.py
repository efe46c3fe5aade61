"""A folder with one subfolder of images per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from foretaste.errors import ForetasteError
from foretaste.io.cache import file_identity
from foretaste.io.decoding import Encoded, Loaded, OnBad, Size, Skipped, decode
from foretaste.io.images import SUFFIXES
from foretaste.progress import OnProgress


def read_folder(folder: Path, *, resize: Size | None, on_bad: OnBad, on_progress: OnProgress) -> Loaded:
    """Read every image below each class folder; classes sorted by name, ids are relative paths with forward slashes.

    Hidden files are passed over. Files not named like images are left out and reported, whatever ``on_bad`` says.

    Raises:
        ForetasteError: there are no class folders or no images in them, or as for ``decode``.
    """
    try:
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        files, labels, skipped = [], [], []
        for entry in sorted(folder.iterdir()):
            if entry.is_file() and not entry.name.startswith("."):
                skipped.append(Skipped(_printable(entry.name), "lies outside the class folders"))
        for label, name in enumerate(classes):
            for path in _files(folder / name):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    files.append(path)
                    labels.append(label)
                else:
                    skipped.append(Skipped(_id(path, folder), "is not named like an image"))
        identity = [file_identity(path) for path in files]
    except OSError as error:
        raise ForetasteError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error
    if not classes:
        raise ForetasteError(f"{folder} has no subfolders; it needs one subfolder of images per class")
    if not files:
        raise ForetasteError(f"{folder} has no images in its {len(classes)} subfolders")
    encoded = Encoded(
        origin=str(folder),
        labels=np.array(labels, dtype=np.int64),
        classes=tuple(_printable(name) for name in classes),
        ids=np.array([_id(path, folder) for path in files], dtype=np.str_),
        payloads=lambda: files,
        name=lambda row: _printable(str(files[row])),
        identity=identity,
        skipped=tuple(skipped),
    )
    return decode(encoded, resize=resize, on_bad=on_bad, on_progress=on_progress)


def _files(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:
        raise error

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _id(path: Path, folder: Path) -> str:
    return _printable(path.relative_to(folder).as_posix())


def _printable(name: str) -> str:
    """Return a file name as valid Unicode: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
