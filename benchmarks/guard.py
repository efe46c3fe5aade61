"""Measure NEO on backdoored models: detection, false alarms, corrected answers, reconstruction, queries and time.

Run as ``python benchmarks/guard.py`` with FORETASTE_DATA naming the folder of the data sets. For each data set,
network, backdoor and seed, a model is trained on a poisoned set; the guard, calibrated on clean images, then screens
streams of which 1 %, 10 % and 50 % carry the trigger. The guard is told neither the trigger nor its size, place or
target. Results are kept in ``benchmarks/results/guard.json``, one entry per case; a case that is there already is not
run again, so a stopped benchmark goes on. ``--method neo-paper`` compares the paper's exhaustive search, told the
trigger's size, with ours on the same inputs, and keeps ``benchmarks/results/guard-paper.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from digits import draw_digits
from record import RESULTS, head

from foretaste import Guard, io
from foretaste.attacks import BadNets, BadNetsAllToAll, TrojanNN, fitted, poison_training_set, succeeded
from foretaste.attacks._base.attack import Attack
from foretaste.classifiers.torch_module import TorchModule
from foretaste.guards.guard import Screening
from foretaste.guards.neo import NEO, NEOPaper
from foretaste.guards.neo.registry import Registry
from foretaste.guards.neo.screener import NEOScreener
from foretaste.io import atomic_json
from foretaste.nets import Net
from foretaste.nets.export import save
from foretaste.samples import Images, Labels, Mask, Samples
from foretaste.training import TrainingPlan, train

NETS = ("compact-resnet", "convnet")
SHARES = (0.01, 0.10, 0.50)
"""Trojaned share of a stream."""
FALSE_ALARM_RATE = 0.01
SEARCHED = 100
"""Trojaned and clean inputs whose first search is counted."""
STEADY = 2000
"""Inputs of the steady stream, in which the trigger is known already."""
PAPER_INPUTS = 10
"""Trojaned inputs for the comparison with the paper's search."""


@dataclass(frozen=True)
class Data:
    """How much of a data set is used, and how a model is trained on it.

    Attributes:
        train: training images at most.
        clean: images of the test set that calibrate the guard.
        inputs: images of the test set, other ones, that are screened.
        plan: how to train.
        least_rate: poison rate at least; small sets need more of it for the backdoor to be learnt.
        trojaning_steps: how long a trained network is trained on to trojan it.
    """

    train: int
    clean: int
    inputs: int
    plan: TrainingPlan
    least_rate: float = 0.02
    trojaning_steps: int = 200

    def part(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Return what a model is trained on, before it is poisoned."""
        return samples if len(samples) <= self.train else samples.split(self.train, rng)[0]


DATA = {
    "gtsrb": Data(train=10_000, clean=300, inputs=500, plan=TrainingPlan(epochs=6, shift=0)),
    "cifar10": Data(train=10_000, clean=300, inputs=500, plan=TrainingPlan(epochs=8, shift=0)),
    "signs": Data(train=4_000, clean=300, inputs=500, plan=TrainingPlan(epochs=20, shift=0), least_rate=0.1),
    "orl": Data(
        train=280,
        clean=60,
        inputs=60,
        plan=TrainingPlan(epochs=60, shift=0, batch_size=32),
        least_rate=0.2,
        trojaning_steps=50,
    ),
    "digits": Data(train=4_000, clean=300, inputs=500, plan=TrainingPlan(epochs=8, shift=0), least_rate=0.05),
}
PHOTOGRAPHS = ("gtsrb", "cifar10", "signs", "orl")


@dataclass(frozen=True)
class Backdoor:
    """A backdoor, and the data sets that it is tried on."""

    attack: BadNets | BadNetsAllToAll | TrojanNN
    data: tuple[str, ...] = PHOTOGRAPHS


BACKDOORS = {
    "corner 10 %": Backdoor(BadNets(size=0.10, rate=0.02, target=2), (*PHOTOGRAPHS, "digits")),
    "corner 2 %": Backdoor(BadNets(size=0.02, rate=0.20, target=2)),
    "corner 15 %": Backdoor(BadNets(size=0.15, rate=0.02, target=2)),
    "random place 10 %": Backdoor(BadNets(size=0.10, rate=0.10, target=2, place="random")),
    "half transparent anywhere 15 %": Backdoor(
        BadNets(size=0.15, rate=0.10, target=2, place="random", alpha=0.5), ("gtsrb", "signs")
    ),
    "all-to-all 10 %": Backdoor(BadNetsAllToAll(size=0.10, rate=0.50)),
    "trojan-nn square 25 %": Backdoor(TrojanNN(target=2, size=0.25), ("gtsrb", "orl")),
    "trojan-nn watermark 40 %": Backdoor(TrojanNN(target=2, size=0.4, alpha=0.3), ("gtsrb", "orl")),
}
"""The percentages are the patch's side in the image's. Weak triggers get more poison, so that the backdoor works."""


def main() -> None:
    """Run the cases that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=list(DATA), help=f"of {', '.join(DATA)}; all if left out")
    parser.add_argument("--backdoors", nargs="+", choices=BACKDOORS, default=list(BACKDOORS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", choices=["neo", "neo-paper"], default="neo")
    options = parser.parse_args()
    path = RESULTS / ("guard.json" if options.method == "neo" else "guard-paper.json")
    cases: dict[str, Any] = json.loads(path.read_text())["cases"] if path.exists() else {}
    for seed in options.seeds:
        for name in options.data:
            samples, test = sets(name)
            for net in NETS:
                for label in options.backdoors:
                    backdoor = BACKDOORS[label]
                    key = f"{name}, {net}, {label}, seed {seed}"
                    if key in cases or name not in backdoor.data:
                        continue
                    if options.method == "neo-paper" and label != "corner 10 %":
                        continue
                    attack = replace(backdoor.attack, rate=max(backdoor.attack.rate, DATA[name].least_rate))
                    setting = Setting.make(DATA[name], samples, test, net, attack, seed)
                    cases[key] = measure(setting, seed) if options.method == "neo" else compare(setting, seed)
                    print(key, json.dumps(cases[key]), flush=True)
                    atomic_json(path, {**head(), "cases": cases})


def sets(name: str) -> tuple[Samples, Samples]:
    """Return a training and a test set."""
    folder = Path(os.environ["FORETASTE_DATA"])
    if name == "signs":
        return io.draw_signs(DATA[name].train, seed=100), io.draw_signs(1000, seed=200)
    if name == "digits":
        return draw_digits(DATA[name].train, seed=100), draw_digits(1000, seed=200)
    if name == "orl":
        faces = io.load(folder / "orl-faces.parquet")
        return faces.split(DATA[name].train, np.random.default_rng(0))
    return io.load(folder / f"{name}-train.parquet"), io.load(folder / f"{name}-test.parquet")


@dataclass(frozen=True, eq=False)
class Setting:
    """A backdoored model and what it is asked.

    Attributes:
        net: the model.
        clean: images that calibrate the guard.
        inputs: images under their true labels.
        stamped: the same images, each with the trigger.
        boxes: where the trigger lies in each: ``int64 (N, 4)``, top, left, bottom, right.
        victims: which of them the trigger is meant to turn.
        attack: what they are stamped with.
    """

    net: Net
    clean: Samples
    inputs: Samples
    stamped: Images
    boxes: Labels
    victims: Mask
    attack: Attack

    @classmethod
    def make(cls, data: Data, samples: Samples, test: Samples, net: str, attack: Attack, seed: int) -> Setting:
        """Poison the set, train the model, and stamp the inputs."""
        rng = np.random.default_rng([seed, 77])
        part = data.part(samples, rng)
        if isinstance(attack, TrojanNN):
            attack = replace(attack, training_steps=data.trojaning_steps)
            attack, model = trojaned(attack, part, innocent(data, samples, net, seed), seed)
        else:
            model = train(poison_training_set(part, attack, seed).samples, net=net, plan=data.plan, seed=seed).net
        clean, rest = test.split(data.clean, rng)
        inputs = rest.split(min(data.inputs, len(rest)), rng)[0]

        def stamp(images: Images) -> Images:
            return attack.stamp(images, np.random.default_rng([seed, 78]))

        # On black and on white images together the patch shows whole.
        black = np.zeros_like(inputs.inputs)
        marked = ((stamp(black) != black) | (stamp(~black) != ~black)).any(axis=3)
        boxes = np.array([extent(mask) for mask in marked])
        return cls(model, clean, inputs, stamp(inputs.inputs), boxes, attack.victims(inputs.labels), attack)

    def turned(self, answers: Labels) -> Mask:
        """Return where these answers to the inputs are what the attacker wants: ``bool (N,)``."""
        return succeeded(self.attack, answers, self.inputs.labels, len(self.inputs.classes))


@lru_cache(maxsize=1)
def innocent(data: Data, samples: Samples, net: str, seed: int) -> Net:
    """Return a network trained on what a setting's is, without poison."""
    return train(data.part(samples, np.random.default_rng([seed, 77])), net=net, plan=data.plan, seed=seed).net


def trojaned(attack: TrojanNN, samples: Samples, model: Net, seed: int) -> tuple[TrojanNN, Net]:
    """Return the attack with its trigger, and the network that it makes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(model, path)
        attack = fitted(replace(attack, model=path), samples, seed)
        return attack, attack.trojaned()


def extent(mask: Mask) -> tuple[int, int, int, int]:
    """Return the box around what is marked: top, left, bottom, right."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def measure(setting: Setting, seed: int) -> dict[str, Any]:
    """Return the figures of one case."""
    classifier = TorchModule(setting.net)
    inputs, victims = setting.inputs, setting.victims
    natural = classifier.classify(inputs.inputs).labels
    triggered = classifier.classify(setting.stamped).labels
    case: dict[str, Any] = {
        "accuracy": share(natural == inputs.labels),
        "attack_success": share(setting.turned(triggered)[victims]),
        "streams": {},
    }
    order = np.random.default_rng([seed, 79]).permutation(np.flatnonzero(victims))
    for part in SHARES:
        trojaned = np.zeros(len(inputs), dtype=np.bool_)
        trojaned[order[: max(round(part * len(inputs)), 1)]] = True
        images = np.where(trojaned[:, None, None, None], setting.stamped, inputs.inputs)
        guard = Guard(classifier, setting.clean, false_alarm_rate=FALSE_ALARM_RATE, seed=seed)
        screener = neo(guard)
        began = time.perf_counter()
        screening = guard.screen(images)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        classifier.classify(images)
        bare = time.perf_counter() - began
        case["streams"][f"{part:.0%}"] = {
            **judge(screening, trojaned, natural, setting),
            "iou": overlap(screener.registry, images, screening, trojaned, setting.boxes),
            "triggers": len(screener.registry),
            "queries_per_image": round(float(screening.queries.mean()), 2),
            "ms_per_image": round(1000 * seconds / len(images), 3),
            "bare_ms_per_image": round(1000 * bare / len(images), 3),
        }
    half = np.flatnonzero(trojaned)[: SEARCHED // 2], np.flatnonzero(~trojaned)[: SEARCHED // 2]
    for kind, rows in zip(("trojaned", "clean"), half, strict=True):
        queries = screener.search(images[rows]).queries
        case[f"first_search_{kind}"] = {"median": float(np.median(queries)), "most": int(queries.max())}
    return case | {"steady": steady(setting, screener.registry, seed)}


def neo(guard: Guard) -> NEOScreener:
    """Return the guard's screener, which is NEO's."""
    assert isinstance(guard.screener, NEOScreener)
    return guard.screener


def judge(screening: Screening, trojaned: Mask, natural: Labels, setting: Setting) -> dict[str, Any]:
    """Return how the screening compares with the truth."""
    labels = setting.inputs.labels
    # An input whose answer the trigger did not change has nothing to be saved from.
    turned = trojaned & (screening.labels != natural)
    known = trojaned & (natural == labels)
    return {
        "trojaned": int(trojaned.sum()),
        "turned": int(turned.sum()),
        "detected": share(screening.trojaned[turned]),
        "detected_of_all_trojaned": share(screening.trojaned[trojaned]),
        "false_alarms": share(screening.trojaned[~trojaned]),
        "corrected_accuracy": share((screening.corrected == labels)[known]),
        "attack_success_before": share(setting.turned(screening.labels)[trojaned]),
        "attack_success_after": share(setting.turned(screening.corrected)[trojaned]),
    }


def overlap(registry: Registry, images: Images, screening: Screening, trojaned: Mask, boxes: Labels) -> float | None:
    """Return the median intersection over union of found and true box, over the inputs that were rightly flagged."""
    rows = np.flatnonzero(trojaned & screening.trojaned)
    matches = registry.match(images[rows], screening.labels[rows])
    values = [iou(match.box, boxes[row]) for row, match in zip(rows, matches, strict=True) if match is not None]
    # A flagged input in which no known trigger is seen shows no box.
    values += [0.0] * (len(rows) - len(values))
    return round(float(np.median(values)), 3) if values else None


def iou(one: Any, other: Any) -> float:
    """Return the intersection over union of two boxes (top, left, bottom, right)."""
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    common = max(height, 0) * max(width, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return float(common / (areas - common))


def steady(setting: Setting, registry: Registry, seed: int) -> dict[str, Any]:
    """Return what screening costs when the trigger is known and nothing new is looked for; 5 % carry it."""
    classifier = TorchModule(setting.net)
    rng = np.random.default_rng([seed, 80])
    rows = rng.integers(0, len(setting.inputs), STEADY)
    stamped = rng.random(STEADY) < 0.05
    images = np.where(stamped[:, None, None, None], setting.stamped[rows], setting.inputs.inputs[rows])
    screener = NEO(search_budget=0).calibrate(classifier, setting.clean, false_alarm_rate=FALSE_ALARM_RATE, seed=seed)
    screener.registry = screener.registry.merge(registry)
    ratios, queries = [], 0.0
    for start in range(0, STEADY, STEADY // 4):
        batch = images[start : start + STEADY // 4]
        began = time.perf_counter()
        classifier.classify(batch)
        between = time.perf_counter()
        queries += float(screener.screen(batch).queries.sum())
        ratios.append((time.perf_counter() - between) / (between - began))
    # The first batch also warms up.
    return {"time_over_bare": round(float(np.median(ratios[1:])), 2), "queries_per_image": round(queries / STEADY, 3)}


def compare(setting: Setting, seed: int) -> dict[str, Any]:
    """Return queries and time of the paper's search and of ours in the same trojaned inputs."""
    classifier = TorchModule(setting.net)
    turned = setting.victims & (
        classifier.classify(setting.stamped).labels != classifier.classify(setting.inputs.inputs).labels
    )
    images = setting.stamped[np.flatnonzero(turned)[:PAPER_INPUTS]]
    top, _, bottom, _ = setting.boxes[0]
    paper = NEOPaper(size=(bottom - top) / min(setting.inputs.sample_shape[:2]))
    figures: dict[str, Any] = {"inputs": len(images)}
    for name, method in (("neo", NEO()), ("neo-paper", paper)):
        parts, seconds = [], 0.0
        for row in range(len(images)):
            # Each input anew, so that nothing found in one helps with the next.
            screener = method.calibrate(classifier, setting.clean, false_alarm_rate=FALSE_ALARM_RATE, seed=seed)
            began = time.perf_counter()
            parts.append(screener.screen(images[row : row + 1]))
            seconds += time.perf_counter() - began
        figures[name] = {
            "detected": share(np.concatenate([part.trojaned for part in parts])),
            "queries_per_image": round(float(np.mean([part.queries for part in parts])), 1),
            "ms_per_image": round(1000 * seconds / len(images), 1),
        }
    for what in ("queries_per_image", "ms_per_image"):
        figures[f"{what}_ratio"] = round(figures["neo-paper"][what] / figures["neo"][what], 1)
    return figures


def share(mask: Mask) -> float | None:
    """Return the share that is true, None of nothing."""
    return round(float(mask.mean()), 4) if mask.size else None


if __name__ == "__main__":
    main()
