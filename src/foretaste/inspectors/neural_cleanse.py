"""Neural Cleanse: a label that a small trigger forces on all images has a backdoor (Wang et al., S&P 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.inspectors.diagnosis import Evidence, Finding, Subject
from foretaste.inspectors.inversion import Inverted, confirm, invert
from foretaste.inspectors.nulls import anomaly_indices, outlier_p_values
from foretaste.progress import OnProgress
from foretaste.samples import Samples
from foretaste.training import check

RECONSTRUCTED = 0.2
"""Labels with a p-value of the method's own up to this get their trigger tried; and the most suspicious always."""


@dataclass(frozen=True, kw_only=True)
class NeuralCleanse:
    """Invert a trigger for each label, and look for the one whose trigger is unusually small (Wang et al., S&P 2019).

    The statistic is the paper's anomaly index: how many robust standard deviations (median absolute deviation) a
    label's mask is smaller than the labels' median. Sizes are compared on a logarithmic scale, on which those of clean
    labels are about normal; on the paper's linear scale a mask of size 0 can be no outlier where sizes vary much. A
    label for which no trigger is found counts with the size of the whole image, so that it is no suspect.

    Attributes:
        steps: of Adam per label, ≥ 1. The paper takes a thousand at a third of the rate; the order of the masks changes
            little after the first hundred.
        images: clean images per label and step, ≥ 1.
        learning_rate: of Adam, > 0.
        success: share of the clean images that a trigger must turn, in (0, 0.999]; the paper's 0.99 asks for more
            images than a step has. It is a running mean over the steps, which never quite gets to 1.
        cost: first weight of the mask's size in the loss, per pixel, > 0; it adapts itself.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "neural-cleanse"
    summary: ClassVar[str] = "inverts a trigger per class; needs weights and clean images (Wang et al. 2019)"
    needs_weights: ClassVar[bool] = True
    fewest_clean: ClassVar[int] = 40
    fewest_classes: ClassVar[int] = 4

    steps: int = 100
    images: int = 16
    learning_rate: float = 0.3
    success: float = 0.95
    cost: float = 0.01

    def __post_init__(self) -> None:
        check(self.steps >= 1, "steps must be 1 or more")
        check(self.images >= 1, "images must be 1 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(0 < self.success <= 0.999, "success must be in (0, 0.999]")
        check(self.cost > 0, "cost must be above 0")

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        """Invert a trigger for each label, and compare their sizes; see ``Inspector``."""
        assert clean is not None
        inverted = self.invert(subject, clean, list(range(len(subject.classes))), seed, on_progress)
        sizes = np.array([one.size for one in inverted])
        indices = size_anomalies(inverted)
        p_values = outlier_p_values(indices)
        evidence = tuple(
            Evidence(
                target=one.target,
                statistic=float(index),
                p_value=float(p),
                reason=f"a trigger of {one.size:.1f} pixels forces it; the classes' median is {np.median(sizes):.1f}"
                if one.succeeded
                else "no trigger was found that forces it",
            )
            for one, index, p in zip(inverted, indices, p_values, strict=True)
        )
        tried = {int(indices.argmax()), *np.flatnonzero(p_values <= RECONSTRUCTED).tolist()}
        return Finding(
            evidence=evidence,
            reconstructions=tuple(
                confirm(inverted[label], subject, clean, seed) for label in sorted(tried) if inverted[label].succeeded
            ),
        )

    def invert(
        self, subject: Subject, clean: Samples, targets: list[int], seed: int, on_progress: OnProgress
    ) -> list[Inverted]:
        """Return the smallest trigger of each of the targets."""
        assert subject.weights is not None
        return invert(
            subject.weights,
            clean,
            targets,
            steps=self.steps,
            images=self.images,
            learning_rate=self.learning_rate,
            success=self.success,
            cost=self.cost,
            seed=seed,
            phase=self.name,
            on_progress=on_progress,
        )


def size_anomalies(inverted: list[Inverted]) -> NDArray[np.float64]:
    """Return how much smaller the trigger of each label is than the labels' median, as anomaly indices ``(K,)``."""
    found = np.array([one.succeeded for one in inverted])
    return anomaly_indices(-np.log([one.size for one in inverted]), found)
