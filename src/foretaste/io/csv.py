"""Tables of feature vectors as comma-separated values, with a header."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.decoding import Loaded, Reading
from foretaste.io.keys import ID_NAME, as_numbers, read_labels
from foretaste.io.original import CsvOriginal
from foretaste.io.tables import read_table
from foretaste.sanitising import reason


def read_csv(path: Path, reading: Reading) -> Loaded:
    """Read a table as ``read_table`` does; labels are in a column of a known name, else in the last.

    Types and missing values ("", "NA", "null", …) are those of Arrow's reader; ids and labels stay as they are written,
    but for labels that are all plain whole numbers. A text in quotes is never a missing value.

    Raises:
        UsageError: several columns may be the labels, or the columns are not those of the run's first table.
        ForetasteError: it is no such table, or a row is bad and is not to be skipped.
    """
    if reading.resize is not None:
        raise ForetasteError(f"{path} holds feature vectors, which cannot be resized")
    origin = str(path)
    names = _header(path)
    label = reading.find_label(names, origin)
    notes = () if label else (f"{origin}: labels were taken from its last column, {names[-1]}",)
    label = label or names[-1]
    keys = [name for name in names if name in (label, ID_NAME)]
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    try:
        table = pa_csv.read_csv(
            path,
            parse_options=parse,
            convert_options=pa_csv.ConvertOptions(
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                column_types={key: pa.string() for key in keys},
            ),
        )
        written = pa_csv.read_csv(
            path,
            parse_options=parse,
            convert_options=pa_csv.ConvertOptions(
                include_columns=keys, column_types={key: pa.string() for key in keys}
            ),
        )
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise ForetasteError(f"cannot read {path}: {reason(error)}") from error
    for key in keys:
        table = table.set_column(table.column_names.index(key), key, written[key])
    loaded = read_table(
        table,
        reading,
        origin=origin,
        label=label,
        labels=lambda values: read_labels(as_numbers(values), None, origin=origin, use=reading.use),
    )
    return loaded.noting(notes, CsvOriginal(path, table))


def _header(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        UsageError: the columns are not separated by commas.
        ForetasteError: there is no header, or it names a column twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ForetasteError(f"cannot read {path}: {reason(error)}") from error
    if not names:
        raise ForetasteError(f"cannot read {path}: it is empty")
    if len(names) == 1 and any(sign in names[0] for sign in ";\t"):
        raise UsageError(f"{path} is not separated by commas; it starts with {names[0][:60]!r}")
    if _is_data(names):
        raise ForetasteError(f"{path} has no header: its first row is data, {', '.join(names)[:60]}")
    if len(set(names)) != len(names):
        raise ForetasteError(f"{path} has two columns of one name")
    return names


def _is_data(names: list[str]) -> bool:
    """Return whether a first row holds numbers that are no names; names may be numbers that count on from 0."""
    numbers = []
    for name in names:
        try:
            numbers.append(float(name))
        except ValueError:
            continue
    return bool(numbers) and (len(numbers) < 2 or numbers != list(range(len(numbers))))
