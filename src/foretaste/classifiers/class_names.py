"""A model's class names, in the order of its outputs, in a file of their own."""

from __future__ import annotations

import json
from pathlib import Path

from foretaste.classifiers.answers import MOST_CLASSES
from foretaste.errors import UsageError

LARGEST_FILE = 2**26
"""Bytes; no file of class names is larger."""


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names from a file: a JSON list of texts, or one name a line.

    Raises:
        UsageError: the file cannot be read, or holds fewer than two names, an empty one, or one twice.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{path} is too large for a list of class names")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read class names from {path}: {error}") from None
    try:
        names = json.loads(text)
    except ValueError:
        names = [line.strip() for line in text.rstrip().splitlines()]
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f"{path} must hold one class name a line, or a JSON list of names, and none may be empty")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UsageError(f"{path} holds {len(names)} class names; a model has 2 or more")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{path} names the class {twice} twice")
    return tuple(names)
