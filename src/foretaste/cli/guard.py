"""``foretaste guard``: screen the inputs of a classifier that can only be asked."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.cli.figures import line, share
from foretaste.cli.options import MODELS, SOURCES, Json, OnBad, Out, Resize, Seed, Settings, lister
from foretaste.errors import ForetasteError, UsageError

if TYPE_CHECKING:
    from foretaste.classifiers.answer_cache import AnswerCache
    from foretaste.guards.guard import Reconstructing, Screener
    from foretaste.progress import OnProgress, Progress
    from foretaste.report.scan import Scan

WORK = ".work"
"""The folder under ``--out`` where a run keeps the answers that it has had, until it is done."""

TROJANED_FOUND = 1

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
    typer.Option("--clean", metavar="C", show_default=False, help="Images that you trust; a few hundred do."),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", show_default=False, help="Seconds for one answer of an endpoint."),
]
Pace = Annotated[
    float | None,
    typer.Option("--queries-per-second", metavar="N", show_default=False, help="Ask an endpoint no faster than this."),
]

guard = typer.Typer(
    help="Screen the inputs of a classifier that can only be asked.", no_args_is_help=True, rich_markup_mode=None
)


@guard.command()
def scan(
    inputs: Annotated[str, typer.Argument(metavar="INPUTS", show_default=False, help=f"Images: {SOURCES}.")],
    model: Model,
    clean: Clean,
    out: Out,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="How to look; see --list.")] = "neo",
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
    timeout: Timeout = None,
    pace: Pace = None,
    seed: Seed = 0,
    settings: Settings = None,
    resize: Resize = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the methods.", callback=lister("foretaste.guards"), is_eager=True)
    ] = False,
) -> int:
    """Screen images before a classifier's answers to them are acted on.

    The exit code is 1 if some are trojaned and 0 if not.

    A run that was stopped goes on where it was when it is started again with the same arguments.
    """
    from foretaste import guards, io
    from foretaste.classifiers.counting import Counted
    from foretaste.cli.classes import renumbered
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.output import check_writable, whole
    from foretaste.cli.progress import bars
    from foretaste.guards.guard import Calibrated
    from foretaste.guards.neo.registry import Registry
    from foretaste.io.atomic import remove_unfinished
    from foretaste.io.truth import read_truth
    from foretaste.report.scan import Scan
    from foretaste.report.scan_results import save_scan

    kind = guards.find(method)
    hyperparameters = parse_settings(kind, settings or ())
    if search_budget is not None:
        hyperparameters |= parse_settings(kind, [f"search_budget={search_budget}"])
    known = None if truth is None else read_truth(truth)
    if known is not None and known.trojaned is None:
        raise UsageError(f"{truth} is about a training set, not about test inputs")
    check_writable(out)
    with bars(quiet=as_json) as show, resumable(model, out, timeout, pace, show) as (classifier, listen):
        trusted = whole(io.read(clean, resize=resize, on_bad=on_bad, on_progress=show), clean)
        read = io.read(
            inputs,
            split="test",
            resize=resize,
            on_bad=on_bad,
            fewest_classes=1,
            on_progress=show,
        )
        samples, classes, trojaned = read.samples, classifier.classes or trusted.classes, None
        if known is not None:
            trojaned = known.mark(samples).trojaned
            samples = renumbered(samples, classes, inputs)
        if samples.images is None:
            raise UsageError(f"{inputs} holds feature vectors; guards screen images")
        if samples.sample_shape != trusted.sample_shape:
            raise UsageError(
                f"the inputs have shape {samples.sample_shape}, and the clean images {trusted.sample_shape}"
            )
        earlier = None if registry is None else Registry.load(registry)
        counted, start = Counted(classifier), time.perf_counter()
        keeper = guards.Guard(
            counted,
            renumbered(trusted, classes, clean),
            method,
            false_alarm_rate=false_alarm_rate,
            seed=seed,
            on_progress=listen,
            **hyperparameters,
        )
        finder = trigger_finder(keeper.screener)
        if earlier is not None:
            if finder is None:
                raise UsageError(f"--registry does not apply to --method {method}, which makes out no triggers")
            finder.registry = finder.registry.merge(earlier)
        calibrated, saved, asked = time.perf_counter(), classifier.saved_seconds, counted.queries
        screening = keeper.screen(samples.images, listen)
        done = time.perf_counter()
    result = Scan(
        samples=samples,
        screening=screening,
        classes=classes,
        registry=None if finder is None else finder.registry,
        method=method,
        seed=seed,
        seconds=done - calibrated + classifier.saved_seconds - saved,
        calibration_seconds=calibrated - start + saved,
        queries=counted.queries - asked,
        calibration_queries=asked,
        false_alarm_rate=false_alarm_rate,
        clean_size=len(trusted),
        threshold=keeper.screener.threshold if isinstance(keeper.screener, Calibrated) else None,
        notes=shortcomings(finder),
    )
    summary = save_scan(
        out,
        result,
        source=inputs,
        model=model,
        settings=hyperparameters,
        skipped=read.skipped,
        truth_trojaned=trojaned,
    )
    shutil.rmtree(out / WORK)
    remove_unfinished(out)
    remove_unfinished(out / "triggers")
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        tell(result, summary, out)
    return TROJANED_FOUND if screening.trojaned.any() else 0


@guard.command()
def learn(
    quarantine: Annotated[
        str,
        typer.Argument(metavar="QUARANTINE", show_default=False, help="quarantine.parquet, which cleanse left."),
    ],
    model: Model,
    clean: Clean,
    out: Out,
    timeout: Timeout = None,
    pace: Pace = None,
    seed: Seed = 0,
    resize: Resize = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
) -> int:
    """Reconstruct triggers from what cleanse took out, for scan --registry.

    The model is one that was trained on it. Triggers that DIR holds already stay there.
    """
    from foretaste import io
    from foretaste.classifiers.counting import Counted
    from foretaste.cli.classes import renumbered
    from foretaste.cli.output import check_writable, whole
    from foretaste.cli.progress import bars
    from foretaste.guards import neo
    from foretaste.guards.neo.registry import INDEX, Registry
    from foretaste.io.atomic import remove_unfinished
    from foretaste.report.summary import describe
    from foretaste.report.triggers import find_triggers

    check_writable(out)
    known = Registry.load(out) if (out / INDEX).exists() else Registry()
    with bars(quiet=as_json) as show, resumable(model, out, timeout, pace, show) as (classifier, listen):
        trusted = whole(io.read(clean, resize=resize, on_bad=on_bad, on_progress=show), clean)
        classes = classifier.classes or trusted.classes
        read = io.read(quarantine, resize=resize, on_bad=on_bad, fewest_classes=1, on_progress=show)
        taken = whole(read, quarantine)
        suspects = renumbered(taken, classes, quarantine)
        learnt = neo.learn(
            suspects, Counted(classifier), renumbered(trusted, classes, clean), seed=seed, on_progress=listen
        )
    known.merge(learnt).save(out)
    shutil.rmtree(out / WORK)
    remove_unfinished(out)
    triggers = [describe(trigger, len(rows), classes) for trigger, rows in find_triggers(learnt, suspects)]
    if as_json:
        typer.echo(json.dumps({"n_samples": len(suspects), "triggers": triggers}, indent=2))
        return 0
    typer.echo(f"triggers reconstructed from {len(suspects)} samples: {len(triggers)}")
    for trigger in triggers:
        typer.echo(f"  {line(trigger)}; in {trigger['n_found']} samples")
    if triggers:
        typer.echo(f"use them: foretaste guard scan --registry {out}")
    return 0


def shortcomings(finder: Reconstructing | None) -> tuple[str, ...]:
    """Return a note if not every input was searched."""
    from foretaste.guards.neo import NEOScreener

    if not isinstance(finder, NEOScreener) or not finder.unsearched:
        return ()
    return (f"in {finder.unsearched:,} inputs only known triggers were looked for, because of --search-budget",)


def trigger_finder(screener: Screener) -> Reconstructing | None:
    """Return the screener, or the part of a combined one, that makes out triggers; None if none does."""
    from foretaste.guards.guard import Reconstructing

    for part in (screener, *getattr(screener, "screeners", ())):
        if isinstance(part, Reconstructing):
            return part
    return None


@contextmanager
def resumable(
    model: str, out: Path, timeout: float | None, pace: float | None, show: OnProgress
) -> Iterator[tuple[AnswerCache, OnProgress]]:
    """Open a model whose answers are kept until the run is done, and give a listener for what is asked of it.

    Raises:
        ForetasteError: the block failed; the sentence also says how far it had got.
    """
    from foretaste.classifiers import Endpoint, open_classifier
    from foretaste.classifiers.answer_cache import AnswerCache, identity

    endpoint: Endpoint = {}
    if timeout is not None:
        endpoint["timeout"] = timeout
    if pace is not None:
        endpoint["queries_per_second"] = pace
    work = out / WORK
    work.mkdir(parents=True, exist_ok=True)
    classifier = AnswerCache(open_classifier(model, **endpoint), work, identity(model))
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
            typer.echo(reached, err=True)
            raise
        raise ForetasteError(f"{error}; {reached}: start again with the same arguments to go on") from error


def tell(scan: Scan, summary: dict[str, Any], out: Path) -> None:
    """Print what was found for people."""
    found, total = summary["n_flagged"], summary["n_samples"]
    if found:
        typer.echo(
            f"trojaned inputs found: {found} of {total}; what to answer instead is in {out / 'verdicts.parquet'}"
        )
    else:
        typer.echo(f"nothing found in {total} inputs")
    for trigger in summary["triggers"]:
        typer.echo(f"  {line(trigger)}; in {trigger['n_found']} inputs")
    for note in summary["notes"]:
        typer.echo(f"note: {note}")
    if "tpr" in summary:
        typer.echo(
            f"against the truth: {share(summary['tpr'])} of the trojaned found, {share(summary['fpr'])} false alarms, "
            f"{share(summary['corrected_accuracy'])} corrected rightly; "
            f"attack success {share(summary['asr_before'])} before, {share(summary['asr_after'])} after"
        )
    typer.echo(f"cost: {summary['queries_per_image']:.1f} queries and {summary['ms_per_image']:.1f} ms per image")
    typer.echo(f"report: {out / 'report.html'}")
