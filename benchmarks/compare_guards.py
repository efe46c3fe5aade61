"""Compare the guards on a patch and on a trigger that lies over the whole image.

Run as ``python benchmarks/compare_guards.py`` with FORETASTE_DATA naming the folder of the data sets. A compact ResNet
is trained on GTSRB with each backdoor and seed; each guard, calibrated on the same clean images, screens the same
stream, half of it trojaned. Results are kept in ``benchmarks/results/guards.json``.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
from guard import DATA, FALSE_ALARM_RATE, Setting, sets, share
from record import RESULTS, head
from sklearn.metrics import roc_auc_score

from foretaste import Guard
from foretaste.attacks import Attack, BadNets, Blend
from foretaste.classifiers.torch_module import TorchModule
from foretaste.io import atomic_json

SEEDS = range(3)
METHODS = ("neo", "strip", "scale-up", "teco", "all")
BACKDOORS: dict[str, Attack] = {
    "BadNets 10 %": BadNets(size=0.10, rate=0.02, target=2),
    "Blend": Blend(rate=0.02, target=2),
}
INPUTS = 300


def main() -> None:
    """Run all cases."""
    samples, test = sets("gtsrb")
    data = replace(DATA["gtsrb"], inputs=INPUTS)
    cases: dict[str, Any] = {}
    for seed in SEEDS:
        for backdoor, attack in BACKDOORS.items():
            setting = Setting.make(data, samples, test, "compact-resnet", attack, seed)
            for method in METHODS:
                key = f"{backdoor}, {method}, seed {seed}"
                cases[key] = measure(setting, method, seed)
                print(key, json.dumps(cases[key]), flush=True)
                atomic_json(RESULTS / "guards.json", {**head(), "cases": cases})


def measure(setting: Setting, method: str, seed: int) -> dict[str, Any]:
    """Return the figures of one guard on a stream half of which is trojaned."""
    classifier = TorchModule(setting.net)
    trojaned = setting.victims & (np.random.default_rng([seed, 81]).random(len(setting.victims)) < 0.5)
    images = np.where(trojaned[:, None, None, None], setting.stamped, setting.inputs.inputs)
    guard = Guard(classifier, setting.clean, method, false_alarm_rate=FALSE_ALARM_RATE, seed=seed)
    began = time.perf_counter()
    screening = guard.screen(images)
    seconds = time.perf_counter() - began
    # An input whose answer the trigger did not change has nothing to be saved from.
    turned = trojaned & (screening.labels != classifier.classify(setting.inputs.inputs).labels)
    judged = turned | ~trojaned
    return {
        "attack_success": share(turned[trojaned]),
        "auroc": round(float(roc_auc_score(turned[judged], screening.scores[judged])), 4),
        "detected": share(screening.trojaned[turned]),
        "false_alarms": share(screening.trojaned[~trojaned]),
        "queries_per_image": round(float(screening.queries.mean()), 1),
        "ms_per_image": round(1000 * seconds / len(images), 2),
    }


if __name__ == "__main__":
    main()
