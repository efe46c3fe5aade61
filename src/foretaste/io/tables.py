"""Tables of named columns as feature vectors: columns matched by name, one bad cell named, one vocabulary a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.decoding import Loaded, Reading, Skipped
from foretaste.io.keys import ID_NAME, RowLabels, own_ids, refuse
from foretaste.progress import Progress
from foretaste.samples import Samples, row_ids


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """How the columns of a table became features, which the later tables of a run follow.

    Attributes:
        origin: the table, for messages.
        label: the column of labels, or None.
        columns: the columns of features, in order.
        vocabularies: the texts of each column of texts, sorted; a text's number is its place.
    """

    origin: str
    label: str | None
    columns: tuple[str, ...]
    vocabularies: Mapping[str, NDArray[np.str_]]


def read_table(
    table: pa.Table,
    reading: Reading,
    *,
    origin: str,
    label: str | None,
    labels: Callable[[Sequence[Any]], RowLabels],
) -> Loaded:
    """Read a table: one column of labels, perhaps one of ids, the others features.

    A column of texts more than half of which are numbers is a column of numbers, and the others are cells that cannot
    be read. In a column of other texts, a text is its place among the column's texts in sorted order; a text that is
    not among those of ``form`` lies half way between its neighbours.

    Args:
        table: the table.
        reading: how to read it; ``form`` and ``on_bad`` matter.
        origin: the source, for messages.
        label: the column of labels, or None if there is none.
        labels: turns that column's values into labels.

    Raises:
        UsageError: the columns are not those of ``form``.
        ForetasteError: it is no such table, or a row has no value, or none that can be read, in some column, and
            ``on_bad`` is "stop".
    """
    form = reading.form
    columns = [name for name in table.column_names if name not in (label, ID_NAME)]
    if form is not None:
        columns = _matched(columns, form, origin)
    if not columns or not len(table):
        raise ForetasteError(f"{origin} holds no samples; it needs a header, and columns of features and one of labels")
    known = labels([None] * len(table) if label is None else table[label].to_pylist())
    bad = dict(known.bad)
    rows = np.empty((len(table), len(columns)), dtype=np.float32)
    vocabularies: dict[str, NDArray[np.str_]] = {}
    for place, name in enumerate(columns):
        column = _Column(table[name], name, origin, form)
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is bad
            rows[:, place] = column.values
        if column.vocabulary is not None:
            vocabularies[name] = column.vocabulary
        for row in np.flatnonzero(~np.isfinite(rows[:, place])).tolist():
            bad.setdefault(row, column.complaint(row))
        reading.on_progress(Progress(phase=f"reading {origin}", done=place + 1, total=len(columns)))

    def name_of(row: int) -> str:
        return f"{origin}: row {row}"

    if reading.on_bad == "stop":
        refuse(bad, name_of)
    good = np.ones(len(table), dtype=np.bool_)
    good[list(bad)] = False
    if not good.any():
        raise ForetasteError(f"{origin} holds no sample that can be read: {name_of(0)} {bad[0]}")
    has_ids = ID_NAME in table.column_names and label != ID_NAME
    ids = own_ids(table[ID_NAME].to_pylist(), origin) if has_ids else row_ids(len(table))
    samples = Samples(known.labels[good], known.classes, ids[good], features=rows[good])
    return Loaded(
        samples,
        tuple(Skipped(name_of(row), bad[row]) for row in sorted(bad)),
        rows=np.flatnonzero(good),
        form=TableForm(origin=origin, label=label, columns=tuple(columns), vocabularies=vocabularies),
    )


def _matched(columns: Sequence[str], form: TableForm, origin: str) -> list[str]:
    """Return the columns in the order of an earlier table.

    Raises:
        UsageError: some are missing, or there are others.
    """
    for some, others, place, other in (
        (form.columns, columns, origin, form.origin),
        (columns, form.columns, form.origin, origin),
    ):
        missing = [name for name in some if name not in others]
        if missing:
            raise UsageError(f"{place} has no column {', '.join(missing[:10])}, which {other} has")
    return list(form.columns)


class _Column:
    """One column of features as numbers.

    Attributes:
        values: ``float64 (N,)``; NaN or infinite where a cell is bad.
        vocabulary: the sorted texts of a column of texts, or None.
    """

    def __init__(self, column: pa.ChunkedArray, name: str, origin: str, form: TableForm | None) -> None:
        self._column, self._name = column, name
        self.vocabulary: NDArray[np.str_] | None = None
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if is_text(kind):
            cells = column.to_pylist()
            numbers = np.array([_number(cell) for cell in cells], dtype=np.float64)
            if form is not None:
                as_text = name in form.vocabularies
            else:
                as_text = 2 * int((~np.isnan(numbers)).sum()) <= sum(cell is not None for cell in cells)
            self.values = numbers
            if as_text:
                present = [cell for cell in cells if cell is not None]
                vocabulary = np.unique(np.array(present, dtype=np.str_)) if form is None else form.vocabularies[name]
                self.vocabulary, self.values = vocabulary, _places(cells, vocabulary)
        elif (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_decimal(kind)
        ):
            if form is not None and name in form.vocabularies:
                raise UsageError(f"{origin}: column {name} holds {kind}, and texts in {form.origin}")
            self.values = pc.cast(column, pa.float64(), safe=False).fill_null(float("nan")).to_numpy()
        elif pa.types.is_null(kind):
            self.values = np.full(len(column), np.nan)
        else:
            raise ForetasteError(f"{origin}: column {name} holds neither numbers nor texts but {kind}")

    def complaint(self, row: int) -> str:
        """Say what is wrong with a cell that is not a finite number."""
        cell = self._column[row].as_py()
        if cell is None:
            return f"has no value in column {self._name}"
        if isinstance(cell, str) and np.isnan(self.values[row]):
            return f"has {cell[:40]!r} in column {self._name}, which is no number"
        return f"has {str(cell)[:40]} in column {self._name}, which is NaN, infinite or too large"


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column type is one of Arrow's three for texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _number(cell: str | None) -> float:
    """Return the number that a cell holds, NaN for none."""
    try:
        return float(cell) if cell is not None and "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


def _places(cells: Sequence[str | None], vocabulary: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return the place of each text in a vocabulary: half way between its neighbours if it is not there."""
    present = np.array([cell is not None for cell in cells], dtype=np.bool_)
    values = np.full(len(cells), np.nan)
    texts = np.array([cell for cell in cells if cell is not None], dtype=np.str_)
    places = np.searchsorted(vocabulary, texts)
    known = np.isin(texts, vocabulary)
    values[present] = np.where(known, places, places - 0.5)
    return values
