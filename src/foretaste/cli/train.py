"""``foretaste train``: the reference trainer."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated

import typer

from foretaste.cli.options import ImageColumn, Json, LabelColumn, OnBad, Out, Resize, Seed, Source, Split
from foretaste.cli.output import reader, say

FILES = ("model.safetensors", "model.onnx", "metrics.json")
"""What the command writes."""
SCHEMA = "urn:foretaste:train-metrics:1"
"""The schema of ``metrics.json``, in ``docs/schemas``."""


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
    split: Split = None,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
) -> int:
    """Train a classifier with the reference trainer."""
    from foretaste import training
    from foretaste.cli.output import whole
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder, leads
    from foretaste.io.atomic import atomic_json
    from foretaste.nets import outline
    from foretaste.nets.export import export_onnx, save
    from foretaste.samples import alike, renumbered

    plan = training.TrainingPlan() if epochs is None else training.TrainingPlan(epochs=epochs)
    with ExitStack() as stack:
        folder = stack.enter_context(ResultsFolder(out, FILES, (source, test), schema=SCHEMA)) if leads() else None
        show = stack.enter_context(bars(quiet=as_json))
        read = reader(resize, image_column, label_column, on_bad, show)
        loaded = read(source, split=split)
        samples, held_out = whole(loaded, source), None
        if test is not None:
            held_out = whole(read(test, default_split="test", use="compare", like=loaded), test)
            held_out = renumbered(held_out, samples.classes, test, source)
            samples, held_out = alike(samples, held_out)
        outline(net, samples.sample_shape, samples.classes)  # refuses a net that is unknown or does not fit
        if folder is not None:
            folder.start()
        trained = training.train(samples, test=held_out, net=net, plan=plan, seed=seed, on_progress=show)
        if not trained.leads:
            return 0
        save(trained.net, out / "model.safetensors")
        export_onnx(trained.net, out / "model.onnx")
        record = {"schema": SCHEMA} | trained.metrics
        atomic_json(out / "metrics.json", record)
        if folder is not None:
            folder.finish()
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        for name, value in trained.metrics.items():
            say(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
        say(f"model: {out / 'model.onnx'}")
    return 0
