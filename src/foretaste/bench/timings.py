"""How long things take, from what earlier runs on this machine took; else from what shipped figures say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from foretaste.bench.artefacts import Store, artefact_name
from foretaste.bench.case import trojans_model
from foretaste.bench.cell import Cell
from foretaste.bench.doors import MODEL_SECONDS, Effort, opened
from foretaste.bench.records import Record
from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_json
from foretaste.io.cache import cache_dir

FILE = "bench-seconds.json"
"""In the cache: what earlier runs took. In the package: what they took on another machine."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is left to do, in time.

    Attributes:
        seconds: of all that something is known about.
        foreign: whether some of it was measured on another machine only.
        unknown: names of methods and networks that nothing is known about.
    """

    seconds: float
    foreign: bool
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Timings:
    """Seconds for one sample, by what is done with it: "cleansers/NAME", or "train/NETWORK" for one pass.

    Attributes:
        own: measured on this machine.
        shipped: measured on another one.
    """

    own: Mapping[str, float]
    shipped: Mapping[str, float]

    @classmethod
    def load(cls) -> Timings:
        """Return what is known."""
        shipped = json.loads((resources.files("foretaste.bench") / FILE).read_text(encoding="utf-8"))
        try:
            own = json.loads((cache_dir() / FILE).read_bytes())
        except (OSError, ValueError):
            own = {}
        return cls(own if isinstance(own, dict) else {}, shipped["seconds"])

    def save(self) -> None:
        """Keep what was measured on this machine; if the cache cannot be written, the next plan knows less."""
        try:
            atomic_json(cache_dir() / FILE, dict(sorted(self.own.items())))
        except ForetasteError:
            return

    def with_record(self, record: Record) -> Timings:
        """Return the timings with what a cell took."""
        cell, own = record.cell, dict(self.own)
        if (seconds := record.figures.get("seconds")) is not None:
            own[f"{cell.door}/{cell.defence.name}"] = seconds / effort(cell).samples
        # Those of a victim that an attack made of a trained model say nothing of other trainings.
        if (seconds := record.figures.get(MODEL_SECONDS)) is not None and not trojans_model(cell):
            own[f"train/{cell.network.name}"] = seconds / (cell.data.used * cell.network.settings["epochs"])
        return Timings(own, self.shipped)

    def expect(self, cells: Sequence[Cell], store: Store) -> Expected:
        """Return how long cells will take, one after the other."""
        total, foreign, unknown = 0.0, False, dict[str, None]()
        trained: set[tuple[str, str]] = set()
        for cell in cells:
            passes = cell.data.used * cell.network.settings["epochs"]
            trained_on = cell.model_copy(update={"attack": None}) if trojans_model(cell) else cell
            key, needed = trained_on.victim_key, effort(cell)
            trainings = needed.trainings
            if needed.model and ("model", key) not in trained:
                trainings += not store.exists(artefact_name("model", key))
                trained.add(("model", key))
            if needed.classifier and (cell.door, key) not in trained:
                trainings += 1
                trained.add((cell.door, key))
            work = (
                (f"{cell.door}/{cell.defence.name}", needed.samples),
                (f"train/{cell.network.name}", trainings * passes),
            )
            for name, size in work:
                foreign |= name not in self.own
                each = self.own.get(name, self.shipped.get(name))
                if each is None:
                    unknown[name.partition("/")[2]] = None
                else:
                    total += each * size
        return Expected(seconds=total, foreign=foreign, unknown=tuple(unknown))


def effort(cell: Cell) -> Effort:
    """Return what a cell's method has to do."""
    door = opened(cell.door, cell.conditions)
    return door.effort(door.find(cell.defence.name), cell.data.used)
