"""The classifiers that an attack trains one after the other, to try its poison on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from foretaste.nets import Net
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, train


def surrogate(
    samples: Samples, number: int, total: int, *, epochs: int, seed: int, workdir: Path | None, on_progress: OnProgress
) -> Net:
    """Train classifier ``number`` of ``total``, counted from 0, with a checkpoint and a seed of its own.

    Args:
        samples: the training set.
        number: in [0, total).
        total: how many the attack trains.
        epochs: passes over the training set.
        seed: of the first of them.
        workdir: a folder for checkpoints, or None.
        on_progress: called as the work goes on.

    Raises:
        UsageError: the set has samples of one class only.
        ForetasteError: the training failed.
    """

    def report(progress: Progress) -> None:
        on_progress(replace(progress, phase=f"train classifier {number + 1} of {total}"))

    own = None if workdir is None else workdir / f"classifier-{number}"
    if own is not None:
        own.mkdir(parents=True, exist_ok=True)
    return train(samples, plan=TrainingPlan(epochs=epochs), seed=seed + number, workdir=own, on_progress=report).net
