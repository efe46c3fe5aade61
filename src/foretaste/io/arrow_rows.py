"""Labelled rows of an Arrow table in the Hugging Face layout, whatever file they come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.decoding import Encoded, Loaded, OnBad, Size, decode
from foretaste.io.images import BadImageError
from foretaste.io.store import gather
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Labels, Samples, row_ids

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
MAX_ID = 1024
"""Characters in an id; NumPy gives every id the room of the longest."""
MAX_CLASSES = 2**20
"""Labels without names stop here: a larger one is a damaged file, not a class."""


@dataclass(frozen=True, kw_only=True)
class ArrowRows:
    """A table that is read a batch at a time.

    Attributes:
        origin: the file or folder, for messages.
        folder: where relative image paths start; paths that leave it are refused.
        schema: of the whole table.
        features: the Hugging Face description of the columns, or {}.
        batches: given column names ("image.path" for a field), yields record batches that hold at least these.
        identity: what the rows depend on, as JSON.
    """

    origin: str
    folder: Path
    schema: pa.Schema
    features: dict[str, Any]
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    identity: object


@contextmanager
def arrow_errors(origin: str) -> Iterator[None]:
    """Turn what Arrow raises on a damaged file into a ``ForetasteError`` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ForetasteError(f"cannot read {origin}: {reason}") from error


def hub_features(text: bytes | str | None, origin: str) -> dict[str, Any]:
    """Return the ``features`` of a Hugging Face description (``{"info": {"features": …}}`` or ``{"features": …}``).

    Raises:
        ForetasteError: it is not JSON of that form.
    """
    if text is None:
        return {}
    try:
        value = json.loads(text)
        value = value.get("info", value).get("features") or {}
        return {str(name): feature for name, feature in value.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ForetasteError(f"{origin}: its Hugging Face metadata is damaged") from error


def read_rows(rows: ArrowRows, *, resize: Size | None, on_bad: OnBad, on_progress: OnProgress) -> Loaded:
    """Read images or feature vectors.

    Raises:
        ForetasteError: columns are missing or of the wrong type, labels are out of range, ids repeat, or as for
            ``decode``.
    """
    with arrow_errors(rows.origin):
        if len(set(rows.schema.names)) != len(rows.schema.names):
            raise ForetasteError(f"{rows.origin} has several columns of one name")
        label = _column(rows, LABEL_COLUMNS, "label")
        if "features" in rows.schema.names:
            return Loaded(_read_features(rows, label, resize, on_progress))
        image = _column(rows, IMAGE_COLUMNS, "image")
        plain, parts = _image_parts(rows, image)
        labels, ids, paths = _keys(rows, label, f"{image}.path" if "path" in parts else None)

    def payloads() -> Iterator[bytes | Path | BadImageError]:
        for batch in _guarded(rows, [image] if plain else [f"{image}.{part}" for part in parts]):
            column, nothing = batch.column(image), [None] * batch.num_rows
            contents = column.to_pylist() if plain else _field(column, "bytes") if "bytes" in parts else nothing
            places = _field(column, "path") if "path" in parts else nothing
            for content, place in zip(contents, places, strict=True):
                yield content if content else _local_file(rows.folder, place)

    def name(row: int) -> str:
        return f"{rows.origin}, row {row}" + (f" ({paths[row]})" if paths and paths[row] else "")

    encoded = Encoded(
        origin=rows.origin,
        labels=labels.values,
        classes=labels.classes,
        ids=ids,
        payloads=payloads,
        name=name,
        identity=rows.identity,
    )
    return decode(encoded, resize=resize, on_bad=on_bad, on_progress=on_progress)


def _image_parts(rows: ArrowRows, image: str) -> tuple[bool, list[str]]:
    """Return whether the column holds bytes as such, and else which of "bytes" and "path" its structs have."""
    kind = rows.schema.field(image).type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True, []
    fields = [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    allowed = {
        "bytes": (pa.types.is_binary, pa.types.is_large_binary),
        "path": (pa.types.is_string, pa.types.is_large_string),
    }
    parts = [field.name for field in fields if any(check(field.type) for check in allowed.get(field.name, ()))]
    if not parts or len(set(parts)) != len(parts):
        raise ForetasteError(
            f"{rows.origin}: column {image} holds {kind}, not images (bytes, or a struct of bytes and path)"
        )
    return False, parts


def _field(column: pa.Array, name: str) -> list[Any]:
    values: list[Any] = pc.struct_field(column, name).to_pylist()
    return values


def _column(rows: ArrowRows, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if name in rows.schema.names:
            return name
    raise ForetasteError(
        f"{rows.origin} has no {what} column; it has {', '.join(rows.schema.names[:20]) or 'no columns'}"
    )


def _guarded(rows: ArrowRows, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    batches = rows.batches(columns)
    while True:
        with arrow_errors(rows.origin):
            batch = next(batches, None)
            if batch is not None:
                batch.validate(full=True)  # hostile offsets would make Arrow read outside its buffers
        if batch is None:
            return
        yield batch


def _local_file(folder: Path, path: str | None) -> Path | BadImageError:
    """Return a file that a row refers to; only files inside the folder, so that no set can make us read others."""
    if not path:
        return BadImageError("holds no image")
    try:
        file = (folder / path).resolve()
        if not file.is_relative_to(folder.resolve()):
            return BadImageError(f"refers to {path}, outside the set's folder; save the set with its images embedded")
        return file if file.is_file() else BadImageError(f"refers to {path}, which does not exist")
    except (OSError, ValueError, RuntimeError):
        return BadImageError("refers to a path that cannot be a file")


@dataclass(frozen=True)
class _ClassLabels:
    values: Labels
    classes: tuple[str, ...]


def _keys(rows: ArrowRows, label: str, path: str | None) -> tuple[_ClassLabels, NDArray[np.str_], list[str | None]]:
    """Read what is small: labels, ids, image paths."""
    own_ids = "id" in rows.schema.names
    values: list[Any] = []
    paths: list[str | None] = []
    names: list[Any] = []
    for batch in _guarded(rows, [label, *([path] if path else []), *(["id"] if own_ids else [])]):
        values += batch.column(label).to_pylist()
        if path:
            paths += _field(batch.column(path.split(".")[0]), "path")
        if own_ids:
            names += batch.column("id").to_pylist()
    labels = _class_labels(rows, label, values)
    if own_ids:
        return labels, _own_ids(rows, names), paths
    if paths and None not in paths and len(set(paths)) == len(paths) and max(map(len, map(str, paths))) <= MAX_ID:
        return labels, np.asarray(paths, dtype=np.str_), paths
    return labels, row_ids(len(values)), paths


def _own_ids(rows: ArrowRows, values: list[Any]) -> NDArray[np.str_]:
    seen: dict[str, int] = {}
    for row, value in enumerate(values):
        if value is None or len(str(value)) > MAX_ID:
            raise ForetasteError(f"{rows.origin}, row {row} has no id of 1 to {MAX_ID} characters")
        if seen.setdefault(str(value), row) != row:
            raise ForetasteError(f"{rows.origin}: rows {seen[str(value)]} and {row} have the same id, {value}")
    return np.array(list(seen), dtype=np.str_)


def _class_labels(rows: ArrowRows, column: str, values: list[Any]) -> _ClassLabels:
    if None in values:
        raise ForetasteError(f"{rows.origin}, row {values.index(None)} has no label")
    kind = rows.schema.field(column).type
    feature = rows.features.get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ForetasteError(f"{rows.origin}: the class names in its metadata are not a list of strings")
    if pa.types.is_integer(kind):
        largest = max(values, default=-1)
        if names is None and largest >= MAX_CLASSES:
            raise ForetasteError(
                f"{rows.origin}, row {values.index(largest)} has label {largest}, which cannot be a class"
            )
        classes = names if names is not None else [str(k) for k in range(largest + 1)]
        for row, value in enumerate(values):
            if not 0 <= value < len(classes):
                raise ForetasteError(f"{rows.origin}, row {row} has label {value}, outside the {len(classes)} classes")
        return _ClassLabels(np.array(values, dtype=np.int64), tuple(classes))
    if all(isinstance(value, str) for value in values):
        classes = sorted(set(values))
        index = {name: k for k, name in enumerate(classes)}
        return _ClassLabels(np.array([index[value] for value in values], dtype=np.int64), tuple(classes))
    raise ForetasteError(f"{rows.origin}: column {column} holds {kind}, not integers or strings")


def _read_features(rows: ArrowRows, label: str, resize: Size | None, on_progress: OnProgress) -> Samples:
    if resize is not None:
        raise ForetasteError(f"{rows.origin} holds feature vectors, which cannot be resized")
    kind = rows.schema.field("features").type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(check(kind) for check in lists) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise ForetasteError(f"{rows.origin}: column features holds {kind}, not lists of numbers")
    labels, ids, _ = _keys(rows, label, None)
    total = len(labels.values)

    def chunks() -> Iterator[NDArray[np.float32]]:
        width, done = -1, 0
        for batch in _guarded(rows, ["features"]):
            column = batch.column("features")
            lengths = pc.list_value_length(column).to_pylist()
            width = lengths[0] if width < 0 and lengths else width
            for row, length in enumerate(lengths):
                if length != width or not length:
                    raise ForetasteError(
                        f"{rows.origin}, row {done + row} has {length or 'no'} features, row 0 has {width}"
                    )
            values = column.flatten().cast(pa.float32(), safe=False).fill_null(float("nan"))
            matrix = values.to_numpy(zero_copy_only=False).reshape(-1, max(width, 1))
            bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
            if bad.size:
                raise ForetasteError(f"{rows.origin}, row {done + bad[0]} has NaN or infinite features")
            done += len(matrix)
            on_progress(Progress(phase=f"reading {rows.origin}", done=done, total=max(total, 1)))
            if len(matrix):
                yield matrix

    features = gather(chunks(), total, ["features", rows.identity]).array
    if not len(features):
        raise ForetasteError(f"{rows.origin} holds no samples")
    return Samples(labels.values, labels.classes, ids, features=features)
