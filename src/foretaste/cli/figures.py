"""How results read on the terminal."""

from __future__ import annotations

from typing import Any


def line(trigger: dict[str, Any]) -> str:
    """Describe a trigger, as ``summary.json`` has it, in a line; its size is width x height."""
    top, left, bottom, right = trigger["box"]
    where = "at any place" if trigger["anywhere"] else f"at row {top}, column {left}"
    target = "moves every label to another" if trigger["target"] is None else f"forces {trigger['target']['name']}"
    return (
        f"trigger {trigger['id']}: {right - left} x {bottom - top} pixels {where}, {target} "
        f"({share(trigger['flip_rate'])} of {trigger['n_confirmed']} clean images)"
    )


def share(value: float | None) -> str:
    """Write a share in percent; None is a share of nothing."""
    return "none" if value is None else f"{value:.2%}"
