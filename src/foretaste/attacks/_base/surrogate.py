"""The classifiers that an attack trains one after the other, to try its poison on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from foretaste.nets import Net
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, train


def attackers_seed(seed: int, number: int = 0) -> int:
    """Return the seed of an attacker's classifier of this number.

    The victim's comes from the seed itself: an attacker who had it would have the victim's initial weights.
    """
    return int(np.random.SeedSequence([seed, 40, number]).generate_state(1)[0])


def surrogate(
    samples: Samples, number: int, total: int, *, epochs: int, seed: int, workdir: Path | None, on_progress: OnProgress
) -> Net:
    """Train classifier ``number`` of ``total``, counted from 0, with a checkpoint and a seed of its own.

    Args:
        samples: the training set.
        number: in [0, total).
        total: how many the attack trains.
        epochs: passes over the training set.
        seed: where their seeds come from.
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
    plan, own_seed = TrainingPlan(epochs=epochs), attackers_seed(seed, number)
    return train(samples, plan=plan, seed=own_seed, workdir=own, on_progress=report).net
