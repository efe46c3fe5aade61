"""Measure how the time and the memory of Confusion Training grow with samples and classes.

Run as ``python benchmarks/growth.py``. The sets are synthetic: images of 32 × 32 pixels, of each class a smooth pattern
that is moved, lightened or darkened, and covered with noise, and BadNets on one in a hundred. Each size has a process
of its own, one after the other. Peak memory is what the system cannot take back, the set itself included.

Results are kept in ``benchmarks/results/growth.json``; what is there of this version is not measured again.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from ablate import version
from memory import gigabytes, watched
from record import RESULTS, head, of_version
from scipy.ndimage import gaussian_filter
from workers import workers

from foretaste.attacks import BadNets, poison_training_set
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.io import atomic_json
from foretaste.samples import Samples

OUT = RESULTS / "growth.json"
SIZES = (25_000, 10), (100_000, 10), (400_000, 10), (25_000, 100), (25_000, 1000), (100_000, 1000), (400_000, 1000)
"""Samples and classes."""
CLEAN = 2000
SIDE, CHANNELS = 32, 3
RATE = 0.01
PIECE = 10_000


def draw(n: int, n_classes: int, seed: int) -> Samples:
    """Draw a set of n images; the classes look the same whatever the seed."""
    patterns = gaussian_filter(np.random.default_rng(0).normal(size=(n_classes, SIDE, SIDE, CHANNELS)), (0, 3, 3, 0))
    patterns *= 60 / patterns.std()
    rng = np.random.default_rng([1, seed])
    labels = rng.permutation(n) % n_classes
    images = np.empty((n, SIDE, SIDE, CHANNELS), dtype=np.uint8)
    for start in range(0, n, PIECE):
        shown = patterns[labels[start : start + PIECE]]
        shown = np.roll(shown, rng.integers(-2, 3, 2), axis=(1, 2)) + rng.normal(0, 20, (len(shown), 1, 1, 1))
        images[start : start + PIECE] = (128 + shown + rng.normal(0, 15, shown.shape)).clip(0, 255)
    return Samples.from_arrays(images, labels, tuple(str(label) for label in range(n_classes)))


def measure(n: int, n_classes: int) -> dict[str, Any]:
    """Cleanse a set of n images, and say what it took and what was found."""
    poisoned = poison_training_set(draw(n, n_classes, seed=0), BadNets(rate=RATE, target=0), seed=0)
    clean = draw(CLEAN, n_classes, seed=1)
    with watched() as memory:
        began, worked = time.perf_counter(), time.process_time()
        verdict = ConfusionTraining().inspect(poisoned.samples, clean)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
    return {
        "n": n,
        "classes": n_classes,
        "tpr": round(float(verdict.flagged[poisoned.poison].mean()), 4),
        "natural_flagged": int(verdict.flagged[~poisoned.poison].sum()),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "set_gb": gigabytes(poisoned.samples.inputs.nbytes),
        "peak_anonymous_gb": gigabytes(memory["peak"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1][0], metavar="N", help="leave out larger sets")
    options = parser.parse_args()
    about = head() | {"version": version(), "cores": len(os.sched_getaffinity(0))}
    results = of_version(OUT, about["version"], "sets")
    for n, n_classes in SIZES:
        name = f"{n} samples, {n_classes} classes"
        if n > options.largest or name in results["sets"]:
            continue
        with workers(1) as pool:
            row = pool.submit(measure, n, n_classes).result()
        results["sets"][name] = about | row
        print(name, row, flush=True)
        atomic_json(OUT, results)


if __name__ == "__main__":
    main()
