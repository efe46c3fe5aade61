"""STRIP: mix an input with clean images; a trigger decides the answer all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards import check_clean
from foretaste.guards.threshold_screener import Scored, ThresholdScreener, chunk_size, split
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples


@dataclass(frozen=True, kw_only=True)
class STRIP:
    """Suspect inputs whose answers stay certain under overlaid clean images (Gao et al. 2019, arXiv:1902.06531).

    A score is minus the mean entropy, in nats, of the answers to the input with each overlay added to it. The overlays
    are the same for every input. The method sees triggers that survive the mixing: bold patches best. It is blind to
    triggers that the mixing destroys (faint, warped) or that work on one class only, and it needs scores.

    Attributes:
        overlays: clean images to lay over each input, ≥ 1; at most a quarter of the clean set is used. The questions
            per input are one more.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "strip"
    summary: ClassVar[str] = "answers that stay certain under overlaid clean images (Gao et al. 2019); needs scores"
    needs_scores: ClassVar[bool] = True

    overlays: int = 100

    def __post_init__(self) -> None:
        if self.overlays < 1:
            raise UsageError(f"overlays must be 1 or more, not {self.overlays}")

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
        overlays = np.asarray(reference.images[: self.overlays]).astype(np.uint16)
        scores = classifier.classify(np.asarray(reference.images)).scores
        if scores is None:
            raise UsageError(f"{self.name} needs the classifier's scores, and this one gives labels alone")
        probabilities = are_probabilities(scores)

        def score(images: Images) -> Scored:
            n, k = len(images), len(overlays)
            mixed = np.minimum(images[:, None].astype(np.uint16) + overlays, 255).astype(np.uint8)
            told = classifier.classify(np.concatenate([images, mixed.reshape(n * k, *images.shape[1:])]))
            assert told.scores is not None
            uncertain = entropy(told.scores[n:], probabilities=probabilities).reshape(n, k).mean(axis=1)
            return Scored(told.labels[:n], -uncertain, np.full(n, k + 1, dtype=np.int64))

        return ThresholdScreener(
            score,
            unseen,
            name=self.name,
            false_alarm_rate=false_alarm_rate,
            chunk=chunk_size(clean.sample_shape, len(overlays)),
            on_progress=on_progress,
        )


def are_probabilities(scores: NDArray[np.float32]) -> bool:
    """Return whether each row of scores ``(N, K)`` is a distribution over the classes; else they are logits."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))


def entropy(scores: NDArray[np.float32], *, probabilities: bool) -> NDArray[np.float64]:
    """Return the Shannon entropy in nats ``(N,)`` of each row of probabilities or logits ``(N, K)``."""
    values = scores.astype(np.float64)
    uncertainty: NDArray[np.float64] = entr(values if probabilities else softmax(values, axis=1)).sum(axis=1)
    return uncertainty
