"""Inspect backdoored models and their clean twins: how well are they told apart, and at what cost?

Run as ``python benchmarks/inspectors.py --jobs 2``, with FORETASTE_DATA naming the folder of the data sets but for
``--data signs``, and Debian's ``dataset-fashion-mnist`` installed. A twin has the same data, network and seeds without
the poison. Models with even seeds are for tuning the methods; the figures are those of the odd ones, which are not. A
backdoor that works on less than half of the images is none: its model is left out. Models are asked as ONNX, and kept
in ``--models``; results are in ``benchmarks/results/inspectors.json``, one entry per model and method, and what is
there already is not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import train_and_test
from record import RESULTS, head
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from workers import measured

from foretaste import io
from foretaste.attacks import Attack, BadNets, BadNetsAllToAll, Blend, poison_training_set, stamp_inputs, succeeded
from foretaste.classifiers import Classifier, open_classifier
from foretaste.inspectors import inspect, names
from foretaste.io import atomic_json
from foretaste.nets import Net
from foretaste.nets.export import export_onnx, load, save
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, accuracy, predict, train

CLEAN = 200
"""Clean images that an inspector gets."""
RATE = 0.05
"""The false-alarm rate that is asked for."""
WORKS = 0.5
"""Share of the images that a backdoor must turn to count as one."""
IN_ALL = "mm-bd", "neural-cleanse", "debackdoor"
"""What ``all`` asks of a model with weights."""
PATH = RESULTS / "inspectors.json"


@dataclass(frozen=True)
class Data:
    """How much of a data set is used, and how a model is trained on it.

    Attributes:
        train: training images.
        plan: how to train.
        rate: poison rate; small sets need more of it for the backdoor to be learnt.
        seeds: so many models of each network and backdoor, and as many twins.
    """

    train: int
    plan: TrainingPlan
    rate: float
    seeds: int


DATA = {
    "signs": Data(train=2500, plan=TrainingPlan(epochs=12, shift=0, width=8), rate=0.1, seeds=4),
    "gtsrb": Data(train=6000, plan=TrainingPlan(epochs=8, shift=0, width=8), rate=0.05, seeds=4),
    "cifar10": Data(train=20000, plan=TrainingPlan(epochs=8, shift=0, width=8), rate=0.05, seeds=2),
    "fmnist": Data(train=6000, plan=TrainingPlan(epochs=6, shift=0, width=8), rate=0.05, seeds=2),
}
NETS = ("compact-resnet", "convnet")
BACKDOORS: dict[str, Attack] = {
    "corner 10 %": BadNets(size=0.10),
    "corner 15 %": BadNets(size=0.15),
    "random place 10 %": BadNets(size=0.10, place="random"),
    "blend": Blend(),
    "all-to-all 10 %": BadNetsAllToAll(size=0.10),
}
"""The percentages are the patch's side in the image's."""
PATCHES = [name for name, attack in BACKDOORS.items() if isinstance(attack, BadNets)]


@dataclass(frozen=True)
class Case:
    """One model: backdoored, or its clean twin."""

    data: str
    net: str
    backdoor: str
    seed: int
    backdoored: bool

    def __str__(self) -> str:
        kind = self.backdoor if self.backdoored else f"{self.backdoor}, clean twin"
        return f"{self.data}, {self.net}, {kind}, seed {self.seed}"

    @property
    def own_seed(self) -> int:
        """Another one for each backdoor, so that no two clean models are alike."""
        return 100 * self.seed + list(BACKDOORS).index(self.backdoor)

    def attack(self, n_classes: int) -> Attack:
        """Return the backdoor, with another target for each model."""
        attack = BACKDOORS[self.backdoor]
        if isinstance(attack, BadNetsAllToAll):
            return replace(attack, rate=0.5)
        target = (5 * self.seed + 3 * list(BACKDOORS).index(self.backdoor) + 2) % n_classes
        return replace(attack, rate=DATA[self.data].rate, target=target)  # type: ignore[type-var]


def main() -> None:
    """Inspect the models that have no result yet, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of all that the data set has")
    parser.add_argument("--methods", nargs="+", default=[name for name in names() if name != "all"])
    parser.add_argument("--models", type=Path, default=Path("inspected-models"), help="folder to keep the models in")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="inspect so many models at a time")
    options = parser.parse_args()
    cases = [
        Case(data, net, backdoor, seed, backdoored)
        for data in options.data
        for seed in options.seeds or range(DATA[data].seeds)
        for net in NETS
        for backdoor in BACKDOORS
        for backdoored in (True, False)
    ]
    results: dict[str, Any] = json.loads(PATH.read_text())["cases"] if PATH.exists() else {}
    for case in measured(measure, cases, options.methods, options.models, results, options.jobs):
        print(case, json.dumps(results[str(case)]), flush=True)
        atomic_json(PATH, {**head(), "summary": summary(results), "cases": results})


@lru_cache(maxsize=1)
def sets(name: str) -> tuple[Samples, Samples, Samples]:
    """Return a training set, the clean images that inspectors get, and a test set."""
    n = DATA[name].train
    if name == "signs":
        return io.draw_signs(n, seed=100), io.draw_signs(CLEAN, seed=300), io.draw_signs(500, seed=200)
    whole, test = train_and_test(name)
    clean, rest = test.split(CLEAN, np.random.default_rng(1))
    return whole.split(n, np.random.default_rng(0))[0], clean, rest.split(1000, np.random.default_rng(2))[0]


def measure(case: Case, methods: list[str], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of a model, trained now unless it is in the folder, and what each method says of it."""
    samples, clean, test = sets(case.data)
    attack = case.attack(len(samples.classes))
    path = folder / f"{case}.safetensors"
    if not path.exists():
        training = poison_training_set(samples, attack, case.own_seed).samples if case.backdoored else samples
        net = train(training, net=case.net, plan=DATA[case.data].plan, seed=case.own_seed).net
        export_onnx(net, path.with_suffix(".onnx"))
        save(net, path)
    net, classifier = load(path), open_classifier(path.with_suffix(".onnx"))
    stamped, trojaned = stamp_inputs(test, attack, 1, case.own_seed)
    answers = predict(net, stamped.inputs[trojaned]).argmax(axis=1)
    success = succeeded(attack, answers, test.labels[trojaned], len(test.classes))
    facts = {
        "data": case.data,
        "net": case.net,
        "backdoor": case.backdoor,
        "backdoored": case.backdoored,
        "target": getattr(attack, "target", None),
        "held_out": case.seed % 2 == 1,
        "accuracy": round(accuracy(net, test), 4),
        "attack_success": round(float(success.mean()), 4),
    }
    return facts, {method: judged(classifier, net, clean, method, case.seed) for method in methods}


def judged(classifier: Classifier, net: Net, clean: Samples, method: str, seed: int) -> dict[str, Any]:
    """Return what one method says of a model."""
    diagnosis = inspect(classifier, clean, method=method, weights=net, false_alarm_rate=RATE, seed=seed)
    return {
        "p_value": diagnosis.p_value,
        "score": diagnosis.score,
        "suspects": {
            str(entry.target): round(entry.p_value, 6) for entry in reversed(diagnosis.evidence) if entry.suspect
        },
        "seconds": round(diagnosis.seconds, 2),
        "queries": diagnosis.queries,
    }


def summary(cases: dict[str, Any]) -> dict[str, Any]:
    """Return AUROC, cross-entropy and Brier score of each method, on held-out models and on those of the tuning."""
    table: dict[str, Any] = {}
    cases = {key: {**case, "methods": combined(case["methods"])} for key, case in cases.items()}
    for method in sorted({method for case in cases.values() for method in case["methods"]}):
        held, tuning = (
            [
                case
                for case in cases.values()
                if case["held_out"] is held_out
                and method in case["methods"]
                and (case["attack_success"] >= WORKS or not case["backdoored"])
            ]
            for held_out in (True, False)
        )
        chance = calibrated(tuning, method)
        for name, some in (("held out", held), ("tuning", tuning)):
            if some:
                table.setdefault(name, {})[method] = figures(some, method, chance)
    return table


def combined(methods: dict[str, Any]) -> dict[str, Any]:
    """Return what the methods say, and what ``all`` makes of it: each p-value times their number."""
    if not set(IN_ALL) <= set(methods):
        return methods
    asked = {name: methods[name] for name in IN_ALL}
    suspects: dict[str, float] = {}
    for said in asked.values():
        for label, p_value in said["suspects"].items():
            if len(asked) * p_value <= RATE:
                suspects[label] = min(len(asked) * p_value, suspects.get(label, 1.0))
    return methods | {
        "all": {
            "p_value": min(len(asked) * min(said["p_value"] for said in asked.values()), 1.0),
            "suspects": suspects,
            "seconds": sum(said["seconds"] for said in asked.values()),
            "queries": sum(said["queries"] for said in asked.values()),
        }
    }


def evidence(cases: list[dict[str, Any]], method: str) -> np.ndarray[Any, Any]:
    """Return minus the decimal logarithm of the p-values, at most 20, ``(n, 1)``."""
    p_values = np.array([case["methods"][method]["p_value"] for case in cases])
    logarithms: np.ndarray[Any, Any] = -np.log10(np.maximum(p_values, 1e-20))
    return logarithms[:, None]


def calibrated(cases: list[dict[str, Any]], method: str) -> LogisticRegression | None:
    """Return what makes a probability of a p-value, fitted to the models of the tuning; None if all are of one kind."""
    truth = [case["backdoored"] for case in cases]
    return LogisticRegression().fit(evidence(cases, method), truth) if len(set(truth)) == 2 else None


def figures(cases: list[dict[str, Any]], method: str, chance: LogisticRegression | None) -> dict[str, Any]:
    """Return the figures of one method on some models; those of its probabilities are None where there are none."""
    truth = np.array([case["backdoored"] for case in cases])
    said = [case["methods"][method] for case in cases]
    p_values = np.array([one["p_value"] for one in said])
    probability = None if chance is None else chance.predict_proba(evidence(cases, method))[:, 1]
    found = [str(case["target"]) in one["suspects"] for case, one in zip(cases, said, strict=True)]
    kinds, sets_ = np.array([case["backdoor"] for case in cases]), np.array([case["data"] for case in cases])
    return {
        "n_backdoored": int(truth.sum()),
        "n_clean": int((~truth).sum()),
        "auroc": auroc(truth, p_values),
        "auroc_by_data": {name: auroc(truth[sets_ == name], p_values[sets_ == name]) for name in DATA},
        "auroc_by_backdoor": {
            name: auroc(truth[rows], p_values[rows])
            for name, some in {"patches": PATCHES, **{kind: [kind] for kind in BACKDOORS}}.items()
            for rows in [~truth | np.isin(kinds, some)]
        },
        "cross_entropy": None if probability is None else round(float(log_loss(truth, probability, labels=[0, 1])), 3),
        "brier": None if probability is None else round(float(((probability - truth) ** 2).mean()), 3),
        "true_positives": int((truth & (p_values <= RATE)).sum()),
        "false_positives": int((~truth & (p_values <= RATE)).sum()),
        "target_named": int(np.sum(truth & np.array(found))),
        "seconds_median": round(float(np.median([one["seconds"] for one in said])), 1),
        "queries_median": int(np.median([one["queries"] for one in said])),
    }


def auroc(truth: np.ndarray[Any, Any], p_values: np.ndarray[Any, Any]) -> float | None:
    """Return the area under the ROC curve of 1 − p, None where all models are of one kind."""
    return round(float(roc_auc_score(truth, -p_values)), 3) if 0 < truth.sum() < len(truth) else None


if __name__ == "__main__":
    main()
