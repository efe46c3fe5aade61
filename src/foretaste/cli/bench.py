"""``foretaste bench``: the matrix of attacks and defences, and the tables made of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from foretaste.cli.output import check_writable, say
from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.bench.records import Record
    from foretaste.bench.runner import Work
    from foretaste.bench.timings import Expected

bench = typer.Typer(
    help="Measure defences against attacks, from a specification, and make tables of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="DIR",
        show_default=False,
        help="Where results and what they share are kept: a folder, or with --ray an address such as s3://bucket/folder.",
    ),
]


ADDRESS = re.compile(r"local|auto|.+://.+|[^/\\]+:\d+")
"""What follows ``--ray`` and is an address, as Ray takes it; anything else is a specification."""


class RayAlone(TyperCommand):
    """A command whose option ``--ray`` may stand without an address, which typer has no means for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with "local" behind each ``--ray`` that no address follows."""
        given = []
        for word, following in zip(args, [*args[1:], ""], strict=True):
            given += [word, "local"] if word == "--ray" and not ADDRESS.fullmatch(following) else [word]
        return super().parse_args(ctx, given)


@bench.command(cls=RayAlone)
def run(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            show_default=False,
            help="The specification, a TOML file, or one that is shipped: quick.toml, cleansers.toml, quiet.toml, "
            "rates.toml, attacks.toml, malware.toml, models.toml, guards.toml, published.toml.",
        ),
    ],
    out: Folder,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be measured and how long that takes, and measure nothing."),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            show_default=False,
            help="Spread the cells over the Ray cluster at this address (auto, HOST:PORT, ray://HOST:PORT); without "
            "one, or with 'local', over one that is started on this machine. Needs foretaste[ray].",
        ),
    ] = None,
) -> int:
    """Measure what a specification asks for.

    A run that was stopped goes on where it was when it is started again with the same arguments. A cell that fails is
    recorded with its reason and the others go on; then the exit code is 2.
    """
    from foretaste.bench import runner, specification
    from foretaste.bench.artefacts import Store
    from foretaste.bench.case import DataSets
    from foretaste.bench.timings import Timings
    from foretaste.cli.progress import bars

    path, sets = specification.find(spec), DataSets()
    store = Store(out, lambda sentence: say(f"note: {sentence}", err=True))
    if not store.remote:
        check_writable(Path(out))
    with bars(quiet=False) as show:
        wanted = specification.read(path, sets, show)
        work = runner.left_of(wanted, store)
        expected = Timings.load().expect(work.cells, store)
        say(planned(work, expected))
        if dry_run:
            for cell in work.cells:
                say(f"  {cell.title()}")
            return 0
        count = 0

        def tell(record: Record) -> None:
            nonlocal count
            count += 1
            say(f"[{count}/{len(work.cells)}] {told(record)}")

        if ray is None:
            records = runner.run(wanted, store, sets, on_record=tell, on_progress=show)
        else:
            from foretaste.bench import on_ray

            records = on_ray.run(wanted, store, ray, on_record=tell)
    failures = sum(record.failed is not None for record in records)
    if failures:
        say(f"{failures} of {len(records)} cells failed; started again, the run tries them again", err=True)
    say(f"measured; foretaste bench report {out} makes the tables")
    return ForetasteError.exit_code if failures else 0


@bench.command()
def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", show_default=False, help="What bench run wrote to.")],
    mix_commits: Annotated[
        bool, typer.Option("--mix-commits", help="Put figures of several commits into one report, each marked.")
    ] = False,
) -> int:
    """Make report.html, report.md, report.tex and results.csv of what was measured so far."""
    from foretaste.bench import page, results, tables
    from foretaste.bench.artefacts import Store

    store = Store(folder, lambda sentence: say(f"note: {sentence}", err=True))
    gathered = results.gather(store, mix_commits=mix_commits)
    for name, text in (
        ("report.md", tables.markdown(gathered)),
        ("report.tex", tables.latex(gathered)),
        ("results.csv", tables.comma_separated(gathered)),
        ("report.html", page.page(gathered)),
    ):
        store.write(name, text.encode())
    if gathered.missing:
        say(f"note: {len(gathered.missing)} cells are not measured yet", err=True)
    say(f"report: {folder}/report.html")
    return 0


def planned(work: Work, expected: Expected) -> str:
    """Say what is left to do and how long it takes."""
    from foretaste.report.wording import duration, plural

    text = f"{plural(len(work.cells), 'cell')} to measure"
    if work.done:
        text += f", {len(work.done)} measured already"
    if not work.cells:
        return text
    if expected.seconds:
        text += f"; about {duration(expected.seconds)} in one process"
        if expected.foreign:
            text += ", going by figures of another machine where this one has none"
    if expected.unknown:
        text += f"; how long {', '.join(expected.unknown)} will take is not known yet"
    return text


def told(record: Record) -> str:
    """Say in a line what became of a cell."""
    from foretaste.bench.doors import opened
    from foretaste.bench.tables import number

    if record.failed is not None:
        return f"{record.cell.title()}: failed: {record.failed}"
    door = opened(record.cell.door, record.cell.conditions)
    figures = [
        f"{column.title} {number(column, value)}{' %' if column.unit == 'share' else ''}"
        for column in door.columns
        if (value := record.figures.get(column.key)) is not None
    ]
    return f"{record.cell.title()}: {', '.join(figures)}"
