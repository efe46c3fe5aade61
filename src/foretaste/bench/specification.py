"""What is to be measured: a TOML file, checked whole before anything runs, and the cells that it asks for."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foretaste import attacks, plugins
from foretaste.attacks import Attack, Trainable, TrojansModel
from foretaste.attacks._base.fitting import files, with_weights
from foretaste.bench.case import DataSets, used
from foretaste.bench.cell import Cell, Choice, DataSet, digest
from foretaste.bench.doors import DOORS, Door, OnVictim
from foretaste.bench.methods import built, hyperparameters, parsed, plain_settings
from foretaste.bench.provenance import code_of
from foretaste.bench.toml_lines import Path as Place
from foretaste.bench.toml_lines import line_at, lines_of
from foretaste.cleansers import FEWEST, LARGEST_SEED
from foretaste.errors import ForetasteError, UsageError
from foretaste.imperfections import Imperfections
from foretaste.nets import NETS, outline
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples
from foretaste.training import TrainingPlan

NO_ATTACK = "none"
"""The name under which a specification lists the set as it is."""
ORACLE = "expected_rate"
"""The hyperparameter of methods that need the poison rate."""

# The file's tables.

Share = Annotated[float, Field(gt=0, le=1)]
Table = TypeVar("Table", bound="Strict")


class Strict(BaseModel):
    """A table of the file: no other keys, no other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Only(Strict):
    """Where an entry applies: to the data sets, networks and doors of these names; None is all."""

    data: list[str] | None = None
    networks: list[str] | None = None
    doors: list[str] | None = None


class DataTable(Strict):
    """An entry of ``[[data]]``."""

    source: str
    label: str | None = None
    test: str | Annotated[float, Field(gt=0, lt=1)] | None = None
    resize: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=2)] | None = None
    share: Share = 1.0
    clean: Annotated[int, Field(ge=0)] = 500


class MethodTable(Strict):
    """An entry of ``[[networks]]`` or of a door's methods."""

    name: str
    label: str | None = None
    set: dict[str, Any] = {}
    only: Only = Only()


class AttackTable(MethodTable):
    """An entry of ``[[attacks]]``."""

    rates: Annotated[list[float], Field(min_length=1)] | None = None


class Head(Strict):
    """What stands before the tables."""

    title: str = ""
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_SEED)]], Field(min_length=1)] = [0]
    oracle: bool = False


class Resources(Strict):
    """What a cell needs of a machine, for Ray: processors and graphics processors."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("cpus", "gpus")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value > 1 and value != int(value):  # as Ray asks
            raise ValueError("above 1 it must be whole")
        return value


# What the file means.


@dataclass(frozen=True, kw_only=True)
class Specification:
    """What is to be measured.

    Attributes:
        title: for people.
        key: hash of the cells.
        cells: in the order of the report.
        resources: what a cell needs, for Ray.
    """

    title: str
    key: str
    cells: tuple[Cell, ...]
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method with all of its settings, which of them the file gives, and where it applies."""

    choice: Choice
    kind: type[Any] | None
    only: Only
    place: Place
    given: frozenset[str] = frozenset()

    @property
    def method(self) -> type[Any]:
        """The kind of an entry that has one: all do but networks and the set as it is."""
        assert self.kind is not None
        return self.kind

    def takes(self, data: DataSet) -> bool:
        """Return whether it applies to a data set."""
        return self.only.data is None or data.label in self.only.data

    def on(self, network: Choice) -> Choice:
        """Return the method as it is tried on a network: a classifier that it trains itself is that network, too."""
        if self.kind is None or not issubclass(self.kind, OnVictim):
            return self.choice
        own = {"net": network.name, **network.settings}
        settings = self.choice.settings
        filled = {name: value for name, value in own.items() if name in settings and name not in self.given}
        return self.choice.model_copy(update={"settings": {**settings, **filled}})


@dataclass
class Checker:
    """Reads the tables and collects what is wrong with them.

    Attributes:
        raw: the parsed file.
        problems: what is wrong, by the place in the file.
    """

    raw: Mapping[str, Any]
    problems: list[tuple[Place, str]] = field(default_factory=list)

    def complain(self, place: Place, message: str) -> None:
        """Note a problem."""
        self.problems.append((place, message))

    def table(self, kind: type[Table], value: Any, place: Place) -> Table | None:
        """Return a table, or None after noting what is wrong with it."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            for one in error.errors():
                where = within(value, one["loc"])
                self.complain((*place, *where), described(where, one["msg"]))
            return None

    def tables(self, kind: type[Table], section: str) -> Iterator[tuple[Place, Table]]:
        """Yield the entries of an array of tables that are well-formed, each with its place."""
        entries = self.raw.get(section, [])
        if not isinstance(entries, list):
            self.complain((section,), f"[[{section}]] must be an array of tables")
            return
        for number, value in enumerate(entries):
            if (table := self.table(kind, value, (section, number))) is not None:
                yield (section, number), table

    def settings(self, kind: type[Any], given: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
        """Return the hyperparameters that a table sets, or None after noting what is wrong with them."""
        values, known = {}, hyperparameters(kind)
        before = len(self.problems)
        for name, value in given.items():
            if name not in known:
                self.complain((*place, name), f"there is no setting {name!r}; known: {', '.join(known) or 'none'}")
                continue
            try:
                values[name] = parsed(kind, name, value)
            except UsageError as error:
                self.complain((*place, name), str(error))
        return values if len(self.problems) == before else None

    def method(
        self, kind: type[Any], settings: Mapping[str, Any], place: Place, *, name: str = "", label: str = ""
    ) -> Choice | None:
        """Return a method with all of its hyperparameters, or None after noting why it cannot be built."""
        try:
            method = plugins.build(name, kind, settings)
            plain = plain_settings(method)
        except UsageError as error:
            self.complain(place, str(error))
            return None
        return Choice(label=label, name=name, settings=plain, files=tuple(files(method)), code=code_of(kind))

    # Sections.

    def data(self) -> list[tuple[Place, DataSet]]:
        """Return the data sets, not read yet."""
        return [
            (place, DataSet(**table.model_dump(exclude={"label"}), label=table.label or Path(table.source).stem))
            for place, table in self.tables(DataTable, "data")
        ]

    def imperfections(self) -> list[Choice]:
        """Return the imperfections, one of which is none."""
        entries = self.raw.get("imperfections", [{}])
        if not isinstance(entries, list):
            self.complain(("imperfections",), "[[imperfections]] must be an array of tables")
            return []
        found = []
        for number, entry in enumerate(entries):
            place: Place = ("imperfections", number)
            if not isinstance(entry, dict):
                self.complain(place, "[[imperfections]] must be an array of tables")
                continue
            given = {name: value for name, value in entry.items() if name != "label"}
            settings = self.settings(Imperfections, given, place)
            if settings is None:
                continue
            label = entry.get(
                "label", ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in given.items())
            )
            choice = self.method(Imperfections, settings, place, name="imperfections", label=str(label))
            if choice is not None:
                found.append(choice)
        return found

    def attacks(self) -> list[Entry]:
        """Return the attacks, one entry for each rate."""
        found = []
        for place, table in self.tables(AttackTable, "attacks"):
            if table.name == NO_ATTACK:
                if table.set or table.rates:
                    self.complain(place, f"{NO_ATTACK!r} is no attack: it has neither rates nor settings")
                choice = Choice(label=table.label or "no attack", name=NO_ATTACK, settings={})
                found.append(Entry(choice=choice, kind=None, only=table.only, place=place))
                continue
            try:
                kind = attacks.find(table.name)
            except ForetasteError as error:
                self.complain((*place, "name"), str(error))
                continue
            settings = self.settings(kind, table.set, (*place, "set"))
            if table.rates is not None and "rate" in table.set:
                self.complain((*place, "rates"), "the rate is given twice, by rates and by set")
            if table.rates is not None and "rate" not in hyperparameters(kind):
                self.complain((*place, "rates"), f"the attack {table.name} has no rate")
            else:
                rates = list(dict.fromkeys(table.rates or []))
                if table.rates is not None and len(rates) < len(table.rates):
                    self.complain((*place, "rates"), "a rate is there twice")
                for rate in [{"rate": rate} for rate in rates] or [{}]:
                    label = table.label or table.name
                    given = {**(settings or {}), **rate}
                    if (one := self.method(kind, given, place, name=table.name, label=label)) and settings is not None:
                        found.append(Entry(choice=one, kind=kind, only=table.only, place=place))
        return found

    def networks(self) -> list[Entry]:
        """Return the networks, each with its training plan."""
        found = []
        for place, table in self.tables(MethodTable, "networks"):
            if table.name not in NETS:
                self.complain((*place, "name"), f"there is no net {table.name!r}; known: {', '.join(NETS)}")
                continue
            settings, label = self.settings(TrainingPlan, table.set, (*place, "set")), table.label or table.name
            if settings is None:
                continue
            choice = self.method(TrainingPlan, settings, place, name=table.name, label=label)
            if choice is not None:
                found.append(Entry(choice=choice, kind=None, only=table.only, place=place))
        return found

    def doors(self) -> dict[str, Door]:
        """Return the doors, with their conditions."""
        found, given = dict[str, Door](), self.raw.get("doors", {})
        if not isinstance(given, dict):
            self.complain(("doors",), "the conditions of a door are a table, [doors.NAME]")
            given = {}
        for name in given.keys() - DOORS.keys():
            self.complain(("doors", name), f"there is no door {name!r}; known: {', '.join(DOORS)}")
        for name, kind in DOORS.items():
            place: Place = ("doors", name)
            found[name] = kind()  # where its conditions are wrong, what else is wrong is still to be found
            if not isinstance(given.get(name, {}), dict):
                self.complain(place, f"the conditions of a door are a table, [doors.{name}]")
                continue
            settings = self.settings(kind, given.get(name, {}), place)
            if settings is not None and self.method(kind, settings, place) is not None:
                found[name] = kind(**settings)
        return found

    def defences(self, name: str, door: Door, oracle: bool) -> list[tuple[Entry, bool]]:
        """Return the methods of a door, and whether each is one that is told the poison rate."""
        found = []
        for place, table in self.tables(MethodTable, name):
            try:
                kind = door.find(table.name)
            except ForetasteError as error:
                self.complain((*place, "name"), str(error))
                continue
            settings = self.settings(kind, table.set, (*place, "set"))
            if settings is None:
                continue
            choice = self.method(kind, settings, place, name=table.name, label=table.label or table.name)
            if choice is None:
                continue
            given = frozenset(table.set)
            entry = Entry(choice=choice, kind=kind, only=table.only, place=place, given=given)
            found.append((entry, False))
            if oracle and ORACLE in hyperparameters(kind):
                found.append((entry, True))
        return found


def read(path: Path, sets: DataSets, on_progress: OnProgress = silent) -> Specification:
    """Read and check a specification, and read the data that it names.

    Args:
        path: the TOML file.
        sets: keeps the data.
        on_progress: told how the reading of the data goes on.

    Raises:
        UsageError: something is wrong with it; the message lists everything, by line.
        ForetasteError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        raise ForetasteError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {str(error)[0].lower()}{str(error)[1:]}") from None
    checker = Checker(raw)
    specification = compiled(checker, sets, on_progress)
    if checker.problems or specification is None:
        lines = lines_of(text)
        listed = sorted({(line_at(lines, place), message) for place, message in checker.problems})
        noun = "error" if len(listed) == 1 else f"{len(listed)} errors"
        raise UsageError(f"{noun} in {path}", details=[f"  line {line}: {message}" for line, message in listed])
    return specification


def compiled(checker: Checker, sets: DataSets, on_progress: OnProgress) -> Specification | None:
    """Return what the file asks for; what is wrong is noted with the checker, and then it may be None."""
    raw = checker.raw
    sections = {"data", "imperfections", "attacks", "networks", "doors", "resources", *DOORS, *Head.model_fields}
    for name in raw.keys() - sections:
        checker.complain((name,), f"there is no entry {name!r}; known: {', '.join(sorted(sections))}")
    head = checker.table(Head, {name: raw[name] for name in Head.model_fields if name in raw}, ())
    if head is not None and len(set(head.seeds)) < len(head.seeds):
        checker.complain(("seeds",), "a seed is there twice")
    resources_ = checker.table(Resources, raw.get("resources", {}), ("resources",))
    data, imperfections = checker.data(), checker.imperfections()
    attackers, networks, doors = checker.attacks(), checker.networks(), checker.doors()
    defences = {name: checker.defences(name, door, head is not None and head.oracle) for name, door in doors.items()}
    for section in ("data", "attacks", "networks"):
        if not raw.get(section):
            checker.complain((), f"there is no [[{section}]]")
    if not any(raw.get(name) for name in DOORS):
        checker.complain((), f"there is no defence: no {', '.join(f'[[{name}]]' for name in DOORS)}")
    check_labels(checker, data, attackers, networks, defences)
    entries = [*attackers, *networks, *(entry for found in defences.values() for entry, _ in found)]
    check_restrictions(checker, entries, {one.label for _, one in data}, {one.choice.label for one in networks})
    check_combinations(checker, attackers, doors, defences)
    whole = [(place, counted(checker, one, place, sets, on_progress)) for place, one in data]
    check_samples(checker, whole, sets, networks, doors, defences)
    check_attacks(checker, whole, sets, attackers, imperfections, 0 if head is None else head.seeds[0])
    if checker.problems or head is None or resources_ is None:
        return None
    cells = tuple(
        Cell(
            data=one,
            imperfections=imperfection,
            attack=None if attack.kind is None else attack.choice,
            network=network.choice,
            door=name,
            conditions=plain_settings(door),
            defence=defence.on(network.choice),
            oracle=oracle,
            seed=seed,
        )
        for (_, one), imperfection, attack, network in product(whole, imperfections, attackers, networks)
        if one is not None
        for name, door in doors.items()
        for defence, oracle in defences[name]
        for seed in head.seeds
        if all(applies(entry.only, one.label, network.choice.label, name) for entry in (attack, network, defence))
        and not (oracle and attack.kind is None)
    )
    if not cells:
        checker.complain((), "nothing is left to measure: the restrictions (only) exclude one another")
        return None
    for title, count in Counter(cell.title() for cell in cells).items():
        if count > 1:
            checker.complain((), f"{count} cells are called {title!r}; tell them apart by labels")
            return None
    key = digest(sorted(cell.key for cell in cells))
    return Specification(title=head.title, key=key, cells=cells, resources=resources_)


def applies(only: Only, data: str, network: str, door: str) -> bool:
    """Return whether a restriction lets a data set, a network and a door through."""
    return all(
        names is None or name in names
        for names, name in ((only.data, data), (only.networks, network), (only.doors, door))
    )


def check_labels(
    checker: Checker,
    data: Sequence[tuple[Place, DataSet]],
    attackers: Sequence[Entry],
    networks: Sequence[Entry],
    defences: Mapping[str, Sequence[tuple[Entry, bool]]],
) -> None:
    """Complain of labels that do not tell rows apart."""
    named: dict[str, list[tuple[Place, object]]] = {
        "data sets": [(place, one.label) for place, one in data],
        "networks": [(one.place, one.choice.label) for one in networks],
        "attacks": [
            (one.place, (one.choice.label, one.choice.settings.get("rate"), str(one.only))) for one in attackers
        ],
    }
    for name, found in defences.items():
        named[name] = [(one.place, (one.choice.label, str(one.only))) for one, oracle in found if not oracle]
    for what, labels in named.items():
        counts = Counter(label for _, label in labels)
        for place, label in labels:
            if counts[label] > 1:
                text = label[0] if isinstance(label, tuple) else label
                checker.complain(place, f"two {what} are called {text!r}; give one of them another label")


def check_restrictions(checker: Checker, entries: Sequence[Entry], data: set[str], networks: set[str]) -> None:
    """Complain of restrictions to what is not there."""
    for entry in entries:
        for kind, names, known in (
            ("data", entry.only.data, data),
            ("networks", entry.only.networks, networks),
            ("doors", entry.only.doors, set(DOORS)),
        ):
            for name in set(names or ()) - known:
                listed = ", ".join(sorted(known)) or "none"
                checker.complain((*entry.place, "only"), f"only.{kind} names {name!r}, and there are: {listed}")


def check_combinations(
    checker: Checker,
    attackers: Sequence[Entry],
    doors: Mapping[str, Door],
    defences: Mapping[str, Sequence[tuple[Entry, bool]]],
) -> None:
    """Complain of attacks that a door's methods cannot be tried on."""
    for attack, (name, door) in product(attackers, doors.items()):
        if attack.only.doors is not None and name not in attack.only.doors:
            continue
        others = [other for other in DOORS if other != name]
        for defence, _ in defences[name]:
            if meet(attack, defence) and (reason := door.refuses(attack.kind, defence.method)) is not None:
                checker.complain(
                    attack.place,
                    f"{attack.choice.name} {reason}; keep it from the {name} by only = {{ doors = {others} }}",
                )


def meet(one: Entry, other: Entry) -> bool:
    """Return whether two entries meet on a data set and a network."""
    return all(
        mine is None or theirs is None or not set(mine).isdisjoint(theirs)
        for mine, theirs in ((one.only.data, other.only.data), (one.only.networks, other.only.networks))
    )


def counted(checker: Checker, data: DataSet, place: Place, sets: DataSets, on_progress: OnProgress) -> DataSet | None:
    """Read a data set and return it with its digest and its size, or None after noting what is wrong with it."""
    try:
        train, test = sets.read(data, on_progress)
    except ForetasteError as error:
        checker.complain((*place, "source"), str(error))
        return None
    if data.clean >= len(test):
        checker.complain((*place, "clean"), f"clean takes {data.clean} of {len(test)} test samples, and leaves none")
    total = len(train)
    part, _ = sets.used(data)
    enough = int(np.count_nonzero(np.bincount(part.labels) >= FEWEST))
    if enough < 2:
        reason = f"{len(part)} of {total} training samples leave {enough} classes of {FEWEST} or more; two are needed"
        checker.complain((*place, "limit" if data.limit is not None else "share"), reason)
    return data.model_copy(update={"content": sets.content(data), "total": total, "used": used(data, total)})


def check_samples(
    checker: Checker,
    data: Sequence[tuple[Place, DataSet | None]],
    sets: DataSets,
    networks: Sequence[Entry],
    doors: Mapping[str, Door],
    defences: Mapping[str, Sequence[tuple[Entry, bool]]],
) -> None:
    """Complain of networks and doors that do not take a data set's samples, and of clean sets that are too small."""
    for place, one in data:
        if one is None:
            continue
        train, _ = sets.read(one)
        for network in (entry for entry in networks if entry.takes(one)):
            try:
                outline(network.choice.name, train.sample_shape, train.classes, network.choice.settings["width"])
            except UsageError as error:
                checker.complain((*network.place, "name"), str(error))
        for name, door in doors.items():
            met = [entry for entry, _ in defences[name] if entry.takes(one)]
            if met and (reason := door.refuses_samples(train)):
                checker.complain(place, f"{one.label} {reason}; restrict the {name} to other data by only")
            for entry in met:
                if one.clean < (fewest := door.fewest_clean(entry.method)):
                    reason = f"{entry.choice.label} needs {fewest} clean samples or more, not {one.clean}"
                    checker.complain((*place, "clean"), reason)


def check_attacks(
    checker: Checker,
    data: Sequence[tuple[Place, DataSet | None]],
    sets: DataSets,
    attackers: Sequence[Entry],
    imperfections: Sequence[Choice],
    seed: int,
) -> None:
    """Complain of attacks that a data set does not fit, as it is before they poison it."""
    for (place, one), imperfection in product(data, imperfections):
        met = [] if one is None else [entry for entry in attackers if entry.kind is not None and entry.takes(one)]
        if one is None or not met:
            continue
        train, _ = sets.used(one)
        label = ", ".join(filter(None, (one.label, imperfection.label)))
        try:
            base = Imperfections(**imperfection.settings).apply(train, seed).samples
        except UsageError as error:
            checker.complain(place, f"{label}: {error}")
            continue
        for entry in met:
            attack: Attack = built(entry.method, entry.choice.settings)
            if not one.clean and isinstance(attack, TrojansModel):
                reason = f"{entry.choice.label} needs a clean set, to train the model on with"
                checker.complain((*place, "clean"), reason)
            numbers = {role: getattr(attack, role, None) for role in ("target", "source")}
            absent = {role: n for role, n in numbers.items() if type(n) is int and n >= len(train.classes)}
            for role, number in absent.items():
                reason = f"{role} {number} is not one of the {len(train.classes)} classes of {one.label}"
                checker.complain((*entry.place, "set", role), reason)
            if not absent and (misfit := misfit_of(attack, base)) is not None:
                checker.complain(entry.place, f"{entry.choice.label} cannot be tried on {label}: {misfit}")


def misfit_of(attack: Attack, samples: Samples) -> str | None:
    """Say why an attack cannot be tried on a training set, as far as that shows before anything is trained."""
    try:
        if isinstance(attack, TrojansModel):
            # Its check wants the model. Of an empty trained part it complains, too, but not as of wrong samples.
            with_weights(attack, {}).stamp(samples.inputs[:1], np.random.default_rng(0))
        elif isinstance(attack, Trainable):
            attack.check(samples)
        else:
            attack.stamp(samples.inputs[:1], np.random.default_rng(0))
    except UsageError as error:
        return str(error)
    except Exception:  # whatever a third party's attack may raise; its cells will say so
        return None
    return None


def within(value: Any, place: Place) -> Place:
    """Return the part of pydantic's place of an error that leads into the value; behind it stand kinds of a union."""
    reached: list[str | int] = []
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError):  # what is missing
            return (*reached, part)
        except TypeError:
            break
        reached.append(part)
    return tuple(reached)


def described(where: Place, message: str) -> str:
    """Word one of pydantic's complaints as the others are."""
    name = ".".join(str(part) for part in where)
    if message == "Extra inputs are not permitted":
        return f"there is no entry {name!r}"
    if message == "Field required":
        return f"{name} is missing"
    return f"{name}: {message[0].lower()}{message[1:]}"


def shipped() -> list[str]:
    """Return the names of the specifications that come with foretaste."""
    folder = resources.files("foretaste.bench") / "specs"
    return sorted(file.name for file in folder.iterdir() if file.name.endswith(".toml"))


def find(name: str) -> Path:
    """Return the file of a specification: one of the user's, or else a shipped one of this name.

    Raises:
        UsageError: there is none.
    """
    if (path := Path(name)).is_file():
        return path
    if re.fullmatch(r"[\w-]+\.toml", name) and name in shipped():
        return Path(str(resources.files("foretaste.bench") / "specs" / name))
    raise UsageError(f"there is no file {name}; shipped with foretaste: {', '.join(shipped())}")
