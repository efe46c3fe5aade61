"""Turn ``--set name=value`` into the typed fields of a method's dataclass."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from foretaste.errors import UsageError


def parse_settings(method: type[Any], settings: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` settings by the types of a dataclass's fields.

    Numbers, texts, paths and true/false are written as they are, "none" is None where a field allows it, and the
    parts of a tuple are separated by commas (``ratios=0.5,0.2``).

    Args:
        method: a dataclass whose fields are hyperparameters.
        settings: one ``name=value`` each.

    Raises:
        UsageError: a setting has no "=", names no field, occurs twice, or its value does not fit the field's type.
    """
    known = {field.name for field in dataclasses.fields(method) if field.init}
    hints = get_type_hints(method)
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set takes name=value, not {setting!r}")
        if name not in known:
            raise UsageError(f"there is no setting {name!r}; known: {', '.join(sorted(known)) or 'none'}")
        if name in values:
            raise UsageError(f"--set {name} is given twice")
        try:
            values[name] = parse(text, hints[name])
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UsageError(f"--set {setting}: {reason[0].lower()}{reason[1:]}") from None
    return values


def parse(text: str, hint: Any) -> Any:
    """Read one value of the type that ``hint`` names.

    Raises:
        ValidationError: the text is no such value.
    """
    kinds = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    takes_many = any(get_origin(kind) is tuple for kind in kinds)
    value = [part.strip() for part in text.split(",")] if takes_many else text
    return TypeAdapter(hint).validate_python(value)
