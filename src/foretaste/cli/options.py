"""The arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

SOURCES = (
    "a .parquet, .npz or .csv file, a folder with a subfolder per class, a saved datasets folder, cifar10, gtsrb, signs"
)


Source = Annotated[str, typer.Argument(metavar="SRC", show_default=False, help=f"Samples: {SOURCES}.")]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", show_default=False, help="Where to write; made if it is missing.")
]
MODELS = (
    "an .onnx file, a .safetensors file of foretaste train, module:attribute of a Python function, or an http(s):// "
    "endpoint that speaks the Open Inference Protocol v2"
)
Seed = Annotated[int, typer.Option("--seed", min=0, help="Where all random numbers come from.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", show_default=False, help="Set a hyperparameter; may be repeated."),
]
Resize = Annotated[
    int | None, typer.Option("--resize", metavar="N", min=1, help="Scale images to N x N pixels.", show_default=False)
]
OnBad = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-bad", help="Stop at a sample that cannot be read, or skip and count it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")]


def lister(package: str) -> Callable[[bool], None]:
    """Return what ``--list`` does: print the methods of a package, each with its line, and end."""

    def show(wanted: bool) -> None:
        if wanted:
            methods = import_module(package)  # only now, because it is slow
            for name in methods.names():
                typer.echo(f"{name:24}{methods.find(name).summary}")
            raise typer.Exit

    return show
