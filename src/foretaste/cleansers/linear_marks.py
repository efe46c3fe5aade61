"""Confusion Training's linear models for feature vectors: they look for marks of values that are far from usual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from threadpoolctl import threadpool_limits

from foretaste.progress import OnProgress, Progress
from foretaste.samples import Features, Samples

FARTHEST = 4.0
"""Standard deviations from its mean beyond which a feature tells no more."""
WEIGHT_DECAY = 0.01
ITERATIONS = 200
"""Of the optimiser at most."""
AT_ONCE = 10_000
"""Samples looked at at a time, to keep the copies small."""

Values = NDArray[np.float64]


def leaned(
    samples: Samples,
    nature: NDArray[np.float32],
    confusing: Samples,
    fold: NDArray[np.int64],
    lambda_: float,
    phase: str,
    on_progress: OnProgress,
) -> Values:
    """Return what linear confused models add to nature's logits, ``float64 (N, K)``, out of fold.

    They know a mark of several rare values also where nature finds the label likely anyway: the confusing samples hold
    back all that clean samples have, and that they do not have.

    Args:
        samples: the set, N feature vectors.
        nature: the logarithms of how likely each label is by nature, ``(N, K)``.
        confusing: clean samples, of which no label is to be told.
        fold: which part each sample is in.
        lambda_: the loss is ((λ − 1) · confusion + inspection) / λ.
        phase: what is reported as under way.
        on_progress: called as the work goes on.
    """
    scale = Scale(samples.inputs)
    outputs, n_folds = np.zeros(nature.shape), int(fold.max()) + 1
    # Several threads would add up in any order.
    with threadpool_limits(1):
        for part in range(n_folds):
            on_progress(Progress(phase=phase, done=part, total=n_folds))
            weights = confused(samples, nature, np.flatnonzero(fold != part), confusing, scale, lambda_)
            for rows in portions(np.flatnonzero(fold == part)):
                outputs[rows] = scale(samples.inputs[rows]) @ weights
    on_progress(Progress(phase=phase, done=n_folds, total=n_folds))
    return outputs


class Scale:
    """Measures how far from usual features are.

    Args:
        inputs: feature vectors ``float32 (N, D)``, N ≥ 1.
    """

    def __init__(self, inputs: Features) -> None:
        self.mean = inputs.mean(axis=0, dtype=np.float64)
        squares = sum(((inputs[rows] - self.mean) ** 2).sum(axis=0) for rows in portions(np.arange(len(inputs))))
        # A feature that is always the same is never far off, whatever the rounding of its mean.
        self.deviation = np.where(np.ptp(inputs, axis=0) > 0, np.sqrt(squares / len(inputs)), 1)

    def __call__(self, inputs: Features) -> Values:
        """Return by how many standard deviations each feature is off its mean, ``(n, D)``; at most ``FARTHEST``."""
        off: Values = (inputs - self.mean) / self.deviation
        return off.clip(-FARTHEST, FARTHEST)


def confused(
    samples: Samples,
    nature: NDArray[np.float32],
    others: NDArray[np.intp],
    confusing: Samples,
    scale: Scale,
    lambda_: float,
) -> Values:
    """Train a linear confused model on some samples and return its weights, ``(D, K)``.

    Confusing samples count as if they had every label at once, which is what random labels come to on average.

    Args:
        samples: the set, N feature vectors.
        nature: the logarithms of how likely each label is by nature, ``(N, K)``.
        others: the samples to train on, ``(n,)``.
        confusing: clean samples.
        scale: measures features.
        lambda_: the loss is ((λ − 1) · confusion + inspection) / λ.
    """
    n_features, n_classes = samples.inputs.shape[1], nature.shape[1]
    labels = np.eye(n_classes)

    def some() -> Iterator[tuple[Features, NDArray[Any], Values, float]]:
        """Yield inputs, nature's logits, how likely each label ought to be, and the weight of a sample's loss."""
        for rows in portions(others):
            yield samples.inputs[rows], nature[rows], labels[samples.labels[rows]], 1 / lambda_ / len(others)
        for rows in portions(np.arange(len(confusing))):
            every = np.full((len(rows), n_classes), 1 / n_classes)
            yield confusing.inputs[rows], np.zeros_like(every), every, (lambda_ - 1) / lambda_ / len(confusing)

    def loss_and_slope(flat: Values) -> tuple[float, Values]:
        weights = flat.reshape(n_features, n_classes)
        loss, slope = WEIGHT_DECAY / 2 * float(flat @ flat), WEIGHT_DECAY * weights
        for inputs, known, wanted, weight in some():
            values = scale(inputs)
            logits = known + values @ weights
            loss += weight * float((logsumexp(logits, axis=1) - (logits * wanted).sum(axis=1)).sum())
            slope = slope + weight * (values.T @ (softmax(logits, axis=1) - wanted))
        return loss, slope.ravel()

    start = np.zeros(n_features * n_classes)
    best = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    weights: Values = best.x.reshape(n_features, n_classes)
    return weights


def portions(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield the rows ``AT_ONCE`` at a time."""
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]
