"""A folder with one subfolder of images per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.cache import file_identity
from foretaste.io.decoding import Encoded, Loaded, Reading, Skipped, decode
from foretaste.io.images import SUFFIXES
from foretaste.io.keys import UNLABELLED, in_order
from foretaste.io.original import EncodedOriginal

SPLITS = frozenset(["train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"])
"""What the parts of a data set are called, in any case: folders of these names that hold folders are no classes."""


def read_folder(folder: Path, reading: Reading) -> Loaded:
    """Read every image below each class folder; ids are relative paths with forward slashes.

    Class folders called by whole numbers are sorted by number, others by name. Hidden files are passed over. Files not
    named like images, and folders without one, are left out and reported, whatever is to be done with bad samples.
    Where labels are for nothing, images may also lie in the folder itself.

    Raises:
        UsageError: the folders are parts of a data set ("train", "test"), not classes.
        ForetasteError: there are no class folders or no images in them, or as for ``decode``.
    """
    ignore = reading.use == "ignore"
    try:
        places = [Path()] if ignore else sorted(Path(one.name) for one in folder.iterdir() if _is_visible_folder(one))
        files: list[Path] = []
        found: dict[str, list[Path]] = {}
        skipped = []
        if not ignore:
            for entry in sorted(folder.iterdir()):
                if entry.is_file() and not entry.name.startswith("."):
                    skipped.append(Skipped(_printable(entry.name), "lies outside the class folders"))
        for place in places:
            inside = _files(folder / place)
            images = [path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file()]
            others = set(inside) - set(images)
            skipped += [Skipped(_id(path, folder), "is not named like an image") for path in sorted(others)]
            if images:
                found[str(place)] = images
            elif place.name:
                skipped.append(Skipped(_printable(place.name), "is a folder without images, so it is no class"))
        check_splits(folder, found)
        classes = in_order(set(found))
        files = [path for name in classes for path in found[name]]
        labels = [label for label, name in enumerate(classes) for _ in found[name]]
        identity = [file_identity(path) for path in files]
    except OSError as error:
        raise ForetasteError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error
    if not places:
        raise ForetasteError(f"{folder} has no subfolders; it needs one subfolder of images per class")
    if not files:
        raise ForetasteError(f"{folder} has no images" + ("" if ignore else f" in its {len(places)} subfolders"))
    encoded = Encoded(
        origin=str(folder),
        labels=np.array(labels, dtype=np.int64),
        classes=UNLABELLED if ignore else tuple(_printable(name) for name in classes),
        ids=np.array([_id(path, folder) for path in files], dtype=np.str_),
        payloads=lambda: files,
        name=lambda row: _printable(str(files[row])),
        identity=identity,
        skipped=tuple(skipped),
    )
    return decode(encoded, reading).noting((), EncodedOriginal(encoded, folder))


def split_folders(folder: Path) -> list[str]:
    """Return the subfolders that are called like parts of a data set and hold folders themselves, sorted."""
    try:
        return sorted(
            one.name
            for one in folder.iterdir()
            if _is_visible_folder(one) and one.name.lower() in SPLITS and any(map(_is_visible_folder, one.iterdir()))
        )
    except OSError as error:
        raise ForetasteError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def check_splits(folder: Path, found: dict[str, list[Path]]) -> None:
    """Refuse to take the parts of a data set for classes.

    Raises:
        UsageError: all folders with images are such parts.
    """
    splits = split_folders(folder)
    if found and set(found) <= set(splits):
        listing = ", ".join(f"{name}/" for name in sorted(found))
        raise UsageError(
            f"the folders of {folder} are splits, not classes: {listing}; "
            f"name one with --split, or give {folder / min(found)}"
        )


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _files(folder: Path) -> list[Path]:
    """Return what lies below a folder, sorted, and below folders that links in it lead to, but each only once."""

    def stop(error: OSError) -> None:
        raise error

    found: list[Path] = []
    seen = {_identity(folder)}
    for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        visible, folders[:] = [name for name in sorted(folders) if not name.startswith(".")], []
        for name in visible:
            # A link back to a folder above would never end.
            if (identity := _identity(Path(place, name))) not in seen:
                seen.add(identity)
                folders.append(name)
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _id(path: Path, folder: Path) -> str:
    return _printable(path.relative_to(folder).as_posix())


def _printable(name: str) -> str:
    """Return a file name as valid Unicode: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
