"""``foretaste train``: the reference trainer."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foretaste.cli.options import Json, OnBad, Out, Resize, Seed, Source


def train(
    source: Source,
    out: Out,
    test: Annotated[
        str | None, typer.Option("--test", metavar="T", help="Samples to measure accuracy on.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training set.", show_default=False)
    ] = None,
    net: Annotated[
        str | None,
        typer.Option(
            "--net", metavar="NAME", help="The network; chosen by the samples if left out.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    resize: Resize = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
) -> int:
    """Train a classifier with the reference trainer."""
    from foretaste import io, training
    from foretaste.cli.output import check_writable, whole
    from foretaste.cli.progress import bars
    from foretaste.io.atomic import atomic_json
    from foretaste.nets.export import export_onnx, save

    check_writable(out)
    plan = training.TrainingPlan() if epochs is None else training.TrainingPlan(epochs=epochs)
    with bars(quiet=as_json) as show:
        samples = whole(io.read(source, resize=resize, on_bad=on_bad, on_progress=show), source)
        held_out = None
        if test is not None:
            held_out = whole(io.read(test, split="test", resize=resize, on_bad=on_bad, on_progress=show), test)
        trained = training.train(samples, test=held_out, net=net, plan=plan, seed=seed, on_progress=show)
    if not trained.leads:
        return 0
    save(trained.net, out / "model.safetensors")
    export_onnx(trained.net, out / "model.onnx")
    atomic_json(out / "metrics.json", trained.metrics)
    if as_json:
        typer.echo(json.dumps(trained.metrics, indent=2))
    else:
        for name, value in trained.metrics.items():
            typer.echo(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
        typer.echo(f"model: {out / 'model.onnx'}")
    return 0
