"""Repair backdoored models with each method: accuracy and attack success before and after.

Run as ``python benchmarks/repairs.py --jobs 2`` with FORETASTE_DATA naming the folder of the data sets. The models are
trained on 10,000 signs of GTSRB; the repairs get 1,000 clean images, a tenth as many, and what comes out is measured on
1,500 others. The defaults of the repairs were chosen on the model of BadNets, ``compact-resnet`` and seed 0, which the
table leaves out. Models are kept in ``--models``, results in ``benchmarks/results/repairs.json``, one entry per model
and method; what is there already is not run again.
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
from torch import nn
from workers import measured

from foretaste import repair
from foretaste.attacks import Attack, BadNets, BadNetsAllToAll, Blend, poison_training_set, stamp_inputs, succeeded
from foretaste.io import atomic_json
from foretaste.nets.export import load, save
from foretaste.repairs import find, names
from foretaste.repairs.tuning import accuracy_of, logits_of
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, train

PATH = RESULTS / "repairs.json"
ATTACKS: dict[str, Attack] = {
    "badnets": BadNets(rate=0.02),
    "badnets 10 %": BadNets(rate=0.1),
    "blend": Blend(rate=0.05),
    "all-to-all": BadNetsAllToAll(rate=0.2),
}
PLAN = TrainingPlan(epochs=8, shift=0)
TRAINING, CLEAN, TEST = 10_000, 1000, 1500


@dataclass(frozen=True)
class Case:
    """One backdoored model."""

    attack: str
    net: str
    seed: int

    def __str__(self) -> str:
        return f"{self.attack}, {self.net}, seed {self.seed}"

    def fitted(self) -> Attack:
        """Return the attack, with another target for each seed."""
        attack = ATTACKS[self.attack]
        return attack if isinstance(attack, BadNetsAllToAll) else replace(attack, target=2 + 5 * self.seed)  # type: ignore[type-var]


def main() -> None:
    """Run the methods that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--nets", nargs="+", default=["compact-resnet"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--methods", nargs="+", default=[name for name in names() if name != "retrain"])
    parser.add_argument("--models", type=Path, default=Path("repaired-models"), help="folder to keep the models in")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="repair so many models at a time")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(PATH.read_text())["cases"] if PATH.exists() else {}
    cases = [Case(attack, net, seed) for seed in options.seeds for attack in options.attacks for net in options.nets]
    for case in measured(measure, cases, options.methods, options.models, results, options.jobs):
        print(case, json.dumps(results[str(case)]), flush=True)
        atomic_json(PATH, {**head(), "cases": results})


@lru_cache(maxsize=1)
def sets() -> tuple[Samples, Samples, Samples]:
    """Return a training set, the clean images that repairs get, and a test set."""
    whole, test = train_and_test("gtsrb")
    training, _ = whole.split(TRAINING, np.random.default_rng(0))
    clean, rest = test.split(CLEAN, np.random.default_rng(1))
    return training, clean, rest.split(TEST, np.random.default_rng(2))[0]


def measure(case: Case, methods: list[str], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of a model, trained now unless it is in the folder, and of what each method makes of it."""
    samples, clean, test = sets()
    attack = case.fitted()
    training = poison_training_set(samples, attack, case.seed).samples
    path = folder / f"{case}.safetensors"
    if not path.exists():
        save(train(training, net=case.net, plan=PLAN, seed=case.seed).net, path)
    net = load(path)
    after = {}
    for method in methods:
        whole = find(method).needs_training_set
        repaired = repair(net, method=method, clean=clean, train=training if whole else None, seed=case.seed)
        after[method] = figures(repaired.net, test, attack) | {"seconds": round(repaired.seconds, 1), **repaired.facts}
    return {"before": figures(net, test, attack)}, after


def figures(net: nn.Module, test: Samples, attack: Attack) -> dict[str, Any]:
    """Return accuracy and attack success."""
    stamped, trojaned = stamp_inputs(test, attack, 1, 0)
    answers = logits_of(net, stamped[trojaned]).argmax(axis=1)
    success = succeeded(attack, answers, test.labels[trojaned], len(test.classes))
    return {"accuracy": round(accuracy_of(net, test), 4), "attack_success": round(float(success.mean()), 4)}


if __name__ == "__main__":
    main()
