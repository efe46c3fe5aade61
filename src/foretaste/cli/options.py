"""The arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from foretaste.errors import UsageError

SOURCES = (
    "a .parquet, .npz or .csv file, a pattern of .parquet files in quotes, a folder with a subfolder per class, a "
    "saved datasets folder, cifar10, gtsrb, signs, or, with foretaste[remote], an address such as hf://datasets/NAME"
)
IMAGES = (
    "a .parquet or .npz file, a folder of images (with --truth, a subfolder per class), a saved datasets folder, "
    "cifar10, gtsrb, signs, or, with foretaste[remote], an address such as hf://datasets/NAME"
)


Source = Annotated[str, typer.Argument(metavar="SRC", show_default=False, help=f"Samples: {SOURCES}.")]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", show_default=False, help="Where to write; made if it is missing.")
]
MODELS = (
    "an .onnx file, a .safetensors file of foretaste train, module:attribute of a Python function, or an http(s):// "
    "endpoint that speaks the Open Inference Protocol v2"
)
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Where all random numbers come from.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", show_default=False, help="Set a hyperparameter; may be repeated."),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize", metavar="N|WxH", help="Scale images to N x N pixels, or to W x H of them.", show_default=False
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="Split of the main source to read, such as train; not of the clean or test set.",
        show_default=False,
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option("--image-column", metavar="NAME", help="The column of images in parquet.", show_default=False),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", metavar="NAME", help="The column of labels in a table.", show_default=False),
]
OnBad = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-bad", help="Stop at a sample that cannot be read, or skip and count it."),
]
Sarif = Annotated[
    Path | None,
    typer.Option(
        "--sarif", metavar="FILE", show_default=False, help="Also write what was found as SARIF 2.1.0, to this file."
    ),
]
FailOn = Annotated[
    str,
    typer.Option(
        "--fail-on",
        metavar="never|found|SHARE",
        help="When the exit code is 1: never; if anything is found; or if this share of the samples is flagged (1%).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")]


def size(resize: str | None) -> tuple[int, int] | None:
    """Return the (height, width) in pixels that ``--resize`` asks for.

    Raises:
        UsageError: it is neither N nor WxH.
    """
    if resize is None:
        return None
    width, by, height = resize.lower().partition("x")
    height = height if by else width
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--resize takes N or WxH, in pixels, not {resize!r}")
    return int(height), int(width)


def lister(package: str) -> Callable[[bool], None]:
    """Return what ``--list`` does: print the methods of a package, each with its line, and end."""

    def show(wanted: bool) -> None:
        if wanted:
            methods = import_module(package)  # only now, because it is slow
            names = methods.names()
            width = max(map(len, names)) + 2
            for name in names:
                typer.echo(f"{name:{width}}{methods.find(name).summary}")
            raise typer.Exit

    return show
