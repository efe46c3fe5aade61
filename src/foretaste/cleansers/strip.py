"""STRIP on a training set: a trigger decides the victim's answer even under overlaid clean images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax
from scipy.stats import norm

from foretaste.cleansers._base.conclusion import conclude_by_sample, references, require_images
from foretaste.cleansers._base.victim import AT_ONCE, OnVictim, Victim
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Images, Samples
from foretaste.training import check


@dataclass(frozen=True, kw_only=True)
class STRIP(OnVictim):
    """Flag samples whose answers stay certain when clean images are added to them (Gao et al. 2019, arXiv:1902.06531).

    A score is minus the mean entropy, in nats, of the classifier's answers to the sample with each overlay added to it.
    The threshold is the paper's: a normal distribution is fitted to the entropies of clean samples, and its lowest
    ``false_alarm_rate`` are suspicious. Half of the clean set is overlaid, the other half sets the threshold.

    Needs images.

    Attributes:
        overlays: clean images to add to each sample, ≥ 1.
        false_alarm_rate: of the clean samples, in (0, 0.5), if their entropies are normal.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 4.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "strip"
    summary: ClassVar[str] = "answers that stay certain under overlaid clean images (arXiv:1902.06531)"

    overlays: int = 32
    false_alarm_rate: float = 0.01
    substitute: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.overlays >= 1, "overlays must be 1 or more")
        check(0 < self.false_alarm_rate < 0.5, "false_alarm_rate must be in (0, 0.5)")
        check(self.substitute >= 4, "substitute must be 4 or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``.

        Raises:
            UsageError: the samples are feature vectors, or there are fewer than 4 clean ones.
        """
        start, rng = time.perf_counter(), np.random.default_rng(seed)
        require_images(self.name, samples)
        trusted, notes = references(samples, clean, self.substitute, rng)
        if len(trusted) < 4:
            raise UsageError(f"{self.name} needs 4 clean samples or more, not {len(trusted)}")
        victim = self.victim(samples, seed, workdir, on_progress)
        overlaid, unseen = trusted.split(len(trusted) // 2, rng)
        chosen = rng.choice(len(overlaid), min(self.overlays, len(overlaid)), replace=False)
        overlays = np.asarray(overlaid.inputs[np.sort(chosen)])
        usual = mixed_entropies(victim, unseen.inputs, overlays)
        scores = -mixed_entropies(victim, samples.inputs, overlays, on_progress)
        return conclude_by_sample(
            self.name,
            samples,
            scores=scores,
            limit=-float(norm.ppf(self.false_alarm_rate, usual.mean(), max(float(usual.std()), 1e-12))),
            unit="negative entropy in nats",
            seed=seed,
            start=start,
            notes=notes,
        )


def mixed_entropies(
    victim: Victim, images: Images, overlays: Images, on_progress: OnProgress = silent
) -> NDArray[np.float64]:
    """Return the mean entropy in nats, ``(N,)``, of the answers to each image with each overlay added to it.

    Args:
        victim: what answers.
        images: ``uint8 (N, H, W, C)``, may be memory-mapped.
        overlays: ``uint8 (M, H, W, C)``.
        on_progress: called as the work goes on.
    """
    entropies = np.empty(len(images))
    at_once = max(AT_ONCE // len(overlays), 1)
    for first in range(0, len(images), at_once):
        batch = np.asarray(images[first : first + at_once])
        mixed = np.minimum(batch[:, None].astype(np.uint16) + overlays, 255).astype(np.uint8)
        answers = softmax(victim.predict(mixed.reshape(-1, *images.shape[1:])).astype(np.float64), axis=1)
        entropies[first : first + len(batch)] = entr(answers).sum(axis=1).reshape(len(batch), -1).mean(axis=1)
        on_progress(Progress(phase="overlay", done=first + len(batch), total=len(images)))
    return entropies
