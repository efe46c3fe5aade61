"""What a source says of each sample beside the sample itself: its label and its id."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import LARGEST_LABEL, Labels, classes_of

LabelUse = Literal["learn", "compare", "ignore"]
"""What labels are read for: to learn from, which takes two classes, none of them an id; to compare with; or for
nothing, and then there need not be any."""

LABEL_NAMES = ("label", "labels", "class", "classes", "cls", "target", "fine_label")
"""What a column of labels may be called, in any case."""
ID_NAME = "id"
"""What a column of ids is called."""
MAX_ID = 1024
"""Characters in an id; NumPy gives every id the room of the longest."""
FEW_ROWS = 100
"""With fewer samples, labels that are nearly all different are not taken for ids."""
UNLABELLED = ("unlabelled",)
"""The one class of samples whose labels are not looked at."""

WHOLE_FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.0*)?")


@dataclass(frozen=True, eq=False)
class RowLabels:
    """Labels of the rows of a source.

    Attributes:
        labels: ``int64 (N,)``; 0 where there is none that can be used.
        classes: the K class names.
        bad: why a row's label cannot be used, by row: the end of a sentence that starts with the row.
    """

    labels: Labels
    classes: tuple[str, ...]
    bad: Mapping[int, str]


def read_labels(values: Sequence[Any], names: Sequence[str] | None, *, origin: str, use: LabelUse) -> RowLabels:
    """Turn labels as a source holds them into classes.

    Where the source names its classes, numbers are places among the names. Without names, texts are the classes' names;
    whole numbers, also as floats or truth values, are labels as ``classes_of`` has it.

    Args:
        values: the label of each row: a number, a text, or None for no label.
        names: the class names that the source declares, or None.
        origin: the source, for messages.
        use: what the labels are for.

    Raises:
        UsageError: labels to learn from are nearly all different, as ids are.
        ForetasteError: labels are no whole numbers or texts, or too large for classes.
    """
    if use == "ignore":
        return RowLabels(np.zeros(len(values), dtype=np.int64), UNLABELLED, {})
    labels = [_plain(value) for value in values]
    bad = {row: "has no label" for row, label in enumerate(labels) if label is None}
    kinds = {type(label) for label in labels if label is not None}
    if not kinds <= {int, str} or len(kinds) > 1:
        row = next(row for row, label in enumerate(labels) if not isinstance(label, int | str | None) or len(kinds) > 1)
        raise ForetasteError(
            f"{origin}: row {row} has label {labels[row]!r:.60}; labels are either all whole numbers or all texts"
        )
    if names is not None:
        return _among(labels, names, bad)
    if str in kinds:
        classes = in_order({label for label in labels if isinstance(label, str)})
        numbers = {name: number for number, name in enumerate(classes)}
        found = RowLabels(np.array([numbers.get(label, 0) for label in labels], dtype=np.int64), classes, bad)
    else:
        found = _numbers(labels, bad, origin)
    if use == "learn" and len(labels) >= FEW_ROWS and 2 * len(found.classes) > len(labels):
        raise UsageError(
            f"{origin} has {len(found.classes)} different labels in {len(labels)} rows, as many as ids would be; "
            "name the column of labels with --label-column"
        )
    return found


def _among(labels: Sequence[int | str | None], names: Sequence[str], bad: dict[int, str]) -> RowLabels:
    """Number labels by their place among declared names."""
    places: dict[int | str | None, int] = {name: place for place, name in enumerate(names)}
    places |= {place: place for place in range(len(names))}
    for row, label in enumerate(labels):
        if label is not None and label not in places:
            bad[row] = "has no label (-1)" if label == -1 else f"has label {label}, outside the {len(names)} classes"
    return RowLabels(np.array([places.get(label, 0) for label in labels], dtype=np.int64), tuple(names), bad)


def _numbers(labels: Sequence[Any], bad: dict[int, str], origin: str) -> RowLabels:
    for row, label in enumerate(labels):
        if label is None:
            continue
        if label < 0:
            bad[row] = "has no label (-1)" if label == -1 else f"has label {label}, which cannot be a class"
        elif label >= LARGEST_LABEL:
            raise ForetasteError(
                f"{origin}: row {row} has label {label}, which cannot be a class; "
                "name the column of labels with --label-column"
            )
    good = np.array([row not in bad for row in range(len(labels))], dtype=np.bool_)
    numbers = np.array([label if good[row] else 0 for row, label in enumerate(labels)], dtype=np.int64)
    classes = classes_of(numbers[good])
    places = {int(name): place for place, name in enumerate(classes)}
    return RowLabels(np.array([places.get(number, 0) for number in numbers.tolist()], dtype=np.int64), classes, bad)


def _plain(value: Any) -> Any:
    """Return a label as an int, a text, or None if there is none; anything else as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and (math.isnan(value) or value.is_integer()):
        return None if math.isnan(value) else int(value)
    return None if value == "" else value


def in_order(names: set[str]) -> tuple[str, ...]:
    """Return class names in order: names that are all whole numbers by number, others as texts."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def as_numbers(texts: Sequence[str | None]) -> Sequence[Any]:
    """Return label texts of a format without types: as numbers if they all are plain ones ("7", "7.0", not "007")."""
    present = [text for text in texts if text]
    if all(WHOLE_FLOAT.fullmatch(text) for text in present):
        return [float(text) if text else None for text in texts]
    return texts


def own_ids(values: Sequence[Any], origin: str) -> NDArray[np.str_]:
    """Return the ids that a source gives its rows, as it writes them.

    Raises:
        ForetasteError: an id is missing, too long, or given twice.
    """
    seen: dict[str, int] = {}
    for row, value in enumerate(values):
        if value is None or len(str(value)) > MAX_ID:
            raise ForetasteError(f"{origin}, row {row} has no id of at most {MAX_ID} characters")
        if seen.setdefault(str(value), row) != row:
            raise ForetasteError(f"{origin}: rows {seen[str(value)]} and {row} have the same id, {value}")
    return np.array(list(seen), dtype=np.str_)


def find_column(
    columns: Sequence[str], chosen: str | None, known: Sequence[str], *, what: str, origin: str
) -> str | None:
    """Return the column that the user chose, or else the one that has a known name, in any case; None if none has.

    Raises:
        UsageError: there is no column of the chosen name, or several could be meant.
    """
    option = f"--{what}-column"
    if chosen is not None:
        if chosen not in columns:
            raise UsageError(f"{origin} has no column {chosen}; it has {', '.join(columns[:20]) or 'none'}")
        return chosen
    found = [column for column in columns if column.lower() in known]
    if len(found) > 1:
        raise UsageError(f"{origin} has several columns that may hold the {what}s, {', '.join(found)}; give {option}")
    return found[0] if found else None


def refuse(bad: Mapping[int, str], name: Callable[[int], str]) -> None:
    """Stop at the first row that cannot be used.

    Raises:
        ForetasteError: there is one.
    """
    if bad:
        row = min(bad)
        raise ForetasteError(f"{name(row)} {bad[row]}; --on-bad skip leaves such samples out")
