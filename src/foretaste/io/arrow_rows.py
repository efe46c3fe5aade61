"""Labelled rows of an Arrow table: images in the Hugging Face layout, lists of features, or columns of numbers."""

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

from foretaste.errors import EmptyError, ForetasteError
from foretaste.io.decoding import Encoded, Loaded, Reading, Skipped, decode
from foretaste.io.images import BadImageError
from foretaste.io.keys import ID_NAME, MAX_ID, RowLabels, find_column, own_ids, read_labels, refuse
from foretaste.io.original import ArrowOriginal, read_again
from foretaste.io.parquet_writer import hub_metadata
from foretaste.io.store import gather
from foretaste.io.tables import is_text, read_table
from foretaste.progress import Progress
from foretaste.samples import Samples, row_ids
from foretaste.sanitising import reason

IMAGE_NAMES = ("image", "images", "img", "picture", "jpg", "jpeg", "png", "webp")
"""What a column of images may be called, in any case."""
FEATURES = "features"
"""What a column with a list of features in each row is called."""


@dataclass(frozen=True, kw_only=True)
class ArrowRows:
    """A table that is read a batch at a time.

    Attributes:
        origin: the file or folder, for messages.
        folder: where relative image paths start; paths that leave it are refused.
        schema: of the whole table.
        features: the Hugging Face description of the columns, or {}.
        batches: given column names ("image.path" for a field), yields record batches that hold at least these; given
            None, all columns. It opens what it reads, so that it can be called at any time.
        identity: what the rows depend on, as JSON.
    """

    origin: str
    folder: Path
    schema: pa.Schema
    features: dict[str, Any]
    batches: Callable[[Sequence[str] | None], Iterator[pa.RecordBatch]]
    identity: object


@contextmanager
def arrow_errors(origin: str) -> Iterator[None]:
    """Turn what Arrow raises on a damaged file into a ``ForetasteError`` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise ForetasteError(f"cannot read {origin}: {reason(error)}") from error


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


def read_rows(rows: ArrowRows, reading: Reading) -> Loaded:
    """Read images, lists of features, or columns of numbers and texts as features.

    Raises:
        UsageError: several columns could be meant, or as for ``read_table``.
        ForetasteError: columns are missing or of the wrong type, labels or ids cannot be used, or as for ``decode``.
    """
    with arrow_errors(rows.origin):
        names = rows.schema.names
        if len(set(names)) != len(names):
            raise ForetasteError(f"{rows.origin} has several columns of one name")
        label = reading.find_label(names, rows.origin)
        if label is None and reading.use != "ignore":
            raise ForetasteError(f"{rows.origin} has no label column; it has {', '.join(names[:20]) or 'no columns'}")
        known = find_column(names, reading.image_column, IMAGE_NAMES, what="image", origin=rows.origin)
        image = known or _declared(rows)
        if image is None and FEATURES in names:
            return _read_features(rows, label, reading)
        if image is None:
            return _read_columns(rows, label, reading)
        plain, parts = _image_parts(rows, image)
        columns = [image] if plain else [f"{image}.{part}" for part in parts]
        labels, ids, paths = _keys(rows, label, f"{image}.path" if "path" in parts else None, reading)
        if not len(ids):
            raise EmptyError(f"{rows.origin} holds no samples")

    def payloads() -> Iterator[bytes | Path | BadImageError]:
        for batch in _guarded(rows, columns):
            yield from _images(batch.column(image), rows.folder)

    def name(row: int) -> str:
        return f"{rows.origin}, row {row}" + (f" ({paths[row]})" if paths and paths[row] else "")

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in _guarded(rows, None):
            yield batch if plain else _embedded(batch, image, rows)

    encoded = Encoded(
        origin=rows.origin,
        labels=labels.labels,
        classes=labels.classes,
        ids=ids,
        payloads=payloads,
        name=name,
        identity=rows.identity,
        bad=labels.bad,
    )
    return decode(encoded, reading).noting((), ArrowOriginal(_described(rows), batches))


def _described(rows: ArrowRows) -> pa.Schema:
    """Return the schema with the Hugging Face description, which saved sets keep elsewhere."""
    metadata = rows.schema.metadata or {}
    if not rows.features or b"huggingface" in metadata:
        return rows.schema
    return rows.schema.with_metadata(metadata | hub_metadata(rows.features))


def _declared(rows: ArrowRows) -> str | None:
    """Return the one column that the Hugging Face description calls images, if there is just one."""
    names = [
        name
        for name, feature in rows.features.items()
        if isinstance(feature, dict) and feature.get("_type") == "Image" and name in rows.schema.names
    ]
    return names[0] if len(names) == 1 else None


def _images(column: pa.Array, folder: Path) -> Iterator[bytes | Path | BadImageError]:
    """Yield what a batch's images are: bytes, files, or why there is none."""
    nothing = [None] * len(column)
    if not pa.types.is_struct(column.type):
        contents, places = column.to_pylist(), nothing
    else:
        fields = [field.name for field in column.type]
        contents = _field(column, "bytes") if "bytes" in fields else nothing
        places = _field(column, "path") if "path" in fields else nothing
    for content, place in zip(contents, places, strict=True):
        yield content if content else _local_file(folder, place)


def _embedded(batch: pa.RecordBatch, image: str, rows: ArrowRows) -> pa.RecordBatch:
    """Return the batch with the content of the files that its images refer to, for a file that may lie elsewhere."""
    column = batch.column(image)
    fields = [field.name for field in column.type]
    if "bytes" not in fields or "path" not in fields or None not in _field(column, "bytes"):
        return batch
    contents = [
        None if isinstance(one, BadImageError) else read_again(one, rows.origin) for one in _images(column, rows.folder)
    ]
    arrays = [
        pa.array(contents, field.type) if field.name == "bytes" else pc.struct_field(column, field.name)
        for field in column.type
    ]
    place = batch.schema.get_field_index(image)
    return batch.set_column(
        place, batch.schema.field(place), pa.StructArray.from_arrays(arrays, fields=list(column.type))
    )


def _image_parts(rows: ArrowRows, image: str) -> tuple[bool, list[str]]:
    """Return whether the column holds bytes as such, and else which of "bytes" and "path" its structs have."""
    kind = rows.schema.field(image).type
    if _is_binary(kind):
        return True, []
    fields = [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    allowed = {"bytes": _is_binary, "path": is_text}
    parts = [field.name for field in fields if field.name in allowed and allowed[field.name](field.type)]
    if not parts or len(set(parts)) != len(parts):
        raise ForetasteError(
            f"{rows.origin}: column {image} holds {kind}, not images (bytes, or a struct of bytes and path)"
        )
    return False, parts


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _field(column: pa.Array, name: str) -> list[Any]:
    values: list[Any] = pc.struct_field(column, name).to_pylist()
    return values


def _guarded(rows: ArrowRows, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
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


def _keys(
    rows: ArrowRows, label: str | None, path: str | None, reading: Reading
) -> tuple[RowLabels, NDArray[np.str_], list[str | None]]:
    """Read what is small: labels, ids, image paths."""
    has_ids = ID_NAME in rows.schema.names and label != ID_NAME
    column = label if reading.use != "ignore" else None
    values: list[Any] = []
    paths: list[str | None] = []
    names: list[Any] = []
    wanted = [*([column] if column else []), *([path] if path else []), *([ID_NAME] if has_ids else [])]
    count = 0
    for batch in _guarded(rows, wanted or rows.schema.names[:1]):
        count += batch.num_rows
        if column:
            values += batch.column(column).to_pylist()
        if path:
            paths += _field(batch.column(path.split(".")[0]), "path")
        if has_ids:
            names += batch.column(ID_NAME).to_pylist()
    labels = _labels(rows, column, values if column else [None] * count, reading)
    if has_ids:
        return labels, own_ids(names, rows.origin), paths
    if paths and None not in paths and len(set(paths)) == len(paths) and max(map(len, map(str, paths))) <= MAX_ID:
        return labels, np.asarray(paths, dtype=np.str_), paths
    return labels, row_ids(count), paths


def _labels(rows: ArrowRows, column: str | None, values: Sequence[Any], reading: Reading) -> RowLabels:
    feature = rows.features.get(column) if column else None
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ForetasteError(f"{rows.origin}: the class names in its metadata are not a list of strings")
    return read_labels(values, names, origin=rows.origin, use=reading.use)


def _read_columns(rows: ArrowRows, label: str | None, reading: Reading) -> Loaded:
    """Read columns of numbers and texts."""
    if reading.resize is not None:
        raise ForetasteError(f"{rows.origin} holds feature vectors, which cannot be resized")
    table = pa.Table.from_batches(_guarded(rows, None), rows.schema)
    for name in table.column_names:
        if pa.types.is_struct(kind := table[name].type) or _is_binary(kind):
            raise ForetasteError(
                f"{rows.origin} has no image column of a known name; if {name} holds images, give --image-column {name}"
            )
    if not len(table):
        raise EmptyError(f"{rows.origin} holds no samples")
    loaded = read_table(
        table,
        reading,
        origin=rows.origin,
        label=label,
        labels=lambda values: _labels(rows, label, values, reading),
    )
    return loaded.noting((), ArrowOriginal(_described(rows), lambda: _guarded(rows, None)))


def _read_features(rows: ArrowRows, label: str | None, reading: Reading) -> Loaded:
    """Read a column of lists of numbers."""
    if reading.resize is not None:
        raise ForetasteError(f"{rows.origin} holds feature vectors, which cannot be resized")
    kind = rows.schema.field(FEATURES).type
    lists = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    if not any(check(kind) for check in lists) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise ForetasteError(f"{rows.origin}: column features holds {kind}, not lists of numbers")
    labels, ids, _ = _keys(rows, label, None, reading)
    bad, total = dict(labels.bad), len(ids)

    def name(row: int) -> str:
        return f"{rows.origin}, row {row}"

    def chunks() -> Iterator[NDArray[np.float32]]:
        width, done = -1, 0
        for batch in _guarded(rows, [FEATURES]):
            column = batch.column(FEATURES)
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
            width = next((length for length in lengths if length), width) if width < 0 else width
            for row, length in enumerate(lengths):
                if length != width:
                    bad.setdefault(done + row, f"has {length or 'no'} features, others have {max(width, 0)}")
            whole = column.filter(pa.array([length == width for length in lengths]))
            values = whole.flatten().cast(pa.float32(), safe=False).fill_null(float("nan"))
            matrix = values.to_numpy(zero_copy_only=False).reshape(-1, max(width, 1))
            places = done + np.flatnonzero(np.array(lengths) == width)
            for row in places[~np.isfinite(matrix).all(axis=1)].tolist():
                bad.setdefault(row, "has NaN or infinite features")
            if reading.on_bad == "stop":
                refuse(bad, name)
            done += len(lengths)
            reading.on_progress(Progress(phase=f"reading {rows.origin}", done=done, total=max(total, 1)))
            good = np.array([row not in bad for row in places.tolist()], dtype=np.bool_)
            if good.any():
                yield matrix[good]

    def notes() -> list[tuple[int, str]]:
        return sorted(bad.items())

    gathered = gather(chunks(), total, [FEATURES, rows.identity, reading.on_bad, sorted(bad)], notes)
    if not total:
        raise EmptyError(f"{rows.origin} holds no samples")
    if not len(gathered.array):
        raise ForetasteError(f"{rows.origin} holds no sample that can be read: {name(0)} {gathered.notes[0][1]}")
    good = np.ones(total, dtype=np.bool_)
    good[[int(row) for row, _ in gathered.notes]] = False
    return Loaded(
        Samples(labels.labels[good], labels.classes, ids[good], features=gathered.array),
        tuple(Skipped(name(int(row)), str(why)) for row, why in gathered.notes),
        rows=np.flatnonzero(good),
        original=ArrowOriginal(_described(rows), lambda: _guarded(rows, None)),
    )
