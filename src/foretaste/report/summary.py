"""What the result files of every run have in common."""

from __future__ import annotations

import datetime
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from foretaste import __version__
from foretaste.guards.neo.registry import INDEX, Registry
from foretaste.guards.trigger import Trigger
from foretaste.io import Skipped
from foretaste.sanitising import public_address


def about(
    *,
    schema: str,
    method: str,
    seed: int,
    seconds: float,
    source: str,
    settings: Mapping[str, object],
    skipped: Sequence[Skipped],
    packages: Sequence[str],
) -> dict[str, Any]:
    """Say how a run was made, with which versions of ``packages``, and by which schema the file is to be read."""
    return {
        "schema": schema,
        "version": __version__,
        "method": method,
        "seed": seed,
        "seconds": round(seconds, 3),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": public_address(source),
        "settings": {name: plain(value) for name, value in settings.items()},
        "n_skipped": len(skipped),
        "skipped": [{"name": one.name, "reason": one.reason} for one in skipped],
        "versions": {"python": platform.python_version()} | dict(versions(packages)),
    }


def versions(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the packages that are installed, each with its version: some go by another name on some machines."""
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def describe(trigger: Trigger, n_found: int, classes: Sequence[str]) -> dict[str, Any]:
    """Say what a trigger is, and how many of the run's images carry it."""
    target = trigger.target
    return {
        "id": trigger.id,
        "target": None if target is None else {"label": target, "name": name_of(target, classes)},
        "box": list(trigger.box),
        "anywhere": trigger.anywhere,
        "flip_rate": trigger.flip_rate,
        "n_confirmed": trigger.n_confirmed,
        "n_found": n_found,
    }


def name_of(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or its number where the classifier gives labels that nobody named."""
    return classes[label] if label < len(classes) else str(label)


def save_triggers(registry: Registry, folder: Path) -> None:
    """Write the triggers in place of those that an earlier run left in the folder; other files stay."""
    remove_triggers(folder)
    registry.save(folder)


def remove_triggers(folder: Path) -> None:
    """Remove the triggers that an earlier run left in a folder: the pictures that its index names, and the index."""
    try:
        names = [trigger["id"] for trigger in json.loads((folder / INDEX).read_bytes())["triggers"]]
    except (OSError, ValueError, LookupError, TypeError):
        return
    for name in names:
        if isinstance(name, str) and Path(name).name == name:
            (folder / f"{name}.png").unlink(missing_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    with suppress(OSError):  # other files are in it
        folder.rmdir()


def plain(value: object) -> object:
    """Turn a value into what strict JSON can hold: NaN and infinities become null, unknown types their text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, str | int) else str(value)
