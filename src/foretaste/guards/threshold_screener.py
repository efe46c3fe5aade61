"""A guard that is a score and a conformal threshold on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.calibration import conformal_threshold
from foretaste.errors import UsageError
from foretaste.guards.guard import Screening
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Images, Labels, Samples

BATCH = 2048
"""Changed images that a guard makes and asks about at a time, at most."""
MOST_PIXELS = 2**21
"""They have at most this many pixels together, which bounds the memory that they take: 2,048 images of 32×32."""


def chunk_size(sample_shape: tuple[int, ...], copies: int) -> int:
    """Return how many inputs of a shape a guard scores at a time that makes so many changed images of each, ≥ 1."""
    height, width, _ = sample_shape
    return max(min(BATCH, MOST_PIXELS // (height * width)) // copies, 1)


def split(clean: Samples, rng: Generator, *, part: int = 4) -> tuple[Samples, Samples]:
    """Split a clean set at random: one of ``part`` parts to learn from, and the rest, unseen, to set the threshold."""
    return clean.split(max(len(clean) // part, 1), rng)


@dataclass(frozen=True, eq=False)
class Scored:
    """How suspicious N inputs are.

    Attributes:
        labels: ``int64 (N,)``, the classifier's answers.
        scores: ``float64 (N,)``, finite, higher is more suspicious.
        queries: ``int64 (N,)``, questions asked for each.
    """

    labels: Labels
    scores: NDArray[np.float64]
    queries: NDArray[np.int64]


Score = Callable[[Images], Scored]
"""Scores inputs ``uint8 (N, H, W, C)``, N ≥ 1, each by itself: the others with it change nothing."""


class ThresholdScreener:
    """Calls an input trojaned whose score is above the threshold; knows no better label to give instead.

    Attributes:
        threshold: set from the clean scores.
    """

    def __init__(
        self,
        score: Score,
        unseen: Samples,
        *,
        name: str,
        false_alarm_rate: float,
        chunk: int,
        on_progress: OnProgress = silent,
    ) -> None:
        """Set the threshold.

        Args:
            score: how suspicious an input is.
            unseen: clean images that ``score`` has learnt nothing from.
            name: what progress reports call the guard.
            false_alarm_rate: in (0, 1).
            chunk: inputs to score at a time, ≥ 1.
            on_progress: called as the work goes on.
        """
        self._score, self._name, self._chunk, self._shape = score, name, chunk, unseen.sample_shape
        scored = self._in_chunks(unseen.inputs, f"{name}: calibrate", on_progress)
        self.threshold = conformal_threshold(scored.scores, false_alarm_rate)

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        """Screen inputs ``uint8 (N, H, W, C)``, any N ≥ 0, of the clean set's shape.

        ``corrected`` equals ``labels``, and no trigger is named.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        check_shape(images, self._shape)
        scored = self._in_chunks(images, f"{self._name}: screen", on_progress)
        return Screening(
            labels=scored.labels,
            corrected=scored.labels.copy(),
            trojaned=scored.scores > self.threshold.value,
            scores=scored.scores.astype(np.float32),
            trigger_ids=np.full(len(images), "", dtype=np.str_),
            queries=scored.queries,
        )

    def _in_chunks(self, images: Images, phase: str, on_progress: OnProgress) -> Scored:
        """Score the images, so many at a time."""
        if len(images) == 0:  # of which a classifier tells no scores
            return Scored(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int64))
        parts = []
        for start in range(0, len(images), self._chunk):
            parts.append(self._score(np.asarray(images[start : start + self._chunk])))
            on_progress(Progress(phase=phase, done=min(start + self._chunk, len(images)), total=len(images)))
        return Scored(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.queries for part in parts]),
        )


def check_shape(images: Images, sample_shape: tuple[int, ...]) -> None:
    """Refuse inputs that are not images of the clean set's shape.

    Raises:
        UsageError: they are not ``uint8 (N, *sample_shape)``.
    """
    if images.dtype != np.uint8 or images.shape[1:] != sample_shape:
        raise UsageError(
            f"the inputs must be images uint8 {('N', *sample_shape)}, as the clean set's are, "
            f"not {images.dtype} {images.shape}"
        )
