"""``foretaste guard``: screen the inputs of a black-box classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.cli.figures import line, share
from foretaste.cli.gate import Gate
from foretaste.cli.options import (
    IMAGES,
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
    Split,
    lister,
)
from foretaste.cli.output import reader, say
from foretaste.cli.preprocessing import Channels, ClassNames, Mean, Scale, Std, preprocessing
from foretaste.cli.serve import PREFIX, serve
from foretaste.errors import ForetasteError, UsageError

if TYPE_CHECKING:
    from foretaste.classifiers import Classifier, Preprocessing
    from foretaste.classifiers.answer_cache import AnswerCache
    from foretaste.guards.finding import Finding
    from foretaste.guards.scan import Scan
    from foretaste.progress import OnProgress, Progress

WORK = ".work"
"""The folder under ``--out`` where a run keeps the answers that it has had, until it is done."""

LEVELS = ("never", "trigger", "found", "warning")
"""What ``--fail-on`` of a scan knows beside a share."""

LEARN_SCHEMA = "urn:foretaste:learn-result:1"
"""The schema of what ``guard learn --json`` prints, in ``docs/schemas``."""

Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        show_default=False,
        help=f"The classifier: {MODELS}.",
    ),
]
Clean = Annotated[
    str,
    typer.Option("--clean", metavar="C", show_default=False, help="Trusted images; a few hundred are enough."),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", show_default=False, help="Seconds to wait for one answer of an endpoint."),
]
Pace = Annotated[
    float | None,
    typer.Option("--queries-per-second", metavar="N", show_default=False, help="Most queries a second to an endpoint."),
]

guard = typer.Typer(help="Screen the inputs of a black-box classifier.", no_args_is_help=True, rich_markup_mode=None)

guard.command(context_settings={"auto_envvar_prefix": PREFIX.removesuffix("_")})(serve)


@guard.command()
def scan(
    inputs: Annotated[str, typer.Argument(metavar="INPUTS", show_default=False, help=f"Images: {IMAGES}.")],
    model: Model,
    clean: Clean,
    out: Out,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="The method; see --list.")] = "neo",
    false_alarm_rate: Annotated[
        float, typer.Option("--false-alarm-rate", metavar="R", help="Share of clean inputs that may be flagged.")
    ] = 0.01,
    search_budget: Annotated[
        float | None,
        typer.Option(
            "--search-budget",
            metavar="Q",
            show_default=False,
            help="Queries per image that searching may cost on average; without it every image is searched.",
        ),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option("--registry", metavar="DIR", show_default=False, help="Triggers known from an earlier run."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", show_default=False, help="truth.json, to compare the verdict with."),
    ] = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    class_names: ClassNames = None,
    timeout: Timeout = None,
    pace: Pace = None,
    seed: Seed = 0,
    settings: Settings = None,
    split: Split = None,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    on_bad: OnBad = "stop",
    sarif: Sarif = None,
    fail_on: Annotated[
        str,
        typer.Option(
            "--fail-on",
            metavar="|".join((*LEVELS, "SHARE")),
            help="When the exit code is 1: at this level of finding, or if this share of the inputs is flagged (1%).",
        ),
    ] = "found",
    as_json: Json = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the methods.", callback=lister("foretaste.guards"), is_eager=True)
    ] = False,
) -> int:
    """Screen images before a classifier's answers to them are acted on.

    The exit code is 1 if a trigger was confirmed, or if more inputs are flagged than the false-alarm rate explains, and
    0 if not.

    A run that was stopped goes on where it was when it is started again with the same arguments.
    """
    from foretaste import guards, io
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.output import place_of, whole
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder
    from foretaste.guards.neo.registry import Registry
    from foretaste.guards.scan import numbering
    from foretaste.guards.scan import scan as scan_samples
    from foretaste.io.sources import left_out
    from foretaste.io.truth import read_truth
    from foretaste.report.sarif import scan_log
    from foretaste.report.scan_results import FILES, SCHEMA, save_scan
    from foretaste.samples import renumbered

    kind = guards.find(method)
    hyperparameters = parse_settings(kind, settings or ())
    if search_budget is not None:
        hyperparameters |= parse_settings(kind, [f"search_budget={search_budget}"])
    gate = Gate.parse(fail_on, LEVELS)
    known = None if truth is None else read_truth(truth)
    if known is not None and known.trojaned is None:
        raise UsageError(f"{truth} is about a training set, not about test inputs")
    folder = ResultsFolder(out, FILES, (inputs, clean, truth, model, registry), sarif, SCHEMA)
    bare = open_model(model, preprocessing(scale, mean, std, channels), class_names, timeout, pace)
    with folder, bars(quiet=as_json) as show, resumable(model, bare, out, show) as (classifier, listen):
        load = reader(resize, image_column, label_column, on_bad, show)
        trusted = whole(load(clean, use="compare"), clean)
        read = load(inputs, split=split, default_split="test", use="ignore" if known is None else "compare")
        samples, classes, trojaned = read.samples, numbering(classifier.classes, trusted), None
        if known is not None:
            trojaned = known.mark(samples).trojaned
            samples = renumbered(samples, classes, inputs)
        result = scan_samples(
            samples,
            classifier,
            renumbered(trusted, classes, clean),
            method=method,
            registry=None if registry is None else Registry.load(registry),
            false_alarm_rate=false_alarm_rate,
            seed=seed,
            on_calibrated=folder.start,
            on_progress=listen,
            **hyperparameters,
        )
        result = replace(result, notes=(*result.notes, *read.notes, *left_out(read, inputs)))
    with folder:
        summary = save_scan(
            out,
            result,
            source=inputs,
            model=model,
            settings=hyperparameters,
            skipped=read.skipped,
            truth_trojaned=trojaned,
        )
        if sarif is not None:
            place = place_of(inputs, split)
            io.atomic_json(sarif, scan_log(result, source=place, model=model, skipped=read.skipped))
        folder.finish()
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        tell(result, summary, out)
    return gate.exit_code(reached(result.finding), summary["n_flagged"], summary["n_samples"])


@guard.command()
def learn(
    quarantine: Annotated[
        str,
        typer.Argument(metavar="QUARANTINE", show_default=False, help="quarantine.parquet, which cleanse left."),
    ],
    model: Model,
    clean: Clean,
    out: Out,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    class_names: ClassNames = None,
    timeout: Timeout = None,
    pace: Pace = None,
    seed: Seed = 0,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
) -> int:
    """Reconstruct triggers from what cleanse took out, for scan --registry.

    The model is one that was trained on it. Triggers that DIR holds already stay there.
    """
    from foretaste.classifiers.counting import Counted
    from foretaste.cli.output import whole
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder
    from foretaste.errors import EmptyError
    from foretaste.guards import neo
    from foretaste.guards.clean_accuracy import CleanCheck
    from foretaste.guards.neo.registry import INDEX, Registry
    from foretaste.guards.scan import fitting, numbering
    from foretaste.report.summary import describe
    from foretaste.report.triggers import find_triggers
    from foretaste.samples import renumbered

    folder = ResultsFolder(out, (), (quarantine, clean, model))
    known = Registry.load(out) if (out / INDEX).exists() else Registry()
    bare = open_model(model, preprocessing(scale, mean, std, channels), class_names, timeout, pace)
    with folder, bars(quiet=as_json) as show, resumable(model, bare, out, show) as (classifier, listen):
        load = reader(resize, image_column, label_column, on_bad, show)
        trusted = whole(load(clean, use="compare"), clean)
        classes = numbering(classifier.classes, trusted)
        try:
            taken = whole(load(quarantine, use="compare"), quarantine)
        except EmptyError:  # what cleanse leaves where it found nothing
            taken = trusted[:0]
        suspects, trusted = fitting(classifier, renumbered(taken, classes, quarantine), trusted)
        trusted, counted, learnt = renumbered(trusted, classes, clean), Counted(classifier), Registry()
        accuracy = None
        if len(suspects):
            accuracy = CleanCheck().require(counted, trusted, seed)
            learnt = neo.learn(suspects, counted, trusted, seed=seed, on_progress=listen)
    with folder:
        known.merge(learnt).save(out)
        folder.finish()
    triggers = [describe(trigger, len(rows), classes) for trigger, rows in find_triggers(learnt, suspects)]
    if as_json:
        result = {
            "schema": LEARN_SCHEMA,
            "n_samples": len(suspects),
            "clean_accuracy": None if accuracy is None else accuracy.described(),
            "triggers": triggers,
        }
        typer.echo(json.dumps(result, indent=2))
        return 0
    say(f"triggers reconstructed from {len(suspects)} samples: {len(triggers)}")
    for note in () if accuracy is None else accuracy.notes:
        say(f"note: {note}")
    for trigger in triggers:
        say(f"  {line(trigger)}; in {trigger['n_found']} samples")
    if triggers:
        say(f"use them: foretaste guard scan --registry {out}")
    return 0


def open_model(
    model: str, way: Preprocessing | None, class_names: Path | None, timeout: float | None, pace: float | None
) -> Classifier:
    """Open a model with what the options say of it.

    Raises:
        UsageError: there is no such model, or an option does not apply to it.
        ForetasteError: it cannot be read or reached.
    """
    from foretaste.classifiers import Endpoint, open_classifier
    from foretaste.classifiers.class_names import read_class_names

    endpoint: Endpoint = {}
    if timeout is not None:
        endpoint["timeout"] = timeout
    if pace is not None:
        endpoint["queries_per_second"] = pace
    classes = None if class_names is None else read_class_names(class_names)
    return open_classifier(model, preprocessing=way, classes=classes, **endpoint)


def reached(finding: Finding) -> dict[str, bool]:
    """Return which levels of ``--fail-on`` a scan with this finding reaches."""
    from foretaste.guards.finding import Conclusion

    found = finding.conclusion is not Conclusion.NOTHING
    return {
        "trigger": finding.conclusion is Conclusion.TRIGGER,
        "found": found,
        "warning": found or finding.shift is not None,
    }


@contextmanager
def resumable(model: str, opened: Classifier, out: Path, show: OnProgress) -> Iterator[tuple[AnswerCache, OnProgress]]:
    """Keep a model's answers until the run is done, and give a listener for what is asked of it.

    Raises:
        ForetasteError: the block failed; the sentence also says how far it had got.
    """
    from foretaste.classifiers.answer_cache import AnswerCache, identity
    from foretaste.classifiers.preprocessing import Preprocesses

    work = out / WORK
    work.mkdir(parents=True, exist_ok=True)
    way = opened.preprocessing if isinstance(opened, Preprocesses) else None
    classifier = AnswerCache(opened, work, f"{identity(model)} {'' if way is None else way.options}")
    latest: Progress | None = None

    def listen(progress: Progress) -> None:
        nonlocal latest
        latest = progress
        show(progress)

    try:
        yield classifier, listen
    except UsageError:
        raise
    except (ForetasteError, KeyboardInterrupt) as error:
        if not classifier.kept:
            raise
        where = f"stopped in {latest.phase} at {latest.done:,} of {latest.total:,}" if latest else "stopped"
        reached = f"{where}, with {classifier.kept:,} answers kept in {work}"
        if isinstance(error, KeyboardInterrupt):
            say(reached, err=True)
            raise
        raise ForetasteError(f"{error}; {reached}: start again with the same arguments to go on") from error


def headline(scan: Scan, summary: dict[str, Any], out: Path) -> str:
    """Say what the scan amounts to in a line."""
    from foretaste.guards.finding import Conclusion

    finding, flagged, total = scan.finding, summary["n_flagged"], summary["n_samples"]
    alarms = f"{finding.n_unexplained:,} flagged without a trigger (p = {finding.p_value:.2g} if all are false alarms)"
    match finding.conclusion:
        case Conclusion.TRIGGER:
            where = f"what to answer instead is in {out / 'verdicts.parquet'}"
            return f"trojaned inputs found: {flagged:,} of {total:,}, {finding.n_carriers:,} with a trigger; {where}"
        case Conclusion.EXCESS:
            return f"suspicious inputs: {flagged:,} of {total:,}, more than false alarms explain; {alarms}"
        case Conclusion.NOTHING if flagged:
            return f"nothing found in {total:,} inputs: no more than false alarms explain; {alarms}"
        case _:
            return f"nothing found in {total:,} inputs"


def tell(scan: Scan, summary: dict[str, Any], out: Path) -> None:
    """Print what was found for people."""
    from foretaste.report.scan_page import shift_sentence

    say(headline(scan, summary, out))
    for trigger in summary["triggers"]:
        say(f"  {line(trigger)}; in {trigger['n_found']} inputs")
    if scan.finding.shift is not None:
        say(f"warning: {shift_sentence(scan.finding.shift, scan.classes)}")
    for note in summary["notes"]:
        say(f"note: {note}")
    accuracy = scan.clean_accuracy
    say(f"clean images: the model is right on {share(accuracy.accuracy)} of {accuracy.n:,}")
    if summary.get("n_trojaned") == 0:
        say(f"against the truth: no input is trojaned; {share(summary['fpr'])} false alarms")
    elif "tpr" in summary:
        say(
            f"against the truth: {share(summary['tpr'])} of the trojaned found, {share(summary['fpr'])} false alarms, "
            f"{share(summary['corrected_accuracy'])} corrected rightly; "
            f"attack success {share(summary['asr_before'])} before, {share(summary['asr_after'])} after"
        )
    say(f"cost: {summary['queries_per_image']:.1f} queries and {summary['ms_per_image']:.1f} ms per image")
    say(f"report: {out / 'report.html'}")
