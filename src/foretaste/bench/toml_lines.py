"""Which line of a TOML file holds what, so that complaints can name it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
"""Keys and list positions that lead to a value."""


def lines_of(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, at which each value of a valid TOML text begins.

    Ever longer beginnings of the text are parsed: what one line more brings, is on it. So whatever TOML allows is
    understood, and nothing of its grammar is written a second time here.
    """
    lines, found, start = text.splitlines(keepends=True), dict[Path, int](), 1
    for end in range(1, len(lines) + 1):
        try:
            value = tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:  # in the midst of a value of several lines
            continue
        for path in paths(value):
            found.setdefault(path, start)
        start = end + 1
    return found


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Yield the path of every value inside tables and lists."""
    yield here
    if isinstance(value, dict):
        for name, part in value.items():
            yield from paths(part, (*here, name))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from paths(part, (*here, place))


def line_at(lines: dict[Path, int], path: Path) -> int:
    """Return the line of a path or, if it is not there, of the innermost part of it that is."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
