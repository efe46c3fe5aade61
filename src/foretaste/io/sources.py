"""Samples from whatever a user names: a file, a folder, or a set known by name."""

from __future__ import annotations

import warnings
from pathlib import Path

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.csv import read_csv
from foretaste.io.decoding import Loaded, OnBad, Size
from foretaste.io.folder import read_folder
from foretaste.io.images import MAX_PIXELS
from foretaste.io.named import NAMES, read_named
from foretaste.io.npz import read_npz
from foretaste.io.parquet import read_parquet
from foretaste.io.saved import has_splits, is_saved, read_saved
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples


def read(
    source: str | Path,
    *,
    split: str = "train",
    resize: int | Size | None = None,
    on_bad: OnBad = "stop",
    fewest_classes: int = 2,
    on_progress: OnProgress = silent,
) -> Loaded:
    """Read samples and say what was left out.

    Images that decode to more than 1 GiB are decoded once into the cache (``$FORETASTE_CACHE``,
    ``~/.cache/foretaste``) and memory-mapped. Images are grey, C = 1, if all of the set are, else RGB.

    Args:
        source: a ``.parquet`` file in the Hugging Face image layout, or with ``features`` and ``label``; a folder with
            one subfolder of images per class; an ``.npz`` with ``x`` and ``y``; a ``.csv`` table of
            features with labels in the column ``class``, ``label`` or the last; a folder written by
            ``datasets.Dataset.save_to_disk``; or ``cifar10``, ``gtsrb`` or ``signs``.
        split: which part of a named set ("train" or "test") or of a saved dictionary of data sets; any other source is
            read whole.
        resize: pixels to resize images to: one number for both sides, or (height, width).
        on_bad: "stop" at the first image that cannot be used, or "skip" it and report it.
        fewest_classes: 2 for what is to be learnt from; 1 for inputs whose labels may say nothing.
        on_progress: called as the work goes on.

    Raises:
        UsageError: there is no such source or split, it has too few classes, or ``resize`` makes no sense.
        ForetasteError: the source is damaged, or its parts do not fit; the sentence names the file and the row.
    """
    size = (resize, resize) if isinstance(resize, int) else resize
    if size is not None and not (min(size) >= 1 and size[0] * size[1] <= MAX_PIXELS):
        raise UsageError(f"cannot resize images to {size[1]} x {size[0]} pixels")
    loaded = _read(source, split, size, on_bad, on_progress)
    if len(loaded.samples.classes) < fewest_classes:
        raise UsageError(f"{source} has only one class; a classifier needs at least two")
    _check_names(loaded.samples, source)
    return loaded


def _check_names(samples: Samples, source: str | Path) -> None:
    """Refuse ids and class names that are no Unicode text: no result file could hold them."""
    for kind, names in (("id", samples.ids.tolist()), ("class name", samples.classes)):
        for place, name in enumerate(names):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ForetasteError(
                    f"{source}: the {kind} {name!a} (number {place}) is not valid Unicode text; rename it"
                ) from None


def _read(source: str | Path, split: str, size: Size | None, on_bad: OnBad, on_progress: OnProgress) -> Loaded:
    if source in NAMES:
        return read_named(str(source), split, resize=size, on_bad=on_bad, on_progress=on_progress)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"{source} does not exist; give a file, a folder, or one of {', '.join(NAMES)}")
    if path.is_dir() and has_splits(path):
        return read_saved(path, split, resize=size, on_bad=on_bad, on_progress=on_progress)
    if path.is_dir():
        if is_saved(path):
            return read_saved(path, split, resize=size, on_bad=on_bad, on_progress=on_progress)
        return read_folder(path, resize=size, on_bad=on_bad, on_progress=on_progress)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, resize=size, on_bad=on_bad, on_progress=on_progress)
    if path.suffix.lower() == ".npz":
        return read_npz(path, resize=size, on_progress=on_progress)
    if path.suffix.lower() == ".csv":
        return read_csv(path, resize=size, on_progress=on_progress)
    raise UsageError(f"{source} is not a kind of file that can be read; give .parquet, .npz, .csv or a folder")


def load(
    source: str | Path,
    *,
    split: str = "train",
    resize: int | Size | None = None,
    on_bad: OnBad = "stop",
    on_progress: OnProgress = silent,
) -> Samples:
    """Read samples; as ``read``, but what was left out becomes a warning.

    Raises:
        ForetasteError: as for ``read``.
    """
    loaded = read(source, split=split, resize=resize, on_bad=on_bad, on_progress=on_progress)
    if loaded.skipped:
        first = loaded.skipped[0]
        warnings.warn(
            f"{source}: left out {len(loaded.skipped)}; first {first.name}, which {first.reason}", stacklevel=2
        )
    return loaded.samples
