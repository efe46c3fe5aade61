"""Measure Confusion Training as published against ours, on the same poisoned sets in the same run.

Run as ``python benchmarks/confusion_training.py gtsrb`` with FORETASTE_DATA naming the folder of the data sets. The
attacks have the rates of ``benchmarks/attacks.py``; ``none`` is the set without poison. Both methods get the same clean
images of the test set, as many as the paper had unless told otherwise. Results are kept in
``benchmarks/results/confusion-training-NAME.json``, one entry per attack, seed and options, which holds both methods;
what is there already is not measured again, so a stopped benchmark goes on. ``--share`` is for a quick look: a part of
the training set is not what either method was made for.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attacks import CASES, sets
from record import RESULTS, head

from foretaste.attacks import TrojansModel, fitted, poison_training_set
from foretaste.cleansers import Cleanser
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.cleansers.confusion_training_paper import CPU_BUDGET, PRESETS, ConfusionTrainingPaper
from foretaste.io import atomic_json
from foretaste.progress import silent
from foretaste.samples import Mask, Samples

ATTACKS = ["badnets", "blend", "wanet", "tact", "adaptive-patch", "badnets-all-to-all", "none"]
CLEAN = 2000


def main() -> None:
    """Run the cases that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=[name for name in CASES if name.startswith(("gtsrb", "cifar10"))])
    parser.add_argument("--attacks", nargs="+", default=ATTACKS, help="names of benchmarks/attacks.py, or none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budget", type=float, default=CPU_BUDGET, help="of the published method; 1 is all of it")
    parser.add_argument("--preset", choices=PRESETS, default="cifar10", help="configuration of the published method")
    parser.add_argument("--clean", type=int, default=CLEAN, help="clean images from the test set")
    parser.add_argument("--share", type=float, default=1.0, help="part of the training set")
    parser.add_argument("--out", type=Path, help="the result file, if not the usual one")
    options = parser.parse_args()
    path = options.out or RESULTS / f"confusion-training-{options.data}.json"
    cases: dict[str, Any] = json.loads(path.read_text())["cases"] if path.exists() else {}
    methods = ConfusionTraining(), ConfusionTrainingPaper(budget=options.budget, preset=options.preset)
    train, test = sets(options.data)
    # Of the code that runs, not of what may be committed while it does.
    said = head()
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        clean, _ = test.split(options.clean, rng)
        part = train if options.share == 1 else train.split(round(options.share * len(train)), rng)[0]
        for name in options.attacks:
            key = f"{name}, seed {seed}, clean {options.clean}, budget {options.budget:g}, preset {options.preset}"
            key += "" if options.share == 1 else f", share {options.share:g}"
            if key in cases:
                continue
            samples, poison, cover = poisoned(options.data, name, part, seed)
            case: dict[str, Any] = {"n_samples": len(samples), "poison": int(poison.sum()), "cover": int(cover.sum())}
            for method in methods:
                case[method.name] = measure(method, samples, clean, poison, cover, seed)
                print(key, method.name, json.dumps(case[method.name]), flush=True)
            ours, paper = (case[method.name] for method in methods)
            case |= {f"{what}_ratio": round(paper[what] / ours[what], 1) for what in ("seconds", "cpu_seconds")}
            cases[key] = case | {"threads": torch.get_num_threads(), **said}
            atomic_json(path, {**said, "cases": cases})


def poisoned(data: str, name: str, train: Samples, seed: int) -> tuple[Samples, Mask, Mask]:
    """Return the set to inspect, and which of its samples are poison and cover."""
    if name == "none":
        return train, *np.zeros((2, len(train)), dtype=np.bool_)
    attack = fitted(CASES[data][name], train, seed)
    if isinstance(attack, TrojansModel):
        raise SystemExit(f"{name} is an attack on a model and leaves no training set to cleanse")
    result = poison_training_set(train, attack, seed)
    return result.samples, result.poison, result.cover


def measure(method: Cleanser, samples: Samples, clean: Samples, poison: Mask, cover: Mask, seed: int) -> dict[str, Any]:
    """Return how a method does on a set, and what it costs.

    The rate of false alarms leaves cover samples out; the processor time is that of all threads and workers.
    """
    began, spent = time.perf_counter(), sum(os.times()[:4])
    verdict = method.inspect(samples, clean, seed=seed, workdir=None, on_progress=silent)
    figures: dict[str, Any] = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(sum(os.times()[:4]) - spent, 1),
        "n_flagged": int(verdict.flagged.sum()),
        "condemned": list(verdict.suspect_classes),
        "fpr": round(float(verdict.flagged[~poison & ~cover].mean()), 5),
    }
    if poison.any():
        detection = verdict.compare(poison)
        figures |= {"tpr": round(detection.tpr, 4), "auroc": round(detection.auroc, 4)}
    if cover.any():
        figures["cover_flagged"] = round(float(verdict.flagged[cover].mean()), 4)
    return figures


if __name__ == "__main__":
    main()
