"""Thresholds that keep a promised rate of false alarms, whatever the scores are and however many are equal.

Split conformal prediction (Vovk, Gammerman, Shafer 2005; Angelopoulos and Bates 2021, arXiv:2107.07511): the scores of
n clean samples and the score of one more clean sample are exchangeable, so the chance that the new one is above the
k-th smallest of the old ones is at most 1 − k / (n + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where suspicion begins.

    Attributes:
        value: scores above it are suspicious; a score equal to it is not.
        rate: share of unseen clean inputs that it lets be called trojaned, in (0, 1), on average over clean sets.
        n: clean scores that it was set from, ≥ 1.
        guaranteed: whether the rate holds for any distribution of the scores. If not, there were too few clean scores
            for it, and it holds if the scores' upper half is exponential or falls off faster.
        scores: the clean scores themselves, ``(n,)``, rising.
    """

    value: float
    rate: float
    n: int
    guaranteed: bool
    scores: NDArray[np.float64] = field(repr=False, compare=False)


def conformal_threshold(scores: NDArray[np.floating], rate: float, confidence: float = 0.0) -> Threshold:
    """Set a threshold from the scores of clean inputs.

    With n ≥ 1 / rate − 1 scores it is the smallest of them that keeps the rate on unseen clean inputs. Equal scores
    can only make alarms rarer: if more than ``rate`` of the clean inputs share the highest score that there is, nothing
    is ever suspicious.

    With fewer, no threshold among the scores keeps the rate: above the highest lie 1 / (n + 1) of the clean inputs.
    An exponential tail, measured on the upper half of the scores, is taken to go on from there until it has fallen to
    ``rate``. For scores whose upper half is exponential the rate is exact, for lighter tails it is lower.

    Args:
        scores: ``(n,)``, finite, n ≥ 2; of inputs that nothing was fitted to.
        rate: in (0, 1).
        confidence: share of the clean sets, in [0, 1), of which each by itself is to keep the rate, where the scores
            are enough for that; 0 keeps it on average over clean sets.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    above = math.floor(rate * (n + 1) + 1e-9)
    # What lies above the k-th highest score is at most ``rate`` as often as a binomial count is k or more.
    while above > 1 and binom.sf(above - 1, n, rate) < confidence:
        above -= 1
    if above >= 1:
        return Threshold(value=float(ordered[n - above]), rate=rate, n=n, guaranteed=True, scores=ordered)
    return Threshold(value=float(ordered[-1]) + beyond(ordered, rate), rate=rate, n=n, guaranteed=False, scores=ordered)


def beyond(ordered: NDArray[np.float64], rate: float) -> float:
    """Return how far above the highest of n clean scores an exponential tail has fallen to ``rate`` < 1 / (n + 1).

    By Rényi's representation, the distance from one top score of n + 1 to the next is exponential and independent of
    the distances below, and the j-th of those weighs (j − 1) / j in the sum of the other scores' excesses. So the
    chance that a new score is the highest, and above the next by more than c mean excesses, is a product over the k
    excesses.
    """
    n, k = len(ordered), len(ordered) // 2
    weights = np.arange(1, k + 1) / np.arange(2, k + 2) / k

    def missing(c: float) -> float:
        return float(np.log1p(c * weights).sum()) + math.log(rate * (n + 1))

    highest = 1.0
    while missing(highest) < 0:
        highest *= 2
    return tail_scale(ordered) * float(brentq(missing, 0, highest))


def tail_scale(ordered: NDArray[np.float64]) -> float:
    """Return the mean excess of the upper half of rising scores ``(n,)`` over the next lower one, ≥ 0; n ≥ 2."""
    k = len(ordered) // 2
    return float((ordered[-k:] - ordered[-k - 1]).mean())
