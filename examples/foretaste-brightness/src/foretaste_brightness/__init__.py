"""A cleanser that suspects samples which are much brighter than their class."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import ClassVar

import numpy as np

from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.progress import OnProgress
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Suspect the samples that are much brighter than their class.

    Attributes:
        limit: flagged above this many standard deviations, > 0.
    """

    name: ClassVar[str] = "brightness"
    summary: ClassVar[str] = "samples much brighter than their class"

    limit: float = 4.0

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample."""
        start = perf_counter()
        light = samples.inputs.reshape(len(samples), -1).mean(axis=1)
        scores = np.zeros(len(samples), dtype=np.float32)
        evidence = []
        for label in range(len(samples.classes)):
            members = samples.labels == label
            scores[members] = (light[members] - light[members].mean()) / max(float(light[members].std()), 1e-6)
            highest, found = float(scores[members].max()), int((scores[members] > self.limit).sum())
            evidence.append(
                ClassEvidence(
                    label=label,
                    n_samples=int(members.sum()),
                    n_suspects=found,
                    n_flagged=found,
                    statistic=highest,
                    threshold=self.limit,
                    condemned=found > 0,
                    reason=f"the brightest sample is {highest:.1f} standard deviations above the class",
                )
            )
        return Verdict(
            scores=scores,
            flagged=scores > self.limit,
            classes=tuple(evidence),
            method=self.name,
            seed=seed,
            seconds=perf_counter() - start,
        )
