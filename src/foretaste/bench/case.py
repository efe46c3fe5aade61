"""What a defence is tried on: a data set, what an attack made of it, and the model that was trained on that.

Everything is made when it is first asked for, and kept in the store under the hash of what it follows from.
"""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste import attacks, io, training
from foretaste.attacks import Attack, Trainable, TrojansModel
from foretaste.attacks._base.attack import succeeded
from foretaste.attacks._base.fitting import arrays, with_weights
from foretaste.bench.artefacts import Artefact, Store
from foretaste.bench.cell import Cell, DataSet, digest
from foretaste.bench.methods import built
from foretaste.bench.provenance import commit
from foretaste.errors import ForetasteError, UsageError
from foretaste.io.named import NAMES
from foretaste.nets import Net, build
from foretaste.nets.export import save
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Labels, Mask, Samples

WEIGHTS = "weights."
"""What stands before the names of the arrays that an attack has learnt, in the artefact of the poisoned set."""


@dataclass(eq=False)
class Stopwatch:
    """Seconds of a block: on the clock, and of all processors together.

    Attributes:
        wall: seconds on the clock.
        cpu: seconds of processor time, of this process and of those that it waited for.
    """

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure a block."""
        began, used = time.perf_counter(), sum(os.times()[:4])
        yield
        self.wall, self.cpu = time.perf_counter() - began, sum(os.times()[:4]) - used


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model and how it did.

    Attributes:
        net: in evaluation mode, on the CPU.
        accuracy: share of clean test inputs that it is right on, in [0, 1].
        attack_success: share of the attack's victims in the test set that get the forced label, in [0, 1]; None without
            an attack.
        seconds: what the training took on the clock.
        cpu_seconds: what it took of all processors.
    """

    net: Net
    accuracy: float
    attack_success: float | None
    seconds: float
    cpu_seconds: float


@dataclass(eq=False)
class DataSets:
    """The data sets of a benchmark, each read once."""

    loaded: dict[str, tuple[Samples, Samples]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def read(self, data: DataSet, on_progress: OnProgress = silent) -> tuple[Samples, Samples]:
        """Return the training and the test set, whole.

        Raises:
            UsageError: a source does not exist, or the two do not fit together.
            ForetasteError: a source is damaged.
        """
        key = digest([data.source, data.test, data.resize])
        if key not in self.loaded:
            self.loaded[key] = read_sets(data, on_progress)
        return self.loaded[key]

    def used(self, data: DataSet, on_progress: OnProgress = silent) -> tuple[Samples, Samples]:
        """Return the share of the training set that is used, in its order, and the whole test set.

        Raises:
            ForetasteError: the data are not those that the cell was named by, on another machine, say.
        """
        train, test = self.read(data, on_progress)
        if data.content and self.content(data) != data.content:
            raise ForetasteError(f"{data.source} and its test set are not here what they were when the run was planned")
        count = used(data, len(train))
        if count < len(train):
            train, _ = train.split(count, np.random.default_rng(0))
        return train, test

    def content(self, data: DataSet) -> str:
        """Return a digest of the training and the test set, whole."""
        key = digest([data.source, data.test, data.resize])
        if key not in self.digests:
            self.digests[key] = content(*self.read(data))
        return self.digests[key]


def used(data: DataSet, total: int) -> int:
    """Return how many of so many training samples are used."""
    count = round(data.share * total)
    return count if data.limit is None else min(count, data.limit)


def read_sets(data: DataSet, on_progress: OnProgress) -> tuple[Samples, Samples]:
    """Read a training and a test set.

    ``cifar10`` and ``gtsrb`` are taken from the folder that the environment variable FORETASTE_DATA names, if it holds
    them as ``NAME-train.parquet`` and ``NAME-test.parquet``; else they are fetched. Paths may name environment
    variables: ``$FORETASTE_DATA/clamp.csv``.

    Raises:
        UsageError: a source does not exist, there is no test set, or the two do not fit together.
        ForetasteError: a source is damaged.
    """
    source, test = os.path.expandvars(data.source), data.test
    if isinstance(test, str):
        test = os.path.expandvars(test)
    if source in NAMES and test is None:
        test = source
        if folder := os.environ.get("FORETASTE_DATA"):
            local = [Path(folder) / f"{source}-{split}.parquet" for split in io.named.SPLITS]
            if all(path.exists() for path in local):
                source, test = map(str, local)
    loaded = io.read(source, resize=data.resize, on_progress=on_progress)
    whole = loaded.samples
    if isinstance(test, float):
        rest, held_out = whole.split(round((1 - test) * len(whole)), np.random.default_rng(0))
        return rest, held_out
    if test is None:
        raise UsageError(f"{source} has no test set of its own; name one by test, or a share to split off")
    held_out = io.read(
        test, default_split="test", resize=data.resize, use="compare", like=loaded, on_progress=on_progress
    ).samples
    if held_out.classes != whole.classes or held_out.sample_shape != whole.sample_shape:
        raise UsageError(f"{test} has other classes or another input shape than {source}")
    return whole, held_out


def content(*parts: Samples) -> str:
    """Return a digest of all inputs, labels, ids and class names."""
    hashed = hashlib.sha256()
    for samples in parts:
        hashed.update(repr((samples.classes, samples.inputs.shape)).encode())
        hashed.update(np.ascontiguousarray(samples.labels).data)
        hashed.update(samples.ids.tobytes())
        for start in range(0, len(samples), 1000):
            hashed.update(np.ascontiguousarray(samples.inputs[start : start + 1000]).data)
    return hashed.hexdigest()[:24]


def trojans_model(cell: Cell) -> bool:
    """Return whether the victim is made by the attack, of a model that was trained on the unpoisoned set."""
    return cell.attack is not None and issubclass(attacks.find(cell.attack.name), TrojansModel)


class Case:
    """What a cell's defence is given to work with, and judged on.

    Attributes:
        cell: the cell.
        store: where artefacts are kept.
        on_progress: told how the work goes on.
    """

    def __init__(self, cell: Cell, store: Store, sets: DataSets, on_progress: OnProgress = silent) -> None:
        self.cell, self.store, self.on_progress = cell, store, on_progress
        self._sets = sets
        self._shared_commits, self._own_commits = {commit()}, set[str]()

    @property
    def commits(self) -> set[str]:
        """The commits of the code that made what the cell was measured on so far, and that measures it."""
        return self._shared_commits | self._own_commits

    # The data.

    @cached_property
    def base(self) -> Samples:
        """The training set before it is poisoned, imperfections included."""
        train, _ = self._sets.used(self.cell.data, self.on_progress)
        return self.cell.imperfect().apply(train, self.cell.seed).samples

    @cached_property
    def _test_parts(self) -> tuple[Samples, Samples]:
        _, test = self._sets.used(self.cell.data, self.on_progress)
        return test.split(self.cell.data.clean, np.random.default_rng([self.cell.seed, 3]))

    @property
    def clean(self) -> Samples | None:
        """The clean set of the defence, or None if it is given none."""
        return self._test_parts[0] if self.cell.data.clean else None

    @property
    def test(self) -> Samples:
        """The test samples that models are judged on; no defence sees them."""
        return self._test_parts[1]

    # The attack.

    @cached_property
    def _poisoned(self) -> Artefact:
        # What an attack on a model learns depends on the model, too.
        key = self.cell.victim_key if trojans_model(self.cell) else self.cell.set_key
        return self.once("poisoned", key, self._poison)

    def _poison(self) -> Artefact:
        attack, watch = self._untrained_attack(), Stopwatch()
        with watch.running():
            if isinstance(attack, TrojansModel):
                attack = attacks.fitted(self._with_model(attack), self._trusted(), self.cell.seed, self.on_progress)
                rows = np.empty(0, dtype=np.int64)
                found = {"rows": rows, "inputs": self.base.inputs[rows], "labels": self.base.labels[rows]}
                poison = cover = np.zeros(len(self.base), dtype=np.bool_)
            else:
                attack = attacks.fitted(attack, self.base, self.cell.seed, self.on_progress)
                poisoned = attacks.poison_training_set(self.base, attack, self.cell.seed)
                poison, cover = poisoned.poison, poisoned.cover
                rows = np.flatnonzero(poison | cover)
                changed = poisoned.samples[rows]
                found = {"rows": rows, "inputs": changed.inputs, "labels": changed.labels}
        if isinstance(attack, Trainable) and attack.weights is not None:
            found |= {f"{WEIGHTS}{name}": array for name, array in attack.weights.items()}
        facts = {"seconds": watch.wall, "cpu_seconds": watch.cpu}
        return Artefact({**found, "poison": poison, "cover": cover}, facts)

    def _untrained_attack(self) -> Attack:
        assert self.cell.attack is not None
        attack: Attack = built(attacks.find(self.cell.attack.name), self.cell.attack.settings)
        return attack

    def _trusted(self) -> Samples:
        """Return what an attack on a model trains it on with: the clean set that the defence is given, too.

        Its ``rate`` of these very images gets the trigger and the target label. So such a victim has learnt the images
        that the defence takes for unseen, a part of them under a wrong label, with the trigger.
        """
        if self.clean is None:
            raise UsageError("an attack on a model needs a clean set, to train the model on with")
        return self.clean

    def _with_model(self, attack: Any) -> Any:
        """Return an attack on a model with one that was trained on the unpoisoned set, as a file.

        The file is in the same place each time, for that is part of the name under which the attack's trained part is
        cached; it stays there until the work on the set is forgotten, for other workers may read it.
        """
        path = self.workdir() / f"model-{self.cell.victim_key}.safetensors"
        save(self.unpoisoned(self.cell.seed).victim.net, path)
        given = replace(attack, model=path)
        return given if attack.weights is None else with_weights(given, attack.weights)

    @cached_property
    def attack(self) -> Attack | None:
        """The attack with its trained part, or None."""
        if self.cell.attack is None:
            return None
        learnt = {
            name.removeprefix(WEIGHTS): array
            for name, array in self._poisoned.arrays.items()
            if name.startswith(WEIGHTS)
        }
        attack = self._untrained_attack()
        return with_weights(attack, learnt) if learnt else attack

    @cached_property
    def samples(self) -> Samples:
        """The training set as the attack left it."""
        if self.cell.attack is None:
            return self.base
        inputs, labels = np.array(self.base.inputs), self.base.labels.copy()
        changed = self._poisoned.arrays
        inputs[changed["rows"]], labels[changed["rows"]] = changed["inputs"], changed["labels"]
        kind = "features" if self.base.images is None else "images"
        return Samples(labels, self.base.classes, self.base.ids, **{kind: inputs})

    @property
    def poison(self) -> Mask:
        """``bool (N,)``, samples that plant the backdoor."""
        return self._mask("poison")

    @property
    def cover(self) -> Mask:
        """``bool (N,)``, samples that carry the trigger under their true label."""
        return self._mask("cover")

    def _mask(self, name: str) -> Mask:
        if self.cell.attack is None:
            return np.zeros(len(self.base), dtype=np.bool_)
        mask: Mask = self._poisoned.arrays[name]
        return mask

    # The models.

    @cached_property
    def victim(self) -> Model:
        """The model that is trained on the set, or that the attack made. Methods share it, and change only copies."""
        attack: object = self.attack
        if isinstance(attack, TrojansModel):
            net, facts = self._with_model(attack).trojaned(), self._poisoned.facts
            return Model(net, *self.judge(net), facts["seconds"], facts["cpu_seconds"])
        return self._trained(self.cell.victim_key, self.samples)

    def retrained(self, flagged: Mask) -> Model:
        """Return the model that is trained on what was not flagged, ``bool (N,)``.

        Raises:
            UsageError: fewer than two classes are left.
        """
        if not flagged.any():
            return self.victim
        return self._trained(digest([self.cell.victim_key, np.flatnonzero(flagged).tolist()]), self.samples[~flagged])

    def _trained(self, key: str, samples: Samples) -> Model:
        network = self.cell.network

        def train() -> Artefact:
            self.trojaned  # noqa: B018, made before the training, which would be in vain if it cannot be
            watch = Stopwatch()
            work = self.store.workdir(f"model-{key}")
            with watch.running():
                net = training.train(
                    samples,
                    net=network.name,
                    plan=training.TrainingPlan(**network.settings),
                    seed=self.cell.seed,
                    workdir=work,
                    on_progress=self.on_progress,
                ).net
            self.store.forget(work.name)
            accuracy, success = self.judge(net)
            facts = {"accuracy": accuracy, "attack_success": success, "width": net.width}
            return Artefact(arrays(net), facts | {"seconds": watch.wall, "cpu_seconds": watch.cpu})

        kept = self.once("model", key, train)
        facts = kept.facts
        net = build(
            network.name,
            samples.sample_shape,
            samples.classes,
            generator=torch.Generator(),
            width=facts["width"],
        )
        net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in kept.arrays.items()})
        net.channels_last()
        return Model(net.eval(), facts["accuracy"], facts["attack_success"], facts["seconds"], facts["cpu_seconds"])

    def judge(self, net: Net) -> tuple[float, float | None]:
        """Return a model's accuracy on clean test inputs, and the attack's success on trojaned ones."""
        return training.accuracy(net, self.test), self.success(training.predict(net, self.trojaned[0]).argmax(axis=1))

    def success(self, answers: Labels) -> float | None:
        """Return the share of the trojaned inputs on which the attack succeeded, in [0, 1]; None without an attack."""
        _, victims = self.trojaned
        if self.attack is None:
            return None
        return float(succeeded(self.attack, answers, self.test.labels[victims], len(self.test.classes)).mean())

    @cached_property
    def trojaned(self) -> tuple[Images, Mask]:
        """The attack's victims in the test set, each with the trigger, and which of the test set they are."""
        if self.attack is None:
            return self.test.inputs[:0], np.zeros(len(self.test), dtype=np.bool_)
        stamped, mask = attacks.stamp_inputs(self.test, self.attack, 1.0, self.cell.seed)
        return stamped.inputs[mask], mask

    # What doors use.

    def sharing(self, cell: Cell) -> Case:
        """Return the case of another cell on the same poisoned set and model, with what this one has in memory."""
        other = copy.copy(self)
        other.cell, other._own_commits = cell, set()
        return other

    def unpoisoned(self, seed: int) -> Case:
        """Return the case of the same set and network with this seed and without the attack.

        What it is made of, this one's figures depend on, too; so they have their commits in common.
        """
        other = Case(
            self.cell.model_copy(update={"attack": None, "seed": seed}), self.store, self._sets, self.on_progress
        )
        other._shared_commits, other._own_commits = self._shared_commits, self._own_commits
        return other

    def cell_file(self, name: str) -> str:
        """Return where a file of the cell's own goes in the store."""
        return f"cells/{self.cell.key}/{name}"

    def workdir(self) -> Path:
        """Return the folder that all methods share that are tried on this poisoned set, for what they keep."""
        return self.store.workdir(f"set-{self.cell.set_key}")

    def forget_work(self) -> None:
        """Remove that folder, when no method will be tried on the set any more."""
        self.store.forget(f"set-{self.cell.set_key}")

    def once(self, kind: str, key: str, make: Callable[[], Artefact]) -> Artefact:
        """Return an artefact of the store, made if it is not there, and note the commit that made it."""

        def stamped() -> Artefact:
            made = make()
            return Artefact(made.arrays, {**made.facts, "commit": commit()})

        kept = self.store.once(kind, key, stamped)
        shared = key in (self.cell.set_key, self.cell.victim_key)
        (self._shared_commits if shared else self._own_commits).add(kept.facts["commit"])
        return kept
