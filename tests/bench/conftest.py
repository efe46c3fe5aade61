import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.bench import runner, specification
from foretaste.bench.artefacts import Store
from foretaste.bench.case import DataSets
from foretaste.bench.records import Record
from foretaste.bench.specification import Specification

Name = tuple[str | None, str, bool]
"""Attack, method, whether it is an oracle."""

METHODS = '''
"""Methods that know where the trigger is, or fail, and that say when they run."""
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from foretaste.cleansers.verdict import ClassEvidence, Verdict

RUNS = Path(__file__).with_name("runs.txt")


@dataclass(frozen=True, kw_only=True)
class Corner:
    """Flags images that have the chequered patch in their corner."""

    name: ClassVar[str] = "corner"
    summary: ClassVar[str] = "the patch in the corner"
    size: int = 3

    def inspect(self, samples, clean, *, seed, workdir, on_progress):
        with RUNS.open("a") as file:
            file.write("corner\\n")
        corner = samples.inputs[:, -self.size :, -self.size :, 0].astype(float)
        bright = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]])
        scores = -np.abs(corner - 255 * bright).mean(axis=(1, 2)).astype(np.float32)
        return self.verdict(samples, scores, scores == 0, seed)

    def verdict(self, samples, scores, flagged, seed):
        evidence = []
        for label in range(len(samples.classes)):
            members = samples.labels == label
            n = int(flagged[members].sum())
            evidence.append(
                ClassEvidence(
                    label=label, n_samples=int(members.sum()), n_suspects=n, n_flagged=n, statistic=float(n),
                    threshold=1.0, condemned=n > 0, reason=f"{n} samples have the patch",
                )
            )
        return Verdict(
            scores=scores, flagged=flagged, classes=tuple(evidence), method=self.name, seed=seed, seconds=0.0
        )


@dataclass(frozen=True, kw_only=True)
class Rated(Corner):
    """Flags as many as it is told to expect, at random."""

    name: ClassVar[str] = "rated"
    expected_rate: float = 0.5

    def inspect(self, samples, clean, *, seed, workdir, on_progress):
        scores = np.random.default_rng(seed).random(len(samples)).astype(np.float32)
        flagged = np.zeros(len(samples), dtype=bool)
        flagged[np.argsort(-scores)[: round(self.expected_rate * len(samples))]] = True
        return self.verdict(samples, scores, flagged, seed)


@dataclass(frozen=True, kw_only=True)
class Broken(Corner):
    """Fails."""

    name: ClassVar[str] = "broken"

    def inspect(self, samples, clean, *, seed, workdir, on_progress):
        raise ZeroDivisionError("no such luck")


@dataclass(frozen=True, kw_only=True)
class Looker(Corner):
    """Takes a while to train what it looks into, the first time."""

    cutoff: float = 0.0
    net: str | None = None
    epochs: int = 10
    width: int | None = None
    batch_size: int = 128

    def victim(self, samples, seed, workdir, on_progress):
        kept = workdir / f"{self.net}-{self.epochs}-{self.width}"
        if not kept.exists():
            time.sleep(0.2 + 0.01 * self.epochs)
            kept.touch()

    def inspect(self, samples, clean, *, seed, workdir, on_progress):
        self.victim(samples, seed, workdir, on_progress)
        return super().inspect(samples, clean, seed=seed, workdir=workdir, on_progress=on_progress)
'''

SPEC = """
title = "Three methods"
oracle = true

[[data]]
source = "train.npz"
test = "test.npz"
label = "tiny signs"
limit = 200
clean = 40

[[attacks]]
name = "none"

[[attacks]]
name = "badnets"
rates = [0.1]
set = { size = 0.2, target = 1 }

[[networks]]
name = "compact-resnet"
set = { epochs = 1, width = 4, batch_size = 50 }

[[cleansers]]
name = "bench_methods:Corner"
label = "corner"

[[cleansers]]
name = "bench_methods:Rated"
label = "rated"

[[cleansers]]
name = "bench_methods:Broken"
label = "broken"
only = { networks = ["compact-resnet"] }
"""


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        folder: where it was run; the store is "out" in it.
        specification: what was to be measured.
        records: what was measured, by attack, method, and whether it is an oracle.
    """

    folder: Path
    specification: Specification
    records: dict[Name, Record]


@pytest.fixture(scope="session")
def finished(small_signs: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Run the specification in a folder of its own, which also holds the module ``bench_methods``."""
    folder = tmp_path_factory.mktemp("bench")
    for name, n, seed in (("train", 240, 0), ("test", 120, 1)):
        signs = small_signs(n, seed)
        np.savez(folder / f"{name}.npz", x=signs.inputs, y=signs.labels % 4)
    (folder / "bench_methods.py").write_text(METHODS)
    (folder / "runs.txt").touch()
    (folder / "spec.toml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("FORETASTE_CACHE", str(folder / "cache"))
        wanted, records = run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield Finished(folder, wanted, records)


@pytest.fixture
def place(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a copy of the folder, with what the run left."""
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("FORETASTE_CACHE", str(copy / "cache"))
    return copy


def run(folder: Path, out: str = "out") -> tuple[Specification, dict[Name, Record]]:
    """Run the folder's specification; return it and what was measured now."""
    sets = DataSets()
    wanted = specification.read(folder / "spec.toml", sets)
    records = runner.run(wanted, Store(str(folder / out)), sets)
    return wanted, {named(record): record for record in records}


def named(record: Record) -> Name:
    """Name a record."""
    cell = record.cell
    return None if cell.attack is None else cell.attack.name, cell.defence.label, cell.oracle
