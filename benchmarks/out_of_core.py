"""Measure the memory of Confusion Training's pass over a set that is larger than it.

Run as ``python benchmarks/out_of_core.py``. It writes synthetic images to an archive in a temporary folder, reads them
as ``foretaste cleanse`` does, and runs one whole round over them: the base model's predictions, and each sample's score
by the confused model of its fold. Only the trainings are cut to a few steps, for what a step takes does not depend on
the size of the set. The result is kept in ``benchmarks/results/out_of_core.json``.

Two figures of memory are given. ``peak_anonymous_gb`` is what the system cannot take back. ``peak_resident_gb`` counts
also those pages of the memory-mapped file that happened to be in memory, and which it can.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from memory import gigabytes, status, watched
from record import RESULTS, head

from foretaste import io, training
from foretaste.cleansers.confusion_training import ConfusionTraining, base_model, views
from foretaste.io import atomic_json
from foretaste.samples import Samples

RESULT = RESULTS / "out_of_core.json"
SIDE, CLASSES, PIECE = 64, 10, 1000
STEPS = 20
"""Training steps of each model."""


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200_000, help="images")
    parser.add_argument("--out", type=Path, default=RESULT, help="where to write the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORETASTE_CACHE"] = str(Path(folder, "cache"))
        write_images(Path(folder, "images.npz"), options.n)
        result = measure(Path(folder, "images.npz"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_json(options.out, {**head(), **result})
    print(options.out.read_text(), end="")


def write_images(path: Path, n: int) -> None:
    """Write ``n`` images of noise, 64 x 64 pixels in colour, piece by piece and not compressed."""
    rng = np.random.default_rng(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, SIDE, SIDE, 3)}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, PIECE):
                file.write(rng.bytes(min(PIECE, n - start) * SIDE * SIDE * 3))
        with archive.open("y.npy", "w") as file:
            np.lib.format.write_array(file, np.arange(n) % CLASSES)


def measure(source: Path) -> dict[str, Any]:
    """Read the images, run a round over them, and return the figures."""
    with watched() as memory:
        began = time.perf_counter()
        samples = io.load(source)
        read = time.perf_counter()
        score(samples)
        scored = time.perf_counter()
    return {
        "n": len(samples),
        "shape": str(samples.sample_shape),
        "set_gb": gigabytes(samples.inputs.nbytes),
        "memory_mapped": isinstance(samples.inputs, np.memmap),
        "peak_anonymous_gb": gigabytes(memory["peak"]),
        "peak_resident_gb": gigabytes(status("VmHWM")),
        "seconds_reading": round(read - began, 1),
        "seconds_scoring": round(scored - read, 1),
    }


def score(samples: Samples) -> None:
    """Run one round, its trainings cut short."""
    method = ConfusionTraining(rounds=1, base_steps=STEPS, view_steps=STEPS, network_steps=STEPS)

    def shortened(*arguments: Any, steps: int, **options: Any) -> None:
        training.optimise(*arguments, steps=min(steps, STEPS), **options)

    with patch.object(base_model, "optimise", shortened), patch.object(views, "optimise", shortened):
        verdict = method.inspect(samples, None)
    if not np.isfinite(verdict.scores).all():
        raise SystemExit("some scores are not finite")


if __name__ == "__main__":
    main()
