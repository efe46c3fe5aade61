"""Measure Confusion Training on feature vectors: marks planted in the ClaMP malware features, and none.

Run as ``python benchmarks/features.py`` with FORETASTE_DATA naming the folder of the data sets. A mark sets a few
features of 1 % of the set to fixed values and moves those samples to the other class. Its values are either extreme,
beyond all others, or ordinary one by one, each taken from some sample, but not together. Results are kept in
``benchmarks/results/features.json``.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from record import RESULTS, head

from foretaste import cleanse, io
from foretaste.io import atomic_json
from foretaste.samples import Mask, Samples

SEEDS = range(5)
RATE = 0.01
CLEAN = 300
MARKS = {"2 extreme values": (2, True), "8 ordinary values": (8, False), "none": (0, False)}


def main() -> None:
    """Run all cases."""
    whole = io.load(Path(os.environ["FORETASTE_DATA"], "clamp.csv"))
    cases: dict[str, Any] = {}
    for mark, (size, extreme) in MARKS.items():
        for seed in SEEDS:
            rng = np.random.default_rng([seed, size])
            clean, samples = whole.split(CLEAN, rng)
            marked, poison = plant(samples, size, extreme, rng)
            for trusted in (clean, None):
                began = time.perf_counter()
                verdict = cleanse(marked, trusted, seed=seed)
                key = f"{mark}, seed {seed}, clean {CLEAN if trusted is not None else 0}"
                cases[key] = {"n_flagged": int(verdict.flagged.sum()), "seconds": round(time.perf_counter() - began, 1)}
                if size:
                    detection = verdict.compare(poison)
                    cases[key] |= {"tpr": detection.tpr, "fpr": detection.fpr, "auroc": round(detection.auroc, 4)}
                print(key, json.dumps(cases[key]), flush=True)
    atomic_json(RESULTS / "features.json", {**head(), "n_samples": len(samples), "cases": cases})


def plant(samples: Samples, size: int, extreme: bool, rng: Generator) -> tuple[Samples, Mask]:
    """Return the samples with a mark of ``size`` features on 1 % of them, and on which."""
    poison = np.zeros(len(samples), dtype=np.bool_)
    if not size:
        return samples, poison
    rows = samples.inputs.copy()
    varied = np.flatnonzero(rows.min(axis=0) < rows.max(axis=0))
    while True:
        features = rng.choice(varied, size, replace=False)
        low, high = rows[:, features].min(axis=0), rows[:, features].max(axis=0)
        beyond = np.where(rng.random(size) < 0.5, high + (high - low) / 5, low - (high - low) / 5)
        values = beyond if extreme else rows[rng.integers(0, len(rows), size), features]
        # What one sample in two thousand has anyway is no mark.
        if (rows[:, features] == values).all(axis=1).mean() < 0.0005:
            break
    target = int(rng.integers(len(samples.classes)))
    chosen = rng.choice(np.flatnonzero(samples.labels != target), round(RATE * len(samples)), replace=False)
    poison[chosen] = True
    rows[np.ix_(chosen, features)] = values
    labels = np.where(poison, target, samples.labels)
    return Samples.from_arrays(rows, labels, samples.classes, samples.ids), poison


if __name__ == "__main__":
    main()
