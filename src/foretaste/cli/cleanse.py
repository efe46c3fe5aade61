"""``foretaste cleanse``: find the poison in a training set and take it out."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foretaste.cli.figures import line, share
from foretaste.cli.gate import Gate
from foretaste.cli.options import (
    MODELS,
    FailOn,
    ImageColumn,
    Json,
    LabelColumn,
    OnBad,
    Out,
    Resize,
    Sarif,
    Seed,
    Settings,
    Source,
    Split,
    lister,
)
from foretaste.cli.output import reader, say
from foretaste.errors import ForetasteError, UsageError

if TYPE_CHECKING:
    from foretaste.classifiers.classifier import Classifier
    from foretaste.cleansers.verdict import Verdict
    from foretaste.guards.neo.registry import Registry
    from foretaste.progress import OnProgress
    from foretaste.samples import Samples


def cleanse(
    source: Source,
    out: Out,
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="C", help="Trusted samples; a few hundred are enough.", show_default=False),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", metavar="NAME", help="How to look for poison: see --list, or package.module:Class."),
    ] = "confusion-training",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            show_default=False,
            help=f"A classifier trained on the set, to reconstruct the trigger of what is flagged: {MODELS}.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="truth.json, to compare the verdict with.", show_default=False),
    ] = None,
    seed: Seed = 0,
    settings: Settings = None,
    split: Split = None,
    resize: Resize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    form: Annotated[
        Literal["parquet", "source"],
        typer.Option("--format", help="Write the sets as parquet only, or also in the format of the source."),
    ] = "parquet",
    on_bad: OnBad = "stop",
    sarif: Sarif = None,
    fail_on: FailOn = "found",
    as_json: Json = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the methods.", callback=lister("foretaste.cleansers"), is_eager=True)
    ] = False,
) -> int:
    """Find the poison in a training set and take it out.

    The exit code is 1 if there is poison and 0 if not; --fail-on sets another policy.

    A run that was stopped goes on where it was when it is started again with the same arguments. Several processes
    share the training under accelerate launch; the first of them writes.
    """
    from foretaste import cleansers, io
    from foretaste.classifiers import open_classifier
    from foretaste.cli.fields import parse_settings
    from foretaste.cli.output import place_of, truth_of_training_set, whole
    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import WORK, ResultsFolder, leads
    from foretaste.io.sources import left_out
    from foretaste.report.results import COPIES, FILES, SCHEMA, save_cleanse
    from foretaste.report.sarif import cleanse_log

    hyperparameters = parse_settings(cleansers.find(method), settings or ())
    gate = Gate.parse(fail_on)
    for name in COPIES:
        if (out / name).exists():
            raise UsageError(f"{out / name} is left of an earlier run; remove it, or choose another folder")
    poison = cover = registry = None
    with ExitStack() as stack:
        folder = None
        if leads():
            folder = stack.enter_context(ResultsFolder(out, FILES, (source, clean, truth, model), sarif, SCHEMA))
        show = stack.enter_context(bars(quiet=as_json or folder is None))
        classifier = None if model is None else open_classifier(model)
        read = reader(resize, image_column, label_column, on_bad, show)
        inspected = read(source, split=split)
        samples = inspected.samples
        if classifier is not None and samples.images is None:
            raise UsageError("--model reconstructs triggers in images, and these samples are feature vectors")
        if classifier is not None and classifier.classes not in (None, samples.classes):
            raise UsageError(f"{model} has other classes than {source}; give a model that was trained on it")
        if truth is not None:
            marks = truth_of_training_set(truth).mark(samples)
            poison, cover = marks.poison, marks.cover
        trusted = None if clean is None else whole(read(clean, use="compare", like=inspected), clean)
        samples, trusted, _ = cleansers.prepare(samples, trusted, seed)
        verdict = cleansers.cleanse(
            samples,
            trusted,
            method=method,
            seed=seed,
            workdir=out / WORK,
            on_progress=show if folder is None else folder.starting(show),
            **hyperparameters,
        )
        if folder is None:
            return 0
        folder.start()
        if classifier is not None and verdict.flagged.any():
            registry, notes = reconstruct(classifier, samples, trusted, verdict, seed, show)
            verdict = replace(verdict, notes=verdict.notes + notes)
        verdict = replace(verdict, notes=verdict.notes + inspected.notes + left_out(inspected, source))
        summary = save_cleanse(
            out,
            samples,
            verdict,
            clean_size=None if trusted is None else len(trusted),
            loaded=inspected,
            copy_source=form == "source",
            truth_poison=poison,
            truth_cover=cover,
            registry=registry,
            settings=hyperparameters,
            source=source,
            on_progress=show,
        )
        if sarif is not None:
            place = place_of(source, split)
            log = cleanse_log(samples, verdict, source=place, registry=registry, skipped=inspected.skipped)
            io.atomic_json(sarif, log)
        folder.finish()
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        tell(samples, verdict, summary, out)
    return gate.exit_code({"found": bool(verdict.flagged.any())}, summary["n_flagged"], summary["n_samples"])


def reconstruct(
    classifier: Classifier,
    samples: Samples,
    trusted: Samples | None,
    verdict: Verdict,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Registry | None, tuple[str, ...]]:
    """Reconstruct the triggers of what was flagged, and say what a reader should know; the verdict stands anyway."""
    from foretaste.classifiers.counting import Counted
    from foretaste.guards import neo

    notes: tuple[str, ...] = ()
    if trusted is None:
        trusted = neo.stand_ins(samples, verdict.flagged, seed)
        notes = (
            f"no clean set was given: {len(trusted):,} samples that passed stood in for it to reconstruct triggers",
        )
    try:
        found = neo.reconstruct_triggers(
            samples, verdict.flagged, Counted(classifier), trusted, seed=seed, on_progress=on_progress
        )
        return found, notes
    except ForetasteError as error:
        return None, (*notes, f"no trigger could be reconstructed: {error}")


def tell(samples: Samples, verdict: Verdict, summary: dict[str, Any], out: Path) -> None:
    """Print the verdict for people."""
    found = int(verdict.flagged.sum())
    if found:
        say(f"poison found: {found} of {len(samples)} samples, taken out to {out / 'quarantine.parquet'}")
    else:
        say(f"nothing found in {len(samples)} samples")
    for evidence in verdict.classes:
        if evidence.condemned:
            say(
                f"  class {samples.classes[evidence.label]}: {evidence.n_flagged} of {evidence.n_samples} samples; "
                f"{evidence.reason}"
            )
    for trigger in summary.get("triggers", ()):
        say(f"  {line(trigger)}; in {trigger['n_found']} samples")
    for note in verdict.notes:
        say(f"note: {note}")
    if "tpr" in summary:
        say(f"against the truth: {share(summary['tpr'])} of the poison found, {share(summary['fpr'])} false alarms")
    say(f"report: {out / 'report.html'}")
