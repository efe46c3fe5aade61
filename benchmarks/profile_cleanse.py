"""Measure where the time of `foretaste cleanse` goes, on GTSRB with 1 % BadNets.

Run as ``python benchmarks/profile_cleanse.py`` with FORETASTE_DATA naming the folder of the data sets. The seconds of
each phase come from its progress reports.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from record import RESULTS, head

import foretaste
from foretaste.attacks import BadNets, poison_training_set
from foretaste.io import atomic_json, load
from foretaste.progress import Progress


def main() -> None:
    """Profile one run and write the figures."""
    folder = Path(os.environ["FORETASTE_DATA"])
    samples = poison_training_set(load(folder / "gtsrb-train.parquet"), BadNets(rate=0.01, target=2), 0).samples
    clean, _ = load(folder / "gtsrb-test.parquet").split(500, np.random.default_rng(0))
    seconds: dict[str, float] = {}
    last = time.perf_counter()
    phase = "start"

    def listen(report: Progress) -> None:
        nonlocal last, phase
        now = time.perf_counter()
        # What goes on between two phases, such as scoring, counts to the one before.
        seconds[phase] = seconds.get(phase, 0.0) + now - last
        last, phase = now, report.phase

    verdict = foretaste.cleanse(samples, clean, on_progress=listen)
    seconds[phase] += time.perf_counter() - last
    figures = {
        "seconds": round(verdict.seconds, 1),
        "phases": {name: round(value, 2) for name, value in seconds.items()},
    }
    print(figures)
    atomic_json(RESULTS / "profile.json", {**head(), **figures})


if __name__ == "__main__":
    main()
