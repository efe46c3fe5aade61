"""Samples from whatever a user names: a file, a folder, or a set known by name."""

from __future__ import annotations

import warnings
from glob import glob
from pathlib import Path
from typing import Any

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.csv import read_csv
from foretaste.io.decoding import Loaded, OnBad, Reading, Size
from foretaste.io.folder import read_folder, split_folders
from foretaste.io.images import MAX_PIXELS
from foretaste.io.keys import LabelUse
from foretaste.io.named import NAMES, read_named
from foretaste.io.npz import read_npz
from foretaste.io.objects import origin_of, read_object
from foretaste.io.parquet import chosen_split, read_parquet, shards
from foretaste.io.remote import fetch_remote, is_remote
from foretaste.io.saved import has_splits, is_saved, read_saved
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples
from foretaste.sanitising import public_address


def read(
    source: Any,
    *,
    split: str | None = None,
    default_split: str = "train",
    resize: int | Size | None = None,
    on_bad: OnBad = "stop",
    use: LabelUse = "learn",
    image_column: str | None = None,
    label_column: str | None = None,
    like: Loaded | None = None,
    on_progress: OnProgress = silent,
) -> Loaded:
    """Read samples and say what was left out.

    Images that decode to more than 1 GiB are decoded once into the cache (``$FORETASTE_CACHE``,
    ``~/.cache/foretaste``) and memory-mapped. Images are grey, C = 1, if all of the set are, else RGB.

    Args:
        source: a ``.parquet`` file, a pattern that the files of one table match ("data/train-*.parquet"), or a folder
            of them: images in the Hugging Face layout, lists of ``features``, or columns of numbers; a folder with one
            subfolder of images per class; an ``.npz`` with ``x`` and ``y``; a ``.csv`` table of features; a folder
            written by ``datasets.Dataset.save_to_disk``; ``cifar10``, ``gtsrb`` or ``signs``; the address of a file,
            pattern or folder that fsspec opens ("hf://datasets/NAME", "s3://…"), which needs ``foretaste[remote]``; or
            an object: a pair (images, labels) of arrays, a ``datasets.Dataset`` or ``DatasetDict``, or a map-style
            ``torch.utils.data.Dataset`` of such pairs, whose ``classes``, if it has them, are the class names.
        split: which part to read of a source that has parts.
        default_split: which part of a named set ("train" or "test") or of a saved dictionary of data sets to read if
            ``split`` does not say. A folder with parts is not guessed about.
        resize: pixels to resize images to: one number for both sides, or (height, width).
        on_bad: "stop" at the first sample that cannot be used, or "skip" it and report it.
        use: what the labels are for: "learn" from, "compare" with, or "ignore", and then there need be none.
        image_column: the column of images, where it has no known name.
        label_column: the column of labels, where it has no known name.
        like: what the run read first; the columns and texts of a table are numbered as there.
        on_progress: called as the work goes on.

    Raises:
        UsageError: there is no such source or split, it is not clear what is meant, it has too few classes, or
            ``resize`` makes no sense.
        EmptyError: the source is in order and holds no samples.
        ForetasteError: the source is damaged, or its parts do not fit; the sentence names the file and the row.
    """
    size = (resize, resize) if isinstance(resize, int) else resize
    if size is not None and not (min(size) >= 1 and size[0] * size[1] <= MAX_PIXELS):
        raise UsageError(f"cannot resize images to {size[1]} x {size[0]} pixels")
    reading = Reading(
        resize=size,
        on_bad=on_bad,
        use=use,
        image_column=image_column,
        label_column=label_column,
        form=None if like is None else like.form,
        on_progress=on_progress,
    )
    loaded = _read(source, split, default_split, reading)
    if use == "learn" and len(loaded.samples.classes) < 2:
        raise UsageError(f"{origin_of(source)} has only one class; a classifier needs at least two")
    _check_names(loaded.samples, origin_of(source))
    return loaded


def _check_names(samples: Samples, source: str) -> None:
    """Refuse ids and class names that are no Unicode text: no result file could hold them."""
    for kind, names in (("id", samples.ids.tolist()), ("class name", samples.classes)):
        for place, name in enumerate(names):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ForetasteError(
                    f"{source}: the {kind} {name!a} (number {place}) is not valid Unicode text; rename it"
                ) from None


def _read(source: Any, split: str | None, default_split: str, reading: Reading) -> Loaded:
    if not isinstance(source, str | Path):
        return read_object(source, split, default_split, reading)
    if source in NAMES:
        return read_named(str(source), split or default_split, reading)
    if is_remote(source):
        return _read_remote(str(source), split, default_split, reading)
    path = Path(source)
    if not path.exists():
        files = [Path(name) for name in sorted(glob(str(source)))]  # noqa: PTH207, a pattern may be absolute
        if not files:
            raise UsageError(f"{source} does not exist; give a file, a folder, or one of {', '.join(NAMES)}")
        if any(file.suffix.lower() != ".parquet" for file in files):
            raise UsageError(f"{source} matches {files[0].name}; several files must be .parquet")
        return read_parquet(files, str(source), reading)
    if path.is_dir():
        return _read_folder(path, split, default_split, reading)
    if split is not None:
        raise UsageError(f"{source} has no splits; leave --split out")
    if path.suffix.lower() == ".parquet":
        return read_parquet([path], str(path), reading)
    if path.suffix.lower() == ".npz":
        return read_npz(path, reading)
    if path.suffix.lower() == ".csv":
        return read_csv(path, reading)
    raise UsageError(f"{source} is not a kind of file that can be read; give .parquet, .npz, .csv or a folder")


def _read_remote(address: str, split: str | None, default_split: str, reading: Reading) -> Loaded:
    name = public_address(address)
    copy = fetch_remote(address, split, reading.on_progress)
    if isinstance(copy, list):
        return read_parquet(copy, name, reading)
    try:
        return _read(copy, split if copy.is_dir() else None, default_split, reading)
    except ForetasteError as error:  # the user knows the address, and not where its copy is
        raise type(error)(str(error).replace(str(copy), name)) from error


def _read_folder(path: Path, split: str | None, default_split: str, reading: Reading) -> Loaded:
    if is_saved(path):
        if split is not None and not has_splits(path):
            raise UsageError(f"{path} has no splits; leave --split out")
        notes = (f"{path} has splits, and {default_split} was read",) if split is None and has_splits(path) else ()
        return read_saved(path, split or default_split, reading).noting(notes)
    if found := shards(path):
        return read_parquet(chosen_split(str(path), found, split), str(path), reading)
    if split is not None:
        if split not in (splits := split_folders(path)):
            raise UsageError(f"{path} has no split {split}; it has {', '.join(splits) or 'none'}")
        return read_folder(path / split, reading)
    return read_folder(path, reading)


def load(
    source: Any,
    *,
    split: str | None = None,
    resize: int | Size | None = None,
    on_bad: OnBad = "stop",
    image_column: str | None = None,
    label_column: str | None = None,
    on_progress: OnProgress = silent,
) -> Samples:
    """Read samples; as ``read``, but what was left out or taken for granted becomes a warning.

    >>> samples = foretaste.load("photos/")
    >>> samples = foretaste.load((images, labels))
    >>> samples = foretaste.load(datasets.load_dataset("imagefolder", data_dir="photos", split="train"))
    >>> samples = foretaste.load(torchvision.datasets.CIFAR10("data"))

    Images from objects are bytes, or bytes that were divided by 255; normalised ones are refused, because nobody tells
    what they were. Transforms that are set on a data set of Hugging Face do not matter.

    Raises:
        ForetasteError: as for ``read``.
    """
    loaded = read(
        source,
        split=split,
        resize=resize,
        on_bad=on_bad,
        image_column=image_column,
        label_column=label_column,
        on_progress=on_progress,
    )
    for note in (*loaded.notes, *left_out(loaded, source)):
        warnings.warn(note, stacklevel=2)
    return loaded.samples


def left_out(loaded: Loaded, source: Any) -> tuple[str, ...]:
    """Return a sentence about what of a source was left out; none if nothing was."""
    if not loaded.skipped:
        return ()
    first = loaded.skipped[0]
    name = public_address(origin_of(source))
    return (f"{name}: left out {len(loaded.skipped)}; first {first.name}, which {first.reason}",)
