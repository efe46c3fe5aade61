"""Methods by name: the built-in ones, and those that other packages add through an entry-point group."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
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


def find(name: str, built_in: Mapping[str, type[Method]], group: str, kind: str, does: str) -> type[Method]:
    """Return the method of this name; a built-in one goes before another package's.

    Args:
        name: what to look for; ``package.module:Class`` is a class that nobody registered, of a module that is
            installed or in the current folder.
        built_in: the built-in methods by name.
        group: the entry-point group of the others.
        kind: what such a method is called in messages ("attack").
        does: what such a class defines ("stamp").

    Raises:
        UsageError: there is none, and the message lists those there are; or it is a class of another kind.
        ForetasteError: another package's method cannot be loaded.
    """
    if name in built_in:
        return built_in[name]
    if PLACE.fullmatch(name):
        return checked(unregistered(name, kind), name, kind, does)
    for plugin in entry_points(group=group, name=name):
        try:
            method: type[Method] = plugin.load()
        except Exception as error:
            raise ForetasteError(f"the {kind} {name} from {plugin.value} cannot be loaded: {error}") from error
        return checked(method, plugin.value, kind, does)
    raise UsageError(f"there is no {kind} {name!r}; known: {', '.join(names(built_in, group))}")


def unregistered(place: str, kind: str) -> Any:
    """Return what stands at ``package.module:Class``, None if nothing does.

    Raises:
        UsageError: there is no such module.
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
    return getattr(found, attribute, None)


def checked(found: Any, place: str, kind: str, does: str) -> type[Any]:
    """Return a class after checking that it is a method of the kind.

    Raises:
        UsageError: it is none.
    """
    if not (isinstance(found, type) and is_dataclass(found) and callable(getattr(found, does, None))):
        raise UsageError(f"{place} is no {kind}: a method is a frozen dataclass that defines {does}")
    return found


def build(name: str, method: type[Method], hyperparameters: Mapping[str, Any]) -> Method:
    """Return a method, a dataclass, with these hyperparameters and its defaults for the rest.

    Raises:
        UsageError: it has no such hyperparameter, one that has no default is not given, or a value is out of range.
    """
    known = {field.name: field for field in fields(method) if field.init} if is_dataclass(method) else {}
    for given in hyperparameters:
        if given not in known:
            raise UsageError(f"{name} has no hyperparameter {given!r}; it has: {', '.join(known) or 'none'}")
    for needed, field in known.items():
        if needed not in hyperparameters and field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"{name} has no default for its hyperparameter {needed!r}; set it")
    return method(**hyperparameters)
