"""Principal axes and covariances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plane(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the first two principal components of the points ``(N, D)``, ``float32 (N, 2)``."""
    centred = np.asarray(points, dtype=np.float32) - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    axes = principal_axes(centred, min(2, centred.shape[1]))
    flat = centred @ axes.T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))).astype(np.float32)


def principal_axes(centred: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Return the directions of largest variance of centred points ``(N, D)``, ``(count, D)``, with fixed signs."""
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = vectors.T[::-1][:count]
    # The sign of an eigenvector is arbitrary; fix it.
    largest = np.abs(axes).argmax(axis=1)
    fixed: NDArray[np.float64] = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return fixed


def regular(covariance: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Return a covariance ``(D, D)`` that is symmetric and can be inverted.

    Args:
        covariance: maybe of less than full rank.
        ridge: share of the mean variance that is added to the diagonal, > 0.
    """
    symmetric = (covariance + covariance.T) / 2
    return symmetric + np.eye(len(symmetric)) * max(ridge * float(np.trace(symmetric)) / len(symmetric), 1e-12)
