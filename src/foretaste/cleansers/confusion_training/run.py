"""What the steps of one inspection share: the set, the clean references, the device, the random streams."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foretaste import __version__
from foretaste.cleansers._base.pixel_features import Whiten
from foretaste.nets.net import Standardise
from foretaste.progress import OnProgress
from foretaste.samples import Labels, Mask, Samples
from foretaste.training import Compute, DeviceSet, fingerprint, permutation

if TYPE_CHECKING:
    from foretaste.cleansers.confusion_training.confusion_training import ConfusionTraining


class Stream(IntEnum):
    """Names of the random streams."""

    BASE_WEIGHTS = 10
    BASE = 11
    NETWORK_WEIGHTS = 12
    NETWORK = 13
    LINEAR = 14
    DETECTOR = 15
    DISTIL = 200
    STAND_INS = 300


class Run:
    """One inspection.

    Args:
        method: the hyperparameters.
        samples: the set to inspect, N images.
        clean: trusted samples, or None.
        seed: where all random numbers come from.
        workdir: folder of the checkpoints, or None.
        on_progress: called as the work goes on.

    Attributes:
        fold: ``int64 (N,)``, the fold that each sample is judged in.
        key_of_round: names what the checkpoints of the current round depend on.
    """

    def __init__(
        self,
        method: ConfusionTraining,
        samples: Samples,
        clean: Samples | None,
        seed: int,
        workdir: Path | None,
        on_progress: OnProgress,
    ) -> None:
        self.method, self.samples, self.clean, self.seed = method, samples, clean, seed
        self.workdir, self.on_progress = workdir, on_progress
        self.compute = Compute()
        self.data = DeviceSet(samples, self.compute.device)
        # Every network sees its inputs on the same scale.
        scale, colours = Standardise(samples.sample_shape), Whiten(samples.sample_shape)
        scale.measure(samples.inputs)
        colours.measure(samples.inputs)
        self.standardise, self.whiten = scale.state_dict(), colours.state_dict()
        self.fold: NDArray[np.int64] = permutation(len(samples), seed, 0).numpy() % method.folds
        self.key = fingerprint(samples, "no clean set" if clean is None else clean, method, seed, __version__)
        self.key_of_round = self.key

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if self.clean is not None:
            return ()
        halves = -(-np.bincount(self.samples.labels) // 2)
        count = min(self.method.substitute, int(halves.sum()))
        return (
            f"no clean set was given: {count:,} of the set's own samples, of those whose label looked most natural, "
            "stood in for it",
        )

    def begin_round(self, excluded: Mask) -> None:
        """Give the checkpoints of a round a key of their own: those of other exclusions are not gone on with."""
        self.key_of_round = fingerprint(self.key, excluded.tobytes())

    def checkpoint(self, name: str) -> Path | None:
        """Return the file that a training keeps its state in."""
        return None if self.workdir is None else self.workdir / f"{name}.safetensors"

    def clean_references(self, own_label: NDArray[np.floating], excluded: Mask, number: int) -> Samples:
        """Return the clean set, or, without one, a random part of the samples whose labels look most natural.

        Args:
            own_label: how likely the base model finds each sample's label, ``(N,)``.
            excluded: ``bool (N,)``, samples that are not to be among them.
            number: of the round, from 0.
        """
        if self.clean is not None:
            return self.clean
        likely = better_half(own_label, self.samples.labels, excluded)
        chosen = permutation(len(likely), self.seed, Stream.STAND_INS + number).numpy()[: self.method.substitute]
        return self.samples[np.sort(likely[chosen])]


def better_half(own_label: NDArray[np.floating], labels: Labels, excluded: Mask) -> NDArray[np.intp]:
    """Return the half of each class whose labels are the likeliest.

    Of each class: what samples of an easy class do not show, the views would not unlearn of the others.

    Args:
        own_label: how likely the base model finds each sample's label, ``(N,)``.
        labels: of the samples, ``(N,)``.
        excluded: ``bool (N,)``, samples that are not taken; not all.
    """
    halves = []
    for label in np.unique(labels[~excluded]):
        rows = np.flatnonzero((labels == label) & ~excluded)
        halves.append(rows[np.argsort(-own_label[rows], kind="stable")[: -(-len(rows) // 2)]])
    return np.concatenate(halves)
