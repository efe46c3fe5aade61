"""Tables of feature vectors as comma-separated values, with a header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.decoding import Loaded, Size
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples

LABELS = ("class", "label")
"""What the column of labels may be called, in any case; a table without it has its labels in the last column."""
IDS = "id"
"""What a column of ids is called."""


def read_csv(path: Path, *, resize: Size | None, on_progress: OnProgress) -> Loaded:
    """Read a table: one column of labels, the others features.

    Labels are whole numbers from 0, or texts, which become the class names in sorted order. A column of texts among
    the features becomes numbers: the place of each text among the column's texts in sorted order.

    Raises:
        ForetasteError: it is no such table, or a value is missing or infinite; the sentence names row and column.
    """
    if resize is not None:
        raise ForetasteError(f"{path} holds feature vectors, which cannot be resized")
    try:
        table = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(strings_can_be_null=True))
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ForetasteError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
    if len(set(names)) != len(names):
        raise ForetasteError(f"{path} has two columns of one name")
    label = next((name for name in names if name.lower() in LABELS), names[-1])
    features = [name for name in names if name not in (label, IDS)]
    if not features or not len(table):
        raise ForetasteError(f"{path} holds no samples; it needs a header, and columns of features and one of labels")
    for name in names:
        if table[name].null_count:
            row = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
            raise ForetasteError(f"{path}: row {row} has no value in column {name}")
    rows = np.empty((len(table), len(features)), dtype=np.float32)
    for place, name in enumerate(features):
        rows[:, place] = numbers(table[name], name, path)
        on_progress(Progress(phase=f"reading {path}", done=place + 1, total=len(features)))
    text = is_text(table[label])
    if not text and not pa.types.is_integer(table[label].type):
        raise ForetasteError(f"{path}: the labels in column {label} are neither whole numbers nor texts")
    labels = numbers(table[label], label, path).astype(np.int64)
    classes = sorted(table[label].unique().to_pylist()) if text else None
    ids = [str(value) for value in table[IDS].to_pylist()] if IDS in names and label != IDS else None
    try:
        return Loaded(Samples.from_arrays(rows, labels, classes, ids))
    except ForetasteError as error:
        raise ForetasteError(f"{path}: {error}") from error


def is_text(column: pa.ChunkedArray) -> bool:
    """Return whether a column holds texts."""
    return bool(pa.types.is_string(column.type))


def numbers(column: pa.ChunkedArray, name: str, path: Path) -> NDArray[np.float64]:
    """Return a column's values as numbers, texts by their place in sorted order: ``float64 (N,)``.

    Raises:
        ForetasteError: they are something else, such as dates.
    """
    if is_text(column):
        column = pc.index_in(column, value_set=pa.array(sorted(column.unique().to_pylist()), pa.string()))
    elif not (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    ):
        raise ForetasteError(f"{path}: column {name} holds neither numbers nor texts but {column.type}")
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values
