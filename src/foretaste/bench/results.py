"""The cells of a benchmark gathered into rows: means over the seeds, the best of each column, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, stdev
from string import ascii_lowercase

from foretaste.bench.artefacts import Store
from foretaste.bench.cell import Cell
from foretaste.bench.doors import REPORT, Column, Door, opened
from foretaste.bench.records import Record, read_plan, read_record
from foretaste.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure over the seeds.

    Attributes:
        mean: its mean.
        deviation: the standard deviation over the seeds; None of a single one.
        best: whether no other method of the table is better and one is worse, oracles left aside.
    """

    mean: float
    deviation: float | None
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method in one table.

    Attributes:
        name: of the method.
        oracle: whether it was told the poison rate.
        figures: by column; a column is absent where nothing was measured.
        records: what there is, in the order of the seeds.
        missing: seeds that were not measured.
        marks: letters of the commits that it is of, where the report mixes commits.
        headline: what the heat map says of it.
        goodness: in [0, 1], or None.
    """

    name: str
    oracle: bool
    figures: Mapping[str, Figure]
    records: tuple[Record, ...]
    missing: tuple[int, ...]
    marks: str
    headline: str
    goodness: float | None

    @property
    def failures(self) -> tuple[Record, ...]:
        """Those of its cells that failed."""
        return tuple(record for record in self.records if record.failed is not None)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What all methods of a table were tried on, and how each did: one attack on one set."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """The trials of one door on one data set and network.

    Attributes:
        door: the door.
        columns: those of its columns in which something was measured.
        data: the data set, with its share.
        network: the victim's network.
        methods: names of the rows of the trials, oracles included, in the order of the specification.
        trials: one for each attack.
    """

    door: Door
    columns: tuple[Column, ...]
    data: str
    network: str
    methods: tuple[tuple[str, bool], ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that a report shows.

    Attributes:
        title: of the specification.
        specification: its hash.
        commits: those that the figures are of, by their letter.
        machines: where they were measured.
        sections: the tables.
        records: what there is, in the order of the plan.
        missing: cells that were not measured yet.
    """

    title: str
    specification: str
    commits: Mapping[str, str]
    machines: tuple[str, ...]
    sections: tuple[Section, ...]
    records: tuple[Record, ...]
    missing: tuple[Cell, ...]

    @property
    def failures(self) -> tuple[Record, ...]:
        """The cells that failed."""
        return tuple(record for record in self.records if record.failed is not None)


def gather(store: Store, *, mix_commits: bool = False) -> Results:
    """Return the results of the latest plan.

    Args:
        store: what ``bench run`` wrote to.
        mix_commits: whether figures of several commits may stand in one report, each marked.

    Raises:
        UsageError: there is no plan, or the figures are of several commits.
        ForetasteError: the plan is damaged.
    """
    plan = read_plan(store)
    found = {cell.key: read_record(store, cell.key) for cell in plan.cells}
    # Labels are those of the plan: another name for a method measures nothing anew.
    records = {
        cell.key: record.model_copy(update={"cell": cell})
        for cell in plan.cells
        if (record := found[cell.key]) is not None
    }
    commits = sorted({commit for record in records.values() for commit in record.commits})
    if len(commits) > 1 and not mix_commits:
        raise UsageError(
            f"{store.root} holds figures of {len(commits)} commits ({', '.join(commits)}); measure into another "
            "folder, or mark them by --mix-commits"
        )
    letters = {commit: letter(number) for number, commit in enumerate(commits)}
    return Results(
        title=plan.title,
        specification=plan.specification,
        commits={letters[commit]: commit for commit in commits},
        machines=tuple(sorted({record.machine for record in records.values()})),
        sections=sections(plan.cells, records, letters if len(commits) > 1 else {}),
        records=tuple(records.values()),
        missing=tuple(cell for cell in plan.cells if cell.key not in records),
    )


def letter(number: int) -> str:
    """Return the mark of a commit by its number from 0: a to z, then aa, ab and so on."""
    rest, last = divmod(number, len(ascii_lowercase))
    return (letter(rest - 1) if rest else "") + ascii_lowercase[last]


def sections(cells: Sequence[Cell], records: Mapping[str, Record], letters: Mapping[str, str]) -> tuple[Section, ...]:
    """Return the tables, in the order of the plan."""
    grouped: dict[tuple[str, str, str], dict[str, list[Cell]]] = {}
    for cell in cells:
        place = (cell.door, cell.data.title, cell.network.label)
        grouped.setdefault(place, {}).setdefault(trial_name(cell), []).append(cell)
    found = []
    for (_, data, network), trials in grouped.items():
        first = next(iter(trials.values()))[0]
        door = opened(first.door, first.conditions)
        tried = tuple(
            Trial(name=name, rows=compared(door, rows(door, members, records, letters)))
            for name, members in trials.items()
        )
        shown = {key for trial in tried for row in trial.rows for key in row.figures}
        methods = dict.fromkeys((row.name, row.oracle) for trial in tried for row in trial.rows)
        found.append(
            Section(
                door=door,
                columns=tuple(column for column in door.columns if column.key in shown),
                data=data,
                network=network,
                methods=tuple(methods),
                trials=tried,
            )
        )
    return tuple(found)


def trial_name(cell: Cell) -> str:
    """Say what was done to the set."""
    attack = "no attack" if cell.attack is None else cell.attack.label
    rate = "" if cell.rate is None else f" {100 * cell.rate:g} %"
    return ", ".join([*([cell.imperfections.label] if cell.imperfections.label else []), attack + rate])


def rows(door: Door, cells: Sequence[Cell], records: Mapping[str, Record], letters: Mapping[str, str]) -> list[Row]:
    """Return a row for each method of a trial."""

    def method(cell: Cell) -> tuple[str, bool]:
        return cell.defence.label, cell.oracle

    found = []
    for (name, oracle), group in groupby(cells, key=method):
        members = list(group)
        there = [records[cell.key] for cell in members if cell.key in records]
        figures = averaged(door, [record for record in there if record.failed is None])
        means = {key: figure.mean for key, figure in figures.items()}
        marks = sorted({letters[commit] for record in there for commit in record.commits if commit in letters})
        found.append(
            Row(
                name=name,
                oracle=oracle,
                figures=figures,
                records=tuple(there),
                missing=tuple(cell.seed for cell in members if cell.key not in records),
                marks=", ".join(marks),
                headline=door.headline(means) if means else "",
                goodness=door.goodness(means) if means else None,
            )
        )
    return found


def averaged(door: Door, records: Sequence[Record]) -> dict[str, Figure]:
    """Return mean and deviation of every column over the records in which it was measured."""
    figures = {}
    for column in door.columns:
        values = [value for record in records if (value := record.figures.get(column.key)) is not None]
        if values:
            figures[column.key] = Figure(mean=mean(values), deviation=stdev(values) if len(values) > 1 else None)
    return figures


def compared(door: Door, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with the best figures marked; oracles know more than others, and do not compete."""
    best = {}
    for column in door.columns:
        values = [row.figures[column.key].mean for row in rows if column.key in row.figures and not row.oracle]
        if column.best is not None and len(set(values)) > 1:  # where all are alike none is best
            best[column.key] = max(values) if column.best == "high" else min(values)

    def marked(row: Row) -> Row:
        figures = {
            key: Figure(mean=one.mean, deviation=one.deviation, best=not row.oracle and best.get(key) == one.mean)
            for key, one in row.figures.items()
        }
        return Row(**{**vars(row), "figures": figures})

    return tuple(marked(row) for row in rows)


def report_link(record: Record) -> str | None:
    """Return where a cell's own report is, from the folder of the results; None if it has none."""
    return f"cells/{record.cell.key}/{REPORT}" if record.report else None
