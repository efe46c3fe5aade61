"""Inspect backdoored models and their clean twins: how well are they told apart, and at what cost?

Run as ``python benchmarks/inspectors.py`` with FORETASTE_DATA naming the folder of the data sets; ``signs`` needs none.
A twin has the same data, network and seeds without the poison. Models with even seeds are those that the methods were
tuned on; the figures are those of the odd ones, which nobody looked at before. Models are kept in ``--models``, results
in ``benchmarks/results/inspectors.json``, one entry per model and method; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, head
from sklearn.metrics import roc_auc_score

from foretaste import io
from foretaste.attacks import Attack, BadNets, BadNetsAllToAll, Blend, poison_training_set, stamp_inputs
from foretaste.inspectors import inspect, names
from foretaste.io import atomic_json
from foretaste.nets import Net
from foretaste.nets.export import load, save
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, accuracy, predict, train

CLEAN = 200
"""Clean images that an inspector gets."""
PATH = RESULTS / "inspectors.json"


@dataclass(frozen=True)
class Data:
    """How much of a data set is used, and how a model is trained on it.

    Attributes:
        train: training images.
        plan: how to train.
        rate: poison rate; small sets need more of it for the backdoor to be learnt.
    """

    train: int
    plan: TrainingPlan
    rate: float


DATA = {
    "signs": Data(train=2500, plan=TrainingPlan(epochs=12, shift=0, width=8), rate=0.1),
    "gtsrb": Data(train=10_000, plan=TrainingPlan(epochs=8, shift=0), rate=0.02),
}

BACKDOORS: dict[str, Attack] = {
    "corner 10 %": BadNets(size=0.10),
    "corner 15 %": BadNets(size=0.15),
    "blend": Blend(),
    "all-to-all 10 %": BadNetsAllToAll(size=0.10),
}
"""The percentages are the patch's side in the image's."""


def main() -> None:
    """Inspect the models that have no result yet, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["signs"], choices=list(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--methods", nargs="+", default=[name for name in names() if name != "all"])
    parser.add_argument("--models", type=Path, default=Path("inspected-models"), help="folder to keep the models in")
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    for name in options.data:
        samples, clean, test = sets(name)
        for seed in options.seeds:
            for key, net, facts in models(name, samples, test, seed, options.models):
                for method in [] if options.train_only else options.methods:
                    if method not in recorded().get(key, {"methods": {}})["methods"]:
                        note(key, facts, method, measure(net, clean, method, seed))


def recorded() -> dict[str, Any]:
    """Return the results that are there."""
    return dict(json.loads(PATH.read_text())["cases"]) if PATH.exists() else {}


def note(key: str, facts: dict[str, Any], method: str, result: dict[str, Any]) -> None:
    """Write a result beside those that are there, which another process may have added to."""
    print(key, method, json.dumps(result), flush=True)
    cases = recorded()
    cases.setdefault(key, {**facts, "methods": {}})["methods"][method] = result
    atomic_json(PATH, {**head(), "summary": summary(cases), "cases": cases})


def sets(name: str) -> tuple[Samples, Samples, Samples]:
    """Return a training set, the clean images that inspectors get, and a test set."""
    n = DATA[name].train
    if name == "signs":
        return io.draw_signs(n, seed=100), io.draw_signs(CLEAN, seed=300), io.draw_signs(500, seed=200)
    folder = Path(os.environ["FORETASTE_DATA"])
    training, _ = io.load(folder / f"{name}-train.parquet").split(n, np.random.default_rng(0))
    clean, rest = io.load(folder / f"{name}-test.parquet").split(CLEAN, np.random.default_rng(1))
    return training, clean, rest.split(1000, np.random.default_rng(2))[0]


def models(
    name: str, samples: Samples, test: Samples, seed: int, folder: Path
) -> Iterator[tuple[str, Net, dict[str, Any]]]:
    """Yield each backdoored model of a seed and its clean twin, trained now unless they are in the folder."""
    for number, (backdoor, weakest) in enumerate(BACKDOORS.items()):
        # Another target and other initial weights for each, so that no two models are alike.
        settings: dict[str, Any] = {"rate": 0.5 if backdoor.startswith("all-to-all") else DATA[name].rate}
        if not backdoor.startswith("all-to-all"):
            settings["target"] = (5 * seed + 3 * number + 2) % len(samples.classes)
        attack = replace(weakest, **settings)  # type: ignore[type-var]
        own = 100 * seed + number
        for twin in (False, True):
            key = f"{name}, {backdoor}, seed {seed}{', clean twin' if twin else ''}"
            path = folder / f"{key}.safetensors"
            if not path.exists():
                training = samples if twin else poison_training_set(samples, attack, own).samples
                save(train(training, plan=DATA[name].plan, seed=own).net, path)
            net = load(path)
            stamped, trojaned = stamp_inputs(test, attack, 1, own)
            answers = predict(net, stamped.inputs[trojaned]).argmax(axis=1)
            forced = attack.forced(test.labels[trojaned], len(test.classes))
            yield (
                key,
                net,
                {
                    "data": name,
                    "backdoor": backdoor,
                    "backdoored": not twin,
                    "target": settings.get("target"),
                    "held_out": seed % 2 == 1,
                    "accuracy": round(accuracy(net, test), 4),
                    "attack_success": round(float(np.mean(answers == forced)), 4),
                },
            )


def measure(net: Net, clean: Samples, method: str, seed: int) -> dict[str, Any]:
    """Return what one method says of a model."""
    diagnosis = inspect(net, clean, method=method, seed=seed)
    return {
        "p_value": diagnosis.p_value,
        "suspect_classes": list(diagnosis.suspect_classes),
        "seconds": round(diagnosis.seconds, 2),
        "queries": diagnosis.queries,
    }


def summary(cases: dict[str, Any]) -> dict[str, Any]:
    """Return AUROC, cross-entropy and Brier score of each method, on held-out models and on those of the tuning."""
    table: dict[str, Any] = {}
    for name, held_out in (("held out", True), ("tuning", False)):
        some = [case for case in cases.values() if case["held_out"] is held_out]
        for method in sorted({method for case in some for method in case["methods"]}):
            table.setdefault(name, {})[method] = figures([case for case in some if method in case["methods"]], method)
    return table


def figures(cases: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Return the figures of one method on some models.

    The probability that a model has a backdoor is taken to be 1 − p / (1 + p): with even odds beforehand, and p as
    likely under a clean model as a sure find is under a backdoored one.
    """
    truth = np.array([case["backdoored"] for case in cases])
    said = [case["methods"][method] for case in cases]
    p_values = np.array([one["p_value"] for one in said])
    probability = np.clip(1 / (1 + p_values), 1e-6, 1 - 1e-6)
    found = [case["target"] in one["suspect_classes"] for case, one in zip(cases, said, strict=True)]
    kinds = {}
    for kind in BACKDOORS:
        rows = np.array([not case["backdoored"] or case["backdoor"] == kind for case in cases])
        kinds[kind] = auroc(truth[rows], p_values[rows])
    return {
        "n_backdoored": int(truth.sum()),
        "n_clean": int((~truth).sum()),
        "auroc": auroc(truth, p_values),
        "auroc_by_backdoor": kinds,
        "cross_entropy": round(float(-np.log(np.where(truth, probability, 1 - probability)).mean()), 3),
        "brier": round(float(((probability - truth) ** 2).mean()), 3),
        "true_positives": int((truth & (p_values <= 0.05)).sum()),
        "false_positives": int((~truth & (p_values <= 0.05)).sum()),
        "target_named": int(np.sum(truth & np.array(found))),
        "seconds_median": round(float(np.median([one["seconds"] for one in said])), 1),
        "queries_median": int(np.median([one["queries"] for one in said])),
    }


def auroc(truth: np.ndarray[Any, Any], p_values: np.ndarray[Any, Any]) -> float | None:
    """Return the area under the ROC curve of 1 − p, None where all models are of one kind."""
    return round(float(roc_auc_score(truth, -p_values)), 3) if 0 < truth.sum() < len(truth) else None


if __name__ == "__main__":
    main()
