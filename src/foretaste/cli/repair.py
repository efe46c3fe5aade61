"""``foretaste repair``: take the backdoor out of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.cli.figures import share
from foretaste.cli.options import ImageColumn, Json, LabelColumn, OnBad, Out, Resize, Seed, Settings, lister
from foretaste.cli.output import reader, say
from foretaste.errors import UsageError

if TYPE_CHECKING:
    from foretaste.classifiers.onnx_module import OnnxModule
    from foretaste.nets import Net


def repair(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="The model: a .safetensors file of foretaste train, or an .onnx file.",
        ),
    ],
    out: Out,
    method: Annotated[str, typer.Option("--method", metavar="NAME", show_default=False, help="How; see --list.")],
    train: Annotated[
        str | None,
        typer.Option(
            "--train", metavar="SRC", show_default=False, help="The set that it was trained on, poison included."
        ),
    ] = None,
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="C", show_default=False, help="Trusted samples; a few hundred are enough."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="T",
            show_default=False,
            help="Samples to compare on (default: the clean set, else the training set).",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", metavar="FILE", show_default=False, help="truth.json of the test inputs: which are trojaned."
        ),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option("--registry", metavar="DIR", show_default=False, help="Known triggers to try the model with."),
    ] = None,
    seed: Seed = 0,
    settings: Settings = None,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the methods.", callback=lister("foretaste.repairs"), is_eager=True)
    ] = False,
) -> int:
    """Take the backdoor out of a model.

    The exit code is 0 when the repaired model was written, whatever it is worth: the report says that.
    """
    from foretaste import io, repairs
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder
    from foretaste.guards.neo import Registry
    from foretaste.io.truth import read_truth
    from foretaste.report.repair_results import FILES, SCHEMA, Trial, save_repair
    from foretaste.samples import Samples, coloured, renumbered

    hyperparameters = parse_settings(repairs.find(method), settings or ())
    known = None if truth is None else read_truth(truth)
    if known is not None and (test is None or known.trojaned is None):
        raise UsageError("--truth says which inputs of --test are trojaned; give those of foretaste poison --at test")
    triggers = None if registry is None else Registry.load(registry)
    if train is None and clean is None:
        raise UsageError("a repair needs samples: --clean, or --train for a method that starts from the training set")
    skipped: list[io.Skipped] = []
    inputs = model, train, clean, test, truth, registry
    with ResultsFolder(out, FILES, inputs, schema=SCHEMA) as folder, bars(quiet=as_json) as show:
        net, load = open_model(model), reader(resize, image_column, label_column, on_bad, show)

        def read(source: str | None, split: str = "train") -> Samples | None:
            if source is None:
                return None
            loaded = load(source, default_split=split)
            skipped.extend(loaded.skipped)
            samples = coloured(loaded.samples, net.sample_shape)
            return renumbered(samples, net.classes or samples.classes, source)

        training, trusted, held_out = read(train), read(clean), read(test, "test")
        what = "test set" if held_out is not None else "clean set" if trusted is not None else "training set"
        compared = next(samples for samples in (held_out, trusted, training) if samples is not None)
        trial = Trial(
            test=compared,
            what=what,
            trojaned=None if known is None else known.mark(compared).trojaned,
            registry=triggers,
        )
        trial.check(net.sample_shape)
        repaired = repairs.repair(
            net,
            method=method,
            train=training,
            clean=trusted,
            seed=seed,
            on_progress=folder.starting(show),
            **hyperparameters,
        )
        folder.start()
        notes = () if held_out is not None else (f"without --test, accuracy is that on the {what} that the method saw",)
        summary = save_repair(
            out,
            net,
            repaired,
            trial,
            model=model,
            source=" and ".join(source for source in (train, clean) if source is not None),
            settings=hyperparameters,
            skipped=skipped,
            notes=notes,
        )
        folder.finish()
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        tell(summary, out)
    return 0


def open_model(model: str) -> Net | OnnxModule:
    """Return a model with its weights.

    Raises:
        UsageError: it is a black box, or an ONNX file that cannot be read into torch.
        ForetasteError: it cannot be read.
    """
    from foretaste.classifiers import open_weights
    from foretaste.classifiers.onnx_module import OnnxModule
    from foretaste.nets import Net

    net = open_weights(model)
    if not isinstance(net, Net | OnnxModule):
        raise UsageError(f"{model} has no weights to repair; give a .safetensors or an .onnx file")
    return net


def tell(summary: dict[str, Any], out: Path) -> None:
    """Print what became of the model for people."""
    say(
        f"accuracy on the {summary['tested_on']}: {share(summary['accuracy_before'])} before, "
        f"{share(summary['accuracy_after'])} after"
    )
    if "asr_after" in summary:
        say(f"attack success: {share(summary['asr_before'])} before, {share(summary['asr_after'])} after")
    for note in summary["notes"]:
        say(f"note: {note}")
    say(f"model: {out / 'model.onnx'}")
    say(f"report: {out / 'report.html'}")
