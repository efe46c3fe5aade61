"""Measure where the time of `foretaste cleanse` goes, on GTSRB with 1 % BadNets.

Run as ``python benchmarks/profile_cleanse.py`` with FORETASTE_DATA naming the folder of the data sets. The seconds of
each phase come from its progress reports. The linear confused model's step is timed twice, in turn: with the mean over
a 5 × 5 window that it first compared a pixel with, and with the four neighbours that replaced it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from record import RESULTS, head
from torch import Tensor, nn

import foretaste
from foretaste.attacks import BadNets, poison_training_set
from foretaste.cleansers.confused_models import Contrast, placed
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.io import atomic_json, load
from foretaste.progress import Progress

PAIRS = 20


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
    new, old = steps(samples.inputs[: ConfusionTraining.batch_size], len(samples.classes))
    figures = {
        "seconds": round(verdict.seconds, 1),
        "phases": {name: round(value, 2) for name, value in seconds.items()},
        "confused_step_ms": {"four neighbours": new, "5 x 5 window": old, "ratio": round(new / old, 2)},
    }
    print(figures)
    atomic_json(RESULTS / "profile.json", {**head(), **figures})


class Window(nn.Module):
    """Take from each pixel the mean of the 5 × 5 pixels around it, edges repeated."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the differences, no further than 1 from 0."""
        around = nn.functional.avg_pool2d(nn.functional.pad(images, (2,) * 4, mode="replicate"), 5, 1)
        return (images - around).clamp(-1, 1)


def steps(images: np.ndarray, n_classes: int) -> tuple[float, float]:
    """Return the median milliseconds of a forward and backward pass with the new and the old contrast."""
    model = placed(images.shape[1:], n_classes)
    model.whiten.measure(images)
    batch = torch.from_numpy(np.array(images))
    taken: dict[str, list[float]] = {"contrast": [], "window": []}
    kinds = {"contrast": Contrast(), "window": Window()}
    for _ in range(PAIRS):
        for name, kind in kinds.items():
            model.body = nn.Sequential(kind, nn.Flatten())
            began = time.perf_counter()
            model(batch).sum().backward()
            taken[name].append(1000 * (time.perf_counter() - began))
    return round(median(taken["contrast"]), 1), round(median(taken["window"]), 1)


if __name__ == "__main__":
    main()
