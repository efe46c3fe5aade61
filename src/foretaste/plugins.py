"""Methods by name: the built-in ones, and those that other packages add through an entry-point group."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from foretaste.errors import ForetasteError, UsageError

Method = TypeVar("Method")

PLACE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
"""``package.module:Class``."""


def names(built_in: Mapping[str, type[Method]], group: str) -> list[str]:
    """Return the names of all methods, built-in and of the entry-point group, sorted."""
    return sorted({*built_in, *(plugin.name for plugin in entry_points(group=group))})


def find(name: str, built_in: Mapping[str, type[Method]], group: str, kind: str) -> type[Method]:
    """Return the method of this name; a built-in one goes before another package's.

    Args:
        name: what to look for; ``package.module:Class`` is a class that nobody registered, of a module that is
            installed or in the current folder.
        built_in: the built-in methods by name.
        group: the entry-point group of the others.
        kind: what such a method is called in messages ("attack").

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's method cannot be loaded.
    """
    if name in built_in:
        return built_in[name]
    if PLACE.fullmatch(name):
        return unregistered(name, kind)
    for plugin in entry_points(group=group, name=name):
        try:
            method: type[Method] = plugin.load()
        except Exception as error:
            raise ForetasteError(f"the {kind} {name} from {plugin.value} cannot be loaded: {error}") from error
        return method
    raise UsageError(f"there is no {kind} {name!r}; known: {', '.join(names(built_in, group))}")


def unregistered(place: str, kind: str) -> type[Any]:
    """Return the class at ``package.module:Class``.

    Raises:
        UsageError: there is none, or it is no dataclass.
        ForetasteError: its module cannot be loaded.
    """
    module, _, attribute = place.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # behind what is installed, which a file lying about must not replace
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"the {kind} {place} cannot be found: {error}") from None
    except Exception as error:
        raise ForetasteError(f"the {kind} {place} cannot be loaded: {error}") from error
    found = getattr(found, attribute, None)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise UsageError(f"{place} is no {kind}: a method is a frozen dataclass")
    return found


def build(name: str, method: type[Method], hyperparameters: Mapping[str, Any]) -> Method:
    """Return a method, a dataclass, with these hyperparameters and its defaults for the rest.

    Raises:
        UsageError: it has no such hyperparameter, or a value is out of range.
    """
    known: list[str] = [field.name for field in fields(method) if field.init] if is_dataclass(method) else []
    for given in hyperparameters:
        if given not in known:
            raise UsageError(f"{name} has no hyperparameter {given!r}; it has: {', '.join(known) or 'none'}")
    return method(**hyperparameters)
