"""What the ``summary.json`` of every run has in common."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from foretaste import __version__
from foretaste.io import Skipped


def about(
    *,
    method: str,
    seed: int,
    seconds: float,
    source: str,
    settings: Mapping[str, object],
    skipped: Sequence[Skipped],
    packages: Sequence[str],
) -> dict[str, Any]:
    """Say how a run was made, and with which versions of ``packages``."""
    return {
        "version": __version__,
        "method": method,
        "seed": seed,
        "seconds": round(seconds, 3),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": source,
        "settings": {name: plain(value) for name, value in settings.items()},
        "n_skipped": len(skipped),
        "skipped": [{"name": one.name, "reason": one.reason} for one in skipped],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
    }


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
