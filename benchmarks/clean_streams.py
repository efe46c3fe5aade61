"""Measure how often ``guard scan`` finds something in streams of clean images, on models without a backdoor.

Run as ``python benchmarks/clean_streams.py`` with FORETASTE_DATA naming the folder of the data sets. Each model is
trained on clean images; each of ten guards is calibrated on 300 clean images of its own and screens 1,000 others. None
of them should end in exit code 1. Results are kept in ``benchmarks/results/clean_streams.json``, one entry per model; a
model that is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, head

from foretaste import io, scan
from foretaste.classifiers.torch_module import TorchModule
from foretaste.guards.finding import Conclusion
from foretaste.io import atomic_json
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, train

FALSE_ALARM_RATE = 0.01
CLEAN, INPUTS = 300, 1000
"""Images that calibrate a guard, and images of a stream."""


@dataclass(frozen=True)
class Case:
    """A model: a data set, a network and how it is trained on how many images."""

    data: str
    net: str
    train: int
    plan: TrainingPlan


CASES = {
    "signs, compact-resnet": Case("signs", "compact-resnet", 3000, TrainingPlan(epochs=8, shift=0)),
    "signs, convnet": Case("signs", "convnet", 3000, TrainingPlan(epochs=8, shift=0)),
    "gtsrb, compact-resnet": Case("gtsrb", "compact-resnet", 8000, TrainingPlan(epochs=5, shift=0)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--method", default="neo")
    parser.add_argument("--out", type=Path, default=RESULTS / "clean_streams.json")
    options = parser.parse_args(arguments)
    cases = json.loads(options.out.read_text())["cases"] if options.out.exists() else {}
    for name in options.cases:
        if name not in cases:
            cases[name] = measure(CASES[name], options.method, options.streams)
            atomic_json(options.out, {**head(), "cases": cases})


def sets(data: str) -> tuple[Samples, Samples]:
    """Return images to train on, and others."""
    if data == "signs":
        return io.draw_signs(3000, seed=100), io.draw_signs(6000, seed=200)
    folder = Path(os.environ["FORETASTE_DATA"])
    return io.load(folder / f"{data}-train.parquet"), io.load(folder / f"{data}-test.parquet")


def measure(case: Case, method: str, streams: int) -> dict[str, Any]:
    """Return what each stream came to."""
    samples, others = sets(case.data)
    part = samples if len(samples) <= case.train else samples.split(case.train, np.random.default_rng(1))[0]
    classifier = TorchModule(train(part, net=case.net, plan=case.plan, seed=0).net)
    found = []
    for seed in range(streams):
        clean, rest = others.split(CLEAN, np.random.default_rng([seed, 1]))
        stream = rest.split(INPUTS, np.random.default_rng([seed, 2]))[0]
        result = scan(stream, classifier, clean, method=method, false_alarm_rate=FALSE_ALARM_RATE, seed=seed)
        finding = result.finding
        found.append(
            {
                "conclusion": finding.conclusion.value,
                "flagged": int(result.screening.trojaned.sum()),
                "carriers": finding.n_carriers,
                "p_value": finding.p_value,
                "label_shift": finding.shift is not None,
                "clean_accuracy": result.clean_accuracy.accuracy,
            }
        )
        print(found[-1], flush=True)
    nothing = [one["conclusion"] == Conclusion.NOTHING.value for one in found]
    return {"method": method, "exit_code_0": sum(nothing), "streams": found}


if __name__ == "__main__":
    main()
