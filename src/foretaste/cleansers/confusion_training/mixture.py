"""Which samples of a condemned class are poison: a mixture of two Student distributions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from foretaste.samples import Mask

FREEDOM = 4.0
"""Degrees of freedom of both distributions, the usual choice where outliers are expected."""
STEPS = 30
"""Of expectation maximisation."""
NARROWEST = 0.1
"""Standard deviation of either distribution at least, in every direction, in multiples of the cut."""


def posterior_log_odds(
    scores: NDArray[np.floating], seeds: Mask, disagree: Mask, possible: Mask
) -> NDArray[np.float64]:
    """Return the log odds that each sample is poison, ``float64 (n,)``; −∞ where it cannot be.

    One Student distribution for the poison and one for the rest are fitted by expectation maximisation (Peel and
    McLachlan 2000), which starts from the seeds. Their heavy tails keep a few samples that fit neither from widening
    one until it holds them. Samples that disagree with the base model have one share of poison, the others another:
    poison from another class disagrees, so a sample that agrees needs clearer scores.

    Args:
        scores: out-of-fold scores, ``(n, M)``, in multiples of the cut; higher is more suspicious.
        seeds: ``bool (n,)``, poison to begin with; at least one.
        disagree: ``bool (n,)``, samples whose label is not the base model's answer.
        possible: ``bool (n,)``, samples that may be poison, the seeds among them; the others show how the rest
            scores.
    """
    values, poison = scores.astype(np.float64), seeds.astype(np.float64)
    odds, size = np.zeros(len(values)), values.shape[1]
    # How much each sample counts in either distribution: less the further out it lies.
    inner = {sign: np.ones(len(values)) for sign in (1, -1)}
    for _ in range(STEPS):
        odds = np.zeros(len(values))
        means = []
        for weights, sign in ((poison, 1), (1 - poison, -1)):
            total = weights.sum() + 1e-9
            pulls = weights * inner[sign]
            mean = pulls @ values / (pulls.sum() + 1e-9)
            centred = values - mean
            spread = (pulls[:, None] * centred).T @ centred / total + NARROWEST**2 * np.eye(size)
            distances = (centred @ np.linalg.inv(spread) * centred).sum(axis=1)
            inner[sign] = (FREEDOM + size) / (FREEDOM + distances)
            density = np.linalg.slogdet(spread)[1] + (FREEDOM + size) * np.log1p(distances / FREEDOM)
            odds -= sign * density / 2
            means.append(mean)
        odds[~possible] = -np.inf
        for group in (possible & disagree, possible & ~disagree):
            share = (poison[group].sum() + 0.5) / (np.count_nonzero(group) + 1)
            odds[group] += math.log(share / (1 - share))
        # A wide distribution of poison reaches around a narrow one of clean samples; what lies on the far side of the
        # clean samples, seen from the poison, is none.
        toward = means[0] - means[1]
        odds[(values - means[1]) @ toward <= 0] = -np.inf
        poison = expit(odds)
    return odds
