"""How the report writes numbers, shares, times and names."""

from __future__ import annotations

import math
from collections.abc import Sequence

_NBSP = "\u00a0"


def count(number: int) -> str:
    """Write 25087 as "25,087"."""
    return f"{number:,}"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Write "1 sample", "250 samples", "7 classes"."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"


def share(part: float | None) -> str:
    """Write a share in [0, 1] as a percentage that never rounds to a false "0 %" or "100 %"; None and NaN as "–"."""
    if part is None or math.isnan(part):
        return "–"
    if 0 < part < 0.0001:
        return f"<{_NBSP}0.01{_NBSP}%"
    if 0.9999 < part < 1:
        return f">{_NBSP}99.99{_NBSP}%"
    return f"{100 * part:.2f}".rstrip("0").rstrip(".") + f"{_NBSP}%"


def figure(value: float | None) -> str:
    """Write a score or a statistic to three significant digits; None and NaN as "–"."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.2e}" if 0 < abs(value) < 0.001 else f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace("-", "−")


def duration(seconds: float) -> str:
    """Write 12.3 s, 9 min 37 s, 2 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.3g}{_NBSP}s" if seconds < 10 else f"{seconds:.0f}{_NBSP}s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes}{_NBSP}min {round(seconds) % 60}{_NBSP}s"
    return f"{minutes // 60}{_NBSP}h {minutes % 60}{_NBSP}min"


def short(name: str, longest: int = 60) -> str:
    """Cut a long name in its middle: the ends of paths and ids say most."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def class_name(label: int, classes: Sequence[str]) -> str:
    """Name a class for people: its name, or "class 7" where it has none or the name is only the number."""
    name = short(classes[label]) if label < len(classes) else ""
    return f"class {label}" if name in (str(label), "") else name
