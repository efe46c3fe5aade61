"""Measure `foretaste cleanse` on real data: detection, time, memory, and what a model retrained on the rest does.

Run as ``python benchmarks/cleanse.py gtsrb`` or ``cifar10`` with FORETASTE_DATA naming the folder of the data sets.
Every case goes through the command line as a user's would. Results are kept in
``benchmarks/results/cleanse-NAME.json``, one entry per case; a case that is there already is not run again, so a
stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from attacks import judge
from record import RESULTS, head

from foretaste import io, training
from foretaste.attacks import find
from foretaste.io import atomic_json
from foretaste.samples import Samples

TARGETS = {"gtsrb": 2, "cifar10": 0}
ATTACKS = {
    "gtsrb": {"badnets": 0.01, "blend": 0.01, "badnets-all-to-all": 0.05},
    "cifar10": {"badnets": 0.003, "blend": 0.003},
}
# Unshifted images, because that is how small marks are learnt best: the attacker's case, not ours.
PLANS = {"gtsrb": training.TrainingPlan(epochs=5, shift=0), "cifar10": training.TrainingPlan(epochs=8, shift=0)}


def main() -> None:
    """Run the cases that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=TARGETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clean", type=int, default=500, help="clean images from the test set; 0: none are given")
    parser.add_argument("--retrain", type=int, nargs="*", default=[0, 1, 2], help="seeds to retrain models for")
    parser.add_argument("--attacks", nargs="+", help="only these attacks; 'none' is the unpoisoned set")
    options = parser.parse_args()
    folder = Path(os.environ["FORETASTE_DATA"])
    rates: dict[str, float] = {**ATTACKS[options.data], "none": 0.0}
    test = io.load(folder / f"{options.data}-test.parquet")
    path = RESULTS / f"cleanse-{options.data}.json"
    cases: dict[str, Any] = json.loads(path.read_text())["cases"] if path.exists() else {}
    for seed in options.seeds:
        for name in options.attacks or rates:
            key = f"{name} seed {seed} clean {options.clean}"
            if key in cases:
                continue
            with tempfile.TemporaryDirectory() as work:
                source = folder / f"{options.data}-train.parquet"
                cases[key] = run_case(Path(work), source, test, options, name, rates[name], seed)
            print(key, json.dumps(cases[key]), flush=True)
            atomic_json(path, {**head(), "cases": cases})


def run_case(
    work: Path, source: Path, test: Samples, options: argparse.Namespace, name: str, rate: float, seed: int
) -> dict[str, Any]:
    """Poison, cleanse and, for some seeds, retrain; return the figures."""
    arguments = ["--seed", str(seed), "--json", "--out", str(work / "cleansed")]
    if rate:
        target = [] if name == "badnets-all-to-all" else ["--target", str(TARGETS[options.data])]
        spec = ["--attack", name, "--rate", str(rate), *target, "--seed", str(seed), "--out", str(work)]
        foretaste("poison", str(source), *spec)
        source = work / "train.parquet"
        arguments += ["--truth", str(work / "truth.json")]
    clean, rest = test.split(options.clean, np.random.default_rng(seed)) if options.clean else (None, test)
    if clean is not None:
        io.write_parquet(clean, work / "clean.parquet")
        arguments += ["--clean", str(work / "clean.parquet")]
    began = time.perf_counter()
    output, peak = foretaste("cleanse", str(source), *arguments)
    wall = time.perf_counter() - began
    summary = json.loads(output)
    case = {key: summary[key] for key in ("n_samples", "n_flagged", "tpr", "fpr", "auroc") if key in summary}
    case["suspect_classes"] = len(summary["suspect_classes"])
    case |= {"seconds": round(wall, 1), "peak_gb": round(peak / 2**30, 2)}
    if rate and seed in options.retrain:
        fields = {"rate": rate} if name == "badnets-all-to-all" else {"rate": rate, "target": TARGETS[options.data]}
        attack = find(name)(**fields)
        for when, path in (("before", source), ("after", work / "cleansed" / "cleansed.parquet")):
            net = training.train(io.load(path), plan=PLANS[options.data], seed=seed).net
            case |= {f"{what}_{when}": value for what, value in judge(net, rest, attack, seed).items()}
    return case


def foretaste(*arguments: str) -> tuple[str, int]:
    """Run the command line; return its output and its peak resident memory in bytes."""
    process = subprocess.Popen([sys.executable, "-m", "foretaste", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"foretaste {' '.join(arguments)} failed")
    return output, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
