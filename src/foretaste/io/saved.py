"""What ``datasets.Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` leave in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.arrow_rows import ArrowRows, arrow_errors, hub_features, read_rows
from foretaste.io.cache import file_identity
from foretaste.io.decoding import Loaded, Reading

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Return whether a folder is a saved data set or a dictionary of them."""
    return (folder / SPLITS).is_file() or ((folder / STATE).is_file() and (folder / INFO).is_file())


def has_splits(folder: Path) -> bool:
    """Return whether a folder is a saved dictionary of data sets."""
    return (folder / SPLITS).is_file()


def read_saved(folder: Path, split: str, reading: Reading) -> Loaded:
    """Read a saved data set, or the one named ``split`` in a saved dictionary.

    Raises:
        UsageError: the dictionary has no such split.
        ForetasteError: the folder is damaged, or as for ``read_rows``.
    """
    if has_splits(folder):
        splits = _json(folder / SPLITS, "splits", list)
        if split not in splits:
            raise UsageError(f"{folder} has no split {split}; it has {', '.join(map(str, splits))}")
        folder = folder / split
    files = [_data_file(folder, entry) for entry in _json(folder / STATE, "_data_files", list)]
    if not files:
        raise ForetasteError(f"{folder / STATE} names no data files")
    with arrow_errors(str(folder)):
        features = hub_features((folder / INFO).read_bytes(), str(folder / INFO))
        with pa.OSFile(str(files[0])) as source, pa.ipc.open_stream(source) as stream:
            schema = stream.schema
        identity = [file_identity(file) for file in files]

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for file in files:
            with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
                if not stream.schema.equals(schema):
                    raise ValueError(f"the columns of {file.name} differ from those of {files[0].name}")
                yield from stream

    rows = ArrowRows(
        origin=str(folder), folder=folder, schema=schema, features=features, batches=batches, identity=identity
    )
    return read_rows(rows, reading)


def _json(path: Path, key: str, kind: type[list[Any]]) -> list[Any]:
    try:
        value = json.loads(path.read_bytes())[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ForetasteError(f"{path} is missing or damaged") from error
    if not isinstance(value, kind):
        raise ForetasteError(f"{path} is damaged: {key} is not a list")
    return value


def _data_file(folder: Path, entry: Any) -> Path:
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        raise ForetasteError(f"{folder / STATE} names a data file outside its folder, or none")
    return folder / name
