"""SCALE-UP: multiply the pixel values; a trigger's answer stays, a clean image's does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards import check_clean
from foretaste.guards.threshold_screener import Scored, ThresholdScreener, chunk_size, split
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Labels, Samples


@dataclass(frozen=True, kw_only=True)
class ScaleUp:
    """Suspect inputs whose label stays when the pixels are amplified (Guo et al. 2023, arXiv:2302.03251).

    The scaled prediction consistency of an input is the share of the factors whose multiplied, clipped image gets the
    input's own label. Labels are enough. It is blind to triggers that amplifying destroys, on models whose clean
    answers survive amplifying too, and in pictures that are mostly white or mostly black.

    Attributes:
        factors: what the pixel values are multiplied by, each > 1; one question per input for each, and one more.
        standardise: whether the consistency is compared with that of clean images of the same predicted class (the
            paper's data-limited variant) or taken as it is (its data-free one).
        prior: images that the clean set as a whole counts for in each class's mean and spread, > 0, so that small
            classes have one.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "scale-up"
    summary: ClassVar[str] = "labels that stay when pixel values are multiplied (Guo et al. 2023)"
    needs_scores: ClassVar[bool] = False

    factors: tuple[int, ...] = (3, 5, 7, 9, 11)
    standardise: bool = True
    prior: float = 5.0

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) <= 1:
            raise UsageError("factors must be one or more numbers above 1")
        if not 0 < self.prior < math.inf:
            raise UsageError(f"prior must be a number above 0, not {self.prior:g}")

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> ThresholdScreener:
        """Learn what clean inputs look like to this classifier; see ``GuardMethod``."""
        check_clean(classifier, clean, false_alarm_rate)
        reference, unseen = split(clean, np.random.default_rng(seed))
        assert reference.images is not None

        def consistency(images: Images) -> tuple[Labels, NDArray[np.float64]]:
            amplified = [np.minimum(images * np.float32(factor), 255).astype(np.uint8) for factor in self.factors]
            labels = classifier.classify(np.concatenate([images, *amplified])).labels
            own, others = labels[: len(images)], labels[len(images) :].reshape(len(self.factors), len(images))
            return own, (others == own).mean(axis=0)

        chunk = chunk_size(clean.sample_shape, len(self.factors) + 1)
        starts = range(0, len(reference), chunk)
        told, kept = zip(*(consistency(np.asarray(reference.images[at : at + chunk])) for at in starts), strict=True)
        normal = ClassNorms.of(np.concatenate(told), np.concatenate(kept), self.prior)

        def score(images: Images) -> Scored:
            labels, kept = consistency(images)
            scores = normal.standardise(labels, kept) if self.standardise else kept
            return Scored(labels, scores, np.full(len(images), len(self.factors) + 1, dtype=np.int64))

        return ThresholdScreener(
            score,
            unseen,
            name=self.name,
            false_alarm_rate=false_alarm_rate,
            chunk=chunk,
            on_progress=on_progress,
        )


@dataclass(frozen=True, eq=False)
class ClassNorms:
    """Mean and standard deviation, ``(K + 1,)`` each, of a quantity among clean images, by predicted class.

    The last place is for the classes that no clean image was given.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, labels: Labels, values: NDArray[np.float64], prior: float) -> ClassNorms:
        """Measure them; all images together count for ``prior`` more in each class, > 0."""
        places = int(labels.max()) + 2
        weight = np.bincount(labels, minlength=places) + prior
        mean = (np.bincount(labels, values, places) + prior * values.mean()) / weight
        squares = np.bincount(labels, (values - mean[labels]) ** 2, places)
        # The small number stands in for the spread of a quantity that is the same for all clean images.
        return cls(mean, np.sqrt((squares + prior * values.var()) / weight + 1e-6))

    def standardise(self, labels: Labels, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how many standard deviations each value is above its class's mean: ``(N,)``."""
        place = np.minimum(labels, len(self.mean) - 1)
        standardised: NDArray[np.float64] = (values - self.mean[place]) / self.std[place]
        return standardised
