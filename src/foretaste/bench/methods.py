"""Methods out of plain values, and back: what a specification sets of an attack, a defence or a training plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from foretaste.errors import UsageError


def hyperparameters(kind: type[Any]) -> list[str]:
    """Return the names of a method's hyperparameters."""
    return [field.name for field in fields(kind) if field.init] if is_dataclass(kind) else []


def parsed(kind: type[Any], name: str, value: Any) -> Any:
    """Return the value of a hyperparameter from what TOML or JSON hold; a list becomes a tuple, a text a path.

    Raises:
        UsageError: the value is of another type.
    """
    try:
        return TypeAdapter(get_type_hints(kind)[name]).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"{name}: {reason[0].lower()}{reason[1:]}, not {value!r}") from None
    except TypeError:  # a date, which JSON has not
        raise UsageError(f"{name} cannot be {value!r}") from None


def built(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    """Return the method with these hyperparameters.

    Raises:
        UsageError: a value is of a wrong type or out of range.
    """
    return kind(**{name: parsed(kind, name, value) for name, value in settings.items()})


def plain_settings(method: Any) -> dict[str, Any]:
    """Return all hyperparameters of a method as JSON can hold them; paths absolute, so that every machine knows them.

    Raises:
        UsageError: a default is of a kind that JSON cannot hold.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value.resolve())
        if isinstance(value, tuple):
            return [plain(part) for part in value]
        return value

    values = {name: plain(getattr(method, name)) for name in hyperparameters(type(method))}
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{type(method).__name__} has hyperparameters that cannot be written down: {error}") from None
    return values
