"""Parquet in the Hugging Face layout, read from one file or from several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.arrow_rows import ArrowRows, arrow_errors, hub_features, read_rows
from foretaste.io.cache import file_identity
from foretaste.io.decoding import Loaded, Reading
from foretaste.io.folder import SPLITS

BATCH_ROWS = 256
"""Rows read at a time."""

SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d+)-of-(?P<count>\d+)\.parquet")
"""What one of several files of a split is called on the Hugging Face hub."""


def read_parquet(files: Sequence[Path], origin: str, reading: Reading) -> Loaded:
    """Read images or feature vectors from one file, or from several that are one table, in order.

    Raises:
        ForetasteError: it is no parquet file or a damaged one, the files have other columns, or as for ``read_rows``.
    """
    with arrow_errors(origin):
        schemas = [_schema_of(file) for file in files]
        identity = [file_identity(file) for file in files]
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise ForetasteError(f"the columns of {file} differ from those of {files[0]}")
    schema = schemas[0]

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for path in files:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=None if columns is None else list(columns))

    rows = ArrowRows(
        origin=origin,
        folder=files[0].parent,
        schema=schema,
        features=hub_features((schema.metadata or {}).get(b"huggingface"), origin),
        batches=batches,
        identity=identity,
    )
    return read_rows(rows, reading)


def _schema_of(file: Path) -> pa.Schema:
    with pq.ParquetFile(file, pre_buffer=False) as opened:
        return opened.schema_arrow


def shards(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files in a folder, or in its subfolder ``data``, by split; "" where names tell no split.

    Raises:
        ForetasteError: the folder cannot be read, or a file of a split is missing.
    """
    try:
        files = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    except OSError as error:
        raise ForetasteError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error
    return splits_of(str(folder), files)


def splits_of(origin: str, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return parquet files by the split that their names tell; "" where they tell none.

    Raises:
        ForetasteError: a file of a split is missing.
    """
    found: dict[str, list[Path]] = {}
    counts: dict[str, int] = {}
    for file in files:
        if shard := SHARD.fullmatch(file.name):
            split = shard["split"]
            counts[split] = int(shard["count"])
        else:
            split = file.stem if file.stem.lower() in SPLITS else ""
        found.setdefault(split, []).append(file)
    for split, count in counts.items():
        if len(found[split]) != count:
            raise ForetasteError(f"{origin} holds {len(found[split])} of the {count} files of {split}")
    return found


def chosen_split(origin: str, found: dict[str, list[Path]], split: str | None) -> list[Path]:
    """Return the files of the split that was asked for, or of the only one.

    Raises:
        UsageError: there is no such split, or none was asked for and there are several.
    """
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        listing = ", ".join(name or "files of no split" for name in found)
        raise UsageError(f"{origin} has the splits {listing}; name one of them with --split, or give its files alone")
    return found[split]
