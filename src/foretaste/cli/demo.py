"""``foretaste demo``: the full pipeline on synthetic traffic signs, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretaste.cli.output import say
from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.inspectors.diagnosis import Diagnosis


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")] = Path("foretaste-demo"),
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve a backdoored model behind the gateway, and attack it; Ctrl-C ends.")
    ] = False,
    port: Annotated[int, typer.Option("--port", help="With --serve: port of the gateway.")] = 8080,
) -> int:
    """Run the full pipeline on synthetic traffic signs."""
    from rich.console import Console
    from rich.table import Table

    from foretaste.cli.progress import bars
    from foretaste.cli.results_folder import ResultsFolder
    from foretaste.demo import RATE, tell
    from foretaste.report.results import FILES, SCHEMA

    if serve:
        serve_attack(out, port)
        return 0
    with (
        ResultsFolder(out, ("train.parquet", "truth.json", *FILES), schema=SCHEMA) as folder,
        bars(quiet=False) as show,
    ):
        folder.start()
        story = tell(out, on_progress=show)
        folder.finish()
    table = Table(
        "model trained on", "accuracy", "attack success", title=f"Synthetic traffic signs, BadNets at {RATE:.0%}"
    )
    for name, outcome in (("the poisoned set", story.before), ("the cleansed set", story.after)):
        table.add_row(name, f"{outcome.accuracy:.1%}", f"{outcome.attack_success:.1%}")
    Console().print(table)
    say(
        f"{story.n_found} of {story.n_poison} poison samples found, {story.n_false_alarms} false alarms "
        f"in {story.n_samples} samples"
    )
    guarded = story.guarded
    say(
        f"in front of the first model the guard stopped {guarded.n_found} of {guarded.n_trojaned} inputs with the "
        f"trigger, gave {guarded.n_corrected} of them the right label, and stopped {guarded.n_false_alarms} of the "
        f"other {guarded.n_inputs - guarded.n_trojaned}"
    )
    say(
        f"inspect finds {said(story.before.diagnosis, story.classes)} in the first model and "
        f"{said(story.after.diagnosis, story.classes)} in the second"
    )
    say(f"report: {out / 'report.html'}")
    return 0


def said(diagnosis: Diagnosis, classes: tuple[str, ...]) -> str:
    """Say in a few words what an inspector found."""
    from foretaste.samples import listed

    if not diagnosis.backdoored:
        return "nothing"
    sizes = [one.patch.mask.shape for one in diagnosis.reconstructions if one.patch is not None]
    what = f"a trigger of {sizes[0][1]} × {sizes[0][0]} pixels" if sizes else "a backdoor"
    return f"{what} that forces {listed([classes[label] for label in diagnosis.suspect_classes])}"


def serve_attack(out: Path, port: int) -> None:
    """Serve a backdoored model behind the gateway and attack it, until interrupted.

    Raises:
        ForetasteError: the extra ``foretaste[serve]`` is missing, or the gateway cannot be started.
    """
    from foretaste.cli.progress import bars

    try:
        from foretaste.gateway import demo as live
    except ModuleNotFoundError as error:
        raise ForetasteError(f"demo --serve needs {error.name}, of the extra foretaste[serve]") from None
    with bars(quiet=False) as show:
        backdoored = live.make(out / "served", on_progress=show)
    live.serve(backdoored, out / "served", port=port, announce=lambda line: say(line, err=True))
