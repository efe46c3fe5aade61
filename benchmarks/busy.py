"""Measure what a run costs on a busy machine: beside three processes that compute all the time, and on an idle one.

Run as ``python benchmarks/busy.py``, on a machine that has nothing else to do. Each command runs alone and beside the
others, and again as OpenMP would have it by default, its threads spinning while they wait. What counts is the processor
time: the time on the clock follows from how many share the cores. Results are kept in ``benchmarks/results/busy.json``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from record import RESULTS, head

from foretaste.io import atomic_json, draw_signs, write_parquet

BUSY = 3
"""Processes that compute beside the command."""
SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""What libgomp does by itself where there are no more threads than cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=float, default=900, help="seconds after which a command is stopped")
    options = parser.parse_args()
    commands = {
        "train, 3,000 signs, 6 epochs": ["train", "signs.parquet", "--epochs", "6", "--out", "trained"],
        "cleanse, 500 signs": ["cleanse", "few.parquet", "--out", "cleansed"],
    }
    figures: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        signs = draw_signs(3000)
        write_parquet(signs, Path(folder) / "signs.parquet")
        write_parquet(signs[:500], Path(folder) / "few.parquet")
        for name, arguments in commands.items():
            rows = figures[name] = {}
            for label, environment in (("as it is", {}), ("spinning", SPINNING)):
                rows[f"{label}, idle"] = measured(arguments, folder, environment, options.longest)
                with busy():
                    rows[f"{label}, busy"] = measured(arguments, folder, environment, options.longest)
                ratio = rows[f"{label}, busy"]["cpu_seconds"] / rows[f"{label}, idle"]["cpu_seconds"]
                rows[f"{label}, busy"]["cpu_ratio"] = round(ratio, 2)
                print(name, label, rows[f"{label}, idle"], rows[f"{label}, busy"], flush=True)
                atomic_json(RESULTS / "busy.json", {**head(), "busy": BUSY, "commands": figures})


def measured(arguments: list[str], folder: str, environment: dict[str, str], longest: float) -> dict[str, float]:
    """Run a command and return its seconds and its processor seconds; a third entry if it was stopped."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # From scratch: a finished training is not trained again.
    command = [sys.executable, "-m", "foretaste", *arguments[:-1], f"{arguments[-1]}-{time.time_ns()}"]
    stopped = {}
    try:
        subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, check=True, capture_output=True, timeout=longest
        )
    except subprocess.TimeoutExpired:
        stopped = {"stopped_after": longest}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(used, 1), **stopped}


@contextmanager
def busy() -> Iterator[None]:
    """Keep processes computing."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
