"""``foretaste inspect``: judge whether a model has a backdoor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.cli.figures import line, share
from foretaste.cli.gate import Gate
from foretaste.cli.options import (
    MODELS,
    ImageColumn,
    Json,
    LabelColumn,
    OnBad,
    Out,
    Resize,
    Sarif,
    Seed,
    Settings,
    lister,
)
from foretaste.cli.output import reader, say
from foretaste.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from foretaste.classifiers import Endpoint
    from foretaste.inspectors import Diagnosis, Inspector, Subject
    from foretaste.samples import Samples

Inspected = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help=f"The model: {MODELS}.")]


def inspect(
    model: Inspected,
    out: Out,
    clean: Annotated[
        str | None,
        typer.Option(
            "--clean", metavar="C", show_default=False, help="Trusted images with labels; a few hundred are enough."
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="The method; see --list.")] = "all",
    null: Annotated[
        Path | None,
        typer.Option(
            "--null",
            metavar="DIR",
            show_default=False,
            help="Clean models of the same kind, to measure p-values on: a folder of .onnx or .safetensors files.",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float,
        typer.Option("--false-alarm-rate", metavar="R", help="Share of clean models that may be called backdoored."),
    ] = 0.05,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="S", show_default=False, help="Seconds to wait for one answer of an endpoint."
        ),
    ] = None,
    pace: Annotated[
        float | None,
        typer.Option(
            "--queries-per-second", metavar="N", show_default=False, help="Most queries a second to an endpoint."
        ),
    ] = None,
    seed: Seed = 0,
    settings: Settings = None,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    on_bad: OnBad = "stop",
    sarif: Sarif = None,
    fail_on: Annotated[
        str,
        typer.Option(
            "--fail-on",
            metavar="never|found",
            help="Whether a backdoor makes the exit code 1: never, or if one is found; a share counts as found.",
        ),
    ] = "found",
    as_json: Json = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the methods.", callback=lister("foretaste.inspectors"), is_eager=True)
    ] = False,
) -> int:
    """Judge whether a model has a backdoor.

    The exit code is 1 if it has one and 0 if none was found; with --fail-on never it is 0 either way.
    """
    from foretaste import inspectors, io
    from foretaste.classifiers import open_classifier
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder
    from foretaste.report.inspect_results import FILES, SCHEMA, save_inspect
    from foretaste.report.sarif import inspect_log
    from foretaste.samples import coloured, renumbered

    kind = inspectors.find(method)
    hyperparameters = parse_settings(kind, settings or ())
    endpoint: Endpoint = {}
    if timeout is not None:
        endpoint["timeout"] = timeout
    if pace is not None:
        endpoint["queries_per_second"] = pace
    gate = Gate.parse(fail_on)
    with ResultsFolder(out, FILES, (model, clean, null), sarif, SCHEMA) as folder, bars(quiet=as_json) as show:
        classifier = open_classifier(model, **endpoint)
        weights, notes = weights_of(model, kind)
        trusted = read = None
        if clean is not None:
            read = reader(resize, image_column, label_column, on_bad, show)(clean)
            samples = coloured(read.samples, classifier.sample_shape)
            trusted = renumbered(samples, classifier.classes or samples.classes, clean)
        subject = inspectors.subject_of(classifier, trusted, weights)
        known = [] if null is None else null_models(null, kind, trusted)
        diagnosis = inspectors.inspect(
            classifier,
            trusted,
            method=method,
            weights=weights,
            null=known,
            false_alarm_rate=false_alarm_rate,
            seed=seed,
            on_progress=folder.starting(show),
            **hyperparameters,
        )
        folder.start()
        skipped = () if read is None else read.skipped
        summary = save_inspect(
            out,
            diagnosis,
            model=model,
            classes=subject.classes,
            settings=hyperparameters,
            source=clean,
            clean_size=0 if trusted is None else len(trusted),
            skipped=skipped,
            notes=notes,
        )
        if sarif is not None:
            log = inspect_log(diagnosis, model=model, classes=subject.classes, notes=notes, skipped=skipped)
            io.atomic_json(sarif, log)
        folder.finish()
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        tell(diagnosis, summary, subject.classes, out)
    return gate.exit_code({"found": diagnosis.backdoored}, summary["n_flagged"], summary["n_samples"])


def weights_of(model: str, kind: type[Inspector]) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Return a model's weights, or None and a note why a method that can do without them has to.

    Raises:
        UsageError: the method needs them, and they cannot be read.
    """
    from foretaste.classifiers import open_weights

    try:
        return open_weights(model), ()
    except UsageError as error:
        if kind.needs_weights:
            raise
        return None, (f"the model was only asked: {error}",)


def null_models(folder: Path, kind: type[Inspector], clean: Samples | None) -> list[Subject]:
    """Return the models of a folder as inspectors see them, in the order of their names.

    Raises:
        UsageError: the folder holds none, or one that does not fit.
        ForetasteError: one cannot be read.
    """
    from foretaste.classifiers import open_classifier
    from foretaste.inspectors import subject_of

    paths = sorted(path for path in folder.glob("*") if path.suffix in (".onnx", ".safetensors"))
    if not paths:
        raise UsageError(f"{folder} holds no .onnx and no .safetensors file")
    return [subject_of(open_classifier(path), clean, weights_of(str(path), kind)[0]) for path in paths]


def tell(diagnosis: Diagnosis, summary: dict[str, Any], classes: tuple[str, ...], out: Path) -> None:
    """Print the diagnosis for people."""
    from foretaste.report.inspect_page import backdoor

    if diagnosis.backdoored:
        say(f"backdoor found (p = {diagnosis.p_value:.2g})")
    else:
        say(f"nothing found (p = {diagnosis.p_value:.2g})")
    for entry in diagnosis.evidence:
        if entry.suspect:
            say(f"  {backdoor(entry.target, entry.source, classes)}: {entry.reason}")
    for found in diagnosis.reconstructions:
        say(
            f"  a {found.kind} turns {share(found.flip_rate)} of {found.n_confirmed} clean images to "
            f"{backdoor(found.target, found.source, classes)}"
        )
    for trigger in summary["triggers"]:
        say(f"  {line(trigger)}")
    for note in summary["notes"]:
        say(f"note: {note}")
    say(f"cost: {diagnosis.queries} queries, {diagnosis.seconds:.1f} s")
    say(f"report: {out / 'report.html'}")
