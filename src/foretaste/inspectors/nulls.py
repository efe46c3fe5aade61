"""What clean models look like: p-values from clean models that were measured, or from the other classes of the model.

All p-values here are of the most suspicious of several: how often the highest of all statistics of a clean model is as
high as this one. So each may be compared with a false-alarm rate as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foretaste.samples import Mask

MAD_OF_NORMAL = 1.4826
"""Makes the median absolute deviation of normal values their standard deviation."""
MAD_EFFICIENCY = 0.37
"""The scale that the median absolute deviation of n normal values gives is as uncertain as the standard deviation of
0.37 n of them (Rousseeuw and Croux 1993)."""
FEWEST_NULL_MODELS = 3
"""Fewer clean models say nothing of how scores are spread."""
LEAST_SPREAD = 1e-3
"""Standard deviation of clean models' scores at least, as a share of their mean: they are not known any better."""


def anomaly_indices(values: NDArray[np.float64], known: Mask | None = None) -> NDArray[np.float64]:
    """Return how far each of the K values lies above their median, in robust standard deviations, ``(K,)``.

    Args:
        values: ``(K,)``.
        known: ``bool (K,)``, which of them are known; None if all are. The others are lower, and all stand at one
            bound: that they are equal must not make the spread small.
    """
    deviations = values - np.median(values)
    spread = MAD_OF_NORMAL * float(np.median(np.abs(deviations)))
    if known is not None and known.any():
        spread = max(spread, MAD_OF_NORMAL * float(np.median(np.abs(deviations[known]))))
    # Values of which most are equal have no spread: one that stands out then does so without bound.
    indices: NDArray[np.float64] = deviations / max(spread, 1e-12)
    return indices


def outlier_p_values(indices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how often the highest of K normal values has as high an anomaly index, ``(K,)``."""
    n = len(indices)
    each = stats.t.sf(indices, df=max(MAD_EFFICIENCY * (n - 1), 1.0))
    return highest_of(each, n)


def highest_of(each: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the p-values of the highest of n independent values from those of a single one."""
    values: NDArray[np.float64] = -np.expm1(n * np.log1p(-np.minimum(each, 1 - 1e-16)))
    return values


def measured_p_values(
    statistics: NDArray[np.float64], null: NDArray[np.float64], rate: float, own: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str]:
    """Return how often a clean model's score is as high as each statistic, and a note on how that is known.

    With n ≥ 1 / rate − 1 clean models it is the conformal p-value, which holds for any distribution of the scores:
    (1 + the null scores that are as high) / (n + 1). Fewer models cannot reach the rate that way; then the scores are
    taken as normal, and the p-value is that of Student's prediction interval, but never less than the method's own. The
    highest of several statistics has a longer tail than a normal value, and scores that are logarithms of p-values can
    all be 0: the spread of so few makes the interval too narrow.

    Args:
        statistics: ``(M,)``.
        null: the clean models' scores, ``(n,)``, n ≥ 3.
        rate: the false-alarm rate, in (0, 1).
        own: the method's own p-values, ``(M,)``.
    """
    n = len(null)
    if n + 1 >= 1 / rate:
        as_high = (null[None, :] >= statistics[:, None]).sum(axis=1)
        return (1 + as_high) / (n + 1), f"p-values are conformal, from {n} clean models"
    spread = max(float(null.std(ddof=1)), LEAST_SPREAD * abs(float(null.mean())), 1e-12) * np.sqrt(1 + 1 / n)
    values: NDArray[np.float64] = np.maximum(stats.t.sf((statistics - null.mean()) / spread, df=n - 1), own)
    return values, (
        f"p-values take the scores of the {n} clean models as normal, and are never less than the method's own; "
        f"{int(np.ceil(1 / rate)) - 1} clean models would need no such assumption"
    )
