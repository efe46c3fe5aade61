"""Samples from what a Python program has already: arrays, data sets of Hugging Face, data sets of torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from foretaste.errors import EmptyError, ForetasteError, UsageError
from foretaste.io.arrow_rows import ArrowRows, read_rows
from foretaste.io.decoding import Loaded, Reading, Size, Skipped
from foretaste.io.images import BadImageError, pixels_of, resize_image
from foretaste.io.keys import read_labels, refuse
from foretaste.progress import Progress
from foretaste.samples import Samples, row_ids

ROWS = 256
"""Rows of a Hugging Face data set that are read at a time."""
ROUNDING = 1e-3
"""Grey levels by which a pixel in [0, 1] may miss a whole number of 255ths, as ``float32`` arithmetic makes it."""


def origin_of(source: Any) -> str:
    """Return what to call a source in messages."""
    if isinstance(source, tuple):
        return "the pair of arrays"
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"


def read_object(source: Any, split: str | None, default_split: str, reading: Reading) -> Loaded:
    """Read a pair of arrays, a ``datasets.Dataset`` or ``DatasetDict``, or a map-style ``torch.utils.data.Dataset``.

    Raises:
        UsageError: it is none of these, or has no such split.
        ForetasteError: what it holds cannot be used.
    """
    hub, torch = sys.modules.get("datasets"), sys.modules.get("torch")  # who has such an object has imported them
    if hub is not None:
        if isinstance(source, hub.IterableDataset | hub.IterableDatasetDict):
            raise UsageError("the data set is a stream; load it without streaming=True")
        if isinstance(source, hub.DatasetDict):
            if (chosen := split or default_split) not in source:
                raise UsageError(f"the DatasetDict has no split {chosen}; it has {', '.join(map(str, source))}")
            notes = () if split is not None else (f"the DatasetDict has splits, and {chosen} was read",)
            return _read_hub(source[chosen], hub, reading).noting(notes)
    if split is not None:
        raise UsageError(f"{origin_of(source)} has no splits; leave split out")
    if hub is not None and isinstance(source, hub.Dataset):
        return _read_hub(source, hub, reading)
    if isinstance(source, tuple) and len(source) == 2:
        return _read_arrays(*source, origin_of(source), reading)
    if torch is not None and isinstance(source, torch.utils.data.IterableDataset):
        raise UsageError("the data set is a stream; give a map-style one, with a length and numbered items")
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, np.ndarray | dict):
        return _read_pairs(source, reading)
    raise UsageError(
        f"{type(source).__name__} is no source of samples; give a path, a name, a pair (images, labels), or a Dataset "
        "of Hugging Face or torch"
    )


def _read_hub(dataset: Any, hub: Any, reading: Reading) -> Loaded:
    """Read a ``datasets.Dataset`` as it is stored; transforms and formats that are set on it do not matter."""
    stored = dataset.with_format("arrow")

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        names = stored.column_names if columns is None else list({name.split(".")[0]: None for name in columns})
        for table in stored.select_columns(names).iter(ROWS):
            # Images may be files elsewhere, which the library knows how to find.
            yield from hub.table.embed_table_storage(table).combine_chunks().to_batches()

    rows = ArrowRows(
        origin=origin_of(dataset),
        folder=Path(),
        schema=dataset.features.arrow_schema,
        features=dataset.features.to_dict(),
        batches=batches,
        identity=["datasets", dataset._fingerprint],
    )
    return read_rows(rows, reading)


def _read_arrays(inputs: Any, labels: Any, origin: str, reading: Reading) -> Loaded:
    """Read ``(N, H, W, C)``, ``(N, H, W)`` or ``(N, C, H, W)`` images, or ``(N, D)`` features, and N labels."""
    values = np.asarray(inputs)
    if values.ndim in (3, 4):
        values = _pixels(values, "the images")
        if reading.resize is not None:
            values = np.stack([resize_image(image, reading.resize) for image in values])
    elif values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ForetasteError(
            f"the inputs must be images (N, H, W, C) or numbers (N, D), not {values.dtype} {values.shape}"
        )
    elif reading.resize is not None:
        raise ForetasteError("the inputs are feature vectors, which cannot be resized")
    given = np.asarray(labels)
    if given.shape != values.shape[:1] and reading.use != "ignore":
        raise ForetasteError(f"there are {len(values)} inputs, and the labels have shape {given.shape}")
    return _loaded(values, given.tolist(), None, origin, reading)


def _read_pairs(dataset: Any, reading: Reading) -> Loaded:
    """Read items (image, label): images of Pillow, arrays ``(H, W, C)``, or tensors ``(C, H, W)``."""
    origin = origin_of(dataset)
    images: list[NDArray[np.uint8]] = []
    labels: list[Any] = []
    for row in range(len(dataset)):
        item = dataset[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ForetasteError(f"{origin}, row {row} is no pair (image, label)")
        image = _image(item[0], f"{origin}, row {row}", reading.resize)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise ForetasteError(
                f"the images of {origin} differ in size: row 0 has {images[0].shape[1]} x {images[0].shape[0]} pixels, "
                f"row {row} has {image.shape[1]} x {image.shape[0]}; give resize"
            )
        images.append(image)
        labels.append(np.asarray(item[1])[()])
        reading.on_progress(Progress(phase=f"reading {origin}", done=row + 1, total=len(dataset)))
    channels = max((image.shape[2] for image in images), default=1)
    whole = [np.broadcast_to(image, (*image.shape[:2], channels)) for image in images]
    return _loaded(np.stack(whole) if whole else np.empty((0, 1, 1, 1), np.uint8), labels, dataset, origin, reading)


def _image(value: Any, name: str, size: Size | None) -> NDArray[np.uint8]:
    """Return an image of whatever kind as ``uint8 (H, W, C)``."""
    if isinstance(value, Image.Image):
        try:
            pixels = pixels_of(value, size)
        except BadImageError as error:
            raise ForetasteError(f"{name} {error}") from error
        return pixels if pixels.ndim == 3 else pixels[..., None]
    array = np.asarray(value)
    if array.ndim not in (2, 3):
        raise ForetasteError(f"{name} is no image (H, W, C), but {array.dtype} {array.shape}")
    [image] = _pixels(array[None], name)
    return image if size is None else resize_image(image, size)


def _pixels(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Return N images as ``uint8 (N, H, W, C)``; where 1 or 3 channels can be last, they are.

    Raises:
        ForetasteError: they are no images, or of pixels that are neither bytes nor bytes divided by 255.
    """
    if values.ndim == 3:
        values = values[..., None]
    last, second = values.shape[3] in (1, 3), values.shape[1] in (1, 3)
    if not last and not second:
        raise ForetasteError(f"{name} must be (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, not {values.shape}")
    if not last:
        values = np.moveaxis(values, 1, 3)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        # What turns bytes into [0, 1] can be undone, and only that: others have means and scales that nobody tells.
        with np.errstate(invalid="ignore"):
            levels = values.astype(np.float64) * 255
            whole = np.round(levels)
            near = abs(levels - whole) <= ROUNDING  # never so for NaN and infinity
        if near.all() and whole.min(initial=0) >= 0 and whole.max(initial=0) <= 255:
            return whole.astype(np.uint8)
    raise ForetasteError(
        f"{name} must be bytes (uint8), or bytes divided by 255, not {values.dtype} of other values; take what "
        "normalises or augments them out of the transform"
    )


def _loaded(inputs: NDArray[Any], labels: Sequence[Any], dataset: Any, origin: str, reading: Reading) -> Loaded:
    """Put inputs and labels together, without those that have none if they are to be skipped."""
    if not len(inputs):
        raise EmptyError(f"{origin} holds no samples")
    found = read_labels(labels, _class_names(dataset), origin=origin, use=reading.use)
    bad = dict(found.bad)
    if inputs.ndim == 2:
        inputs = inputs.astype(np.float32)
        for row in np.flatnonzero(~np.isfinite(inputs).all(axis=1)).tolist():
            bad.setdefault(row, "has NaN or infinite features")
    if reading.on_bad == "stop":
        refuse(bad, lambda row: f"{origin}, row {row}")
    good = np.array([row not in bad for row in range(len(inputs))], dtype=np.bool_)
    if not good.any():
        raise ForetasteError(f"{origin} holds no sample that can be used: row 0 {bad[0]}")
    kept = slice(None) if good.all() else good
    return Loaded(
        Samples.from_arrays(inputs[kept], found.labels[kept], found.classes, row_ids(len(inputs))[kept]),
        tuple(Skipped(f"{origin}, row {row}", bad[row]) for row in sorted(bad)),
        rows=np.flatnonzero(good),
    )


def _class_names(dataset: Any) -> list[str] | None:
    """Return the ``classes`` that a data set of torchvision's kind names, also behind a ``Subset``; None without."""
    while not hasattr(dataset, "classes"):
        if not hasattr(dataset, "dataset"):
            return None
        dataset = dataset.dataset
    return [str(name) for name in dataset.classes]
