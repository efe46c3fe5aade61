"""Options that say how a model takes its pixels and numbers its classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.errors import UsageError

if TYPE_CHECKING:
    from foretaste.classifiers import Preprocessing

Scale = Annotated[
    float | None,
    typer.Option(
        "--scale", metavar="S", show_default=False, help="What the pixel value 255 becomes: 1 (as without it) or 255."
    ),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="M[,M,M]", show_default=False, help="Taken off the scaled pixels, per channel."),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="D[,D,D]", show_default=False, help="What the rest is divided by, per channel."),
]
Channels = Annotated[
    str | None,
    typer.Option("--channels", metavar="rgb|bgr", show_default=False, help="The order of colours the model takes."),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        show_default=False,
        help="The model's class names in its order: one a line, or a JSON list.",
    ),
]


def preprocessing(scale: float | None, mean: str | None, std: str | None, channels: str | None) -> Preprocessing | None:
    """Return what the options ask to be done to the pixels; None if none is given, which leaves it to the model.

    Raises:
        UsageError: a value is out of range.
    """
    from foretaste.classifiers import Preprocessing

    given: dict[str, Any] = {"scale": scale, "mean": per_channel(mean, "--mean"), "std": per_channel(std, "--std")}
    fields = {name: value for name, value in (given | {"channels": channels}).items() if value is not None}
    return Preprocessing(**fields) if fields else None


def per_channel(text: str | None, option: str) -> tuple[float, ...] | None:
    """Read numbers that are separated by commas.

    Raises:
        UsageError: they are no numbers.
    """
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} takes one number or three, separated by commas, not {text}") from None
