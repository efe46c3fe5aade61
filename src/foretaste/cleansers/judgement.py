"""From what the confused models say of each sample to who is poison: Confusion Training's verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom, multivariate_normal

from foretaste.cleansers.verdict import ClassEvidence
from foretaste.samples import Mask, Samples

HUMP = 1 / 3
"""In a condemned class, samples with natural labels that score below this share of the suspects' median are strays."""
OVERWHELMING = 2
"""Where rounds find this many times the evidence that condemns a class, by its exponent, it stays condemned."""
IN_DOUBT = 2
"""A class that is not condemned is in doubt if its suspects are less likely than this negative power of ten."""
EM_STEPS = 30
NARROWEST = 0.1
"""Standard deviation of either distribution at least in any direction, in multiples of the cut."""

Scores = NDArray[np.float32]
Distinct = Callable[[NDArray[np.intp], Scores], Scores]
"""Given suspects of one class and their scores, returns the scores that count as evidence, of things that differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What the confused models of one round say of N samples, each judged by models that never saw its label.

    Attributes:
        gains: per kind of model ``float32 (N,)``, by what power of e the sample's own label became likelier.
        doubted: ``bool (N,)``, samples whose label is not what nature says.
        telling: per kind ``bool (N,)``, or one for all kinds: samples by whose gains a class may be condemned.
        patterned: ``bool (N,)``, samples that carry a pattern which parts their class in two.
        distinct: leaves the scores that count as evidence.
        residual: ``float32 (N, n)``, the outputs of the first kind.
    """

    gains: tuple[NDArray[np.float32], ...]
    doubted: Mask
    telling: Mask
    patterned: Mask
    distinct: Distinct
    residual: NDArray[np.float32]


def judge(
    samples: Samples, heard: Heard, *, spread: float, gain: float, significance: float
) -> tuple[Scores, Mask, tuple[ClassEvidence, ...]]:
    """Return the scores per kind of model, ``float32 (kinds, N)``, who is flagged, ``bool (N,)``, and the evidence.

    A score of 1 is at the cut.

    A class is condemned by its telling suspects: those above the cut of one kind of model, with near-duplicates counted
    once. In a condemned class the suspects of the kind that is surest are what the poison looks like, by all kinds. But
    if most of what then looks like poison carries the pattern that parts the class, and most of what carries it has its
    natural label, the pattern is the mark.

    Args:
        samples: N samples.
        heard: what was found of them.
        spread: the cut lies this many standard deviations of the gains above 0, > 0.
        gain: and is at least this, > 0.
        significance: of the classes that are condemned this share at most is expected to be clean, in (0, 1).
    """
    cuts = [max(spread * robust_deviation(gains), gain) for gains in heard.gains]
    scores = np.stack([gains / cut for gains, cut in zip(heard.gains, cuts, strict=True)])
    above_cut, highest, likelier = scores > 1, scores.max(axis=0), np.max(heard.gains, axis=0)
    chances = chances_if_clean(scores, heard, samples)
    present = np.isin(np.arange(len(samples.classes)), samples.labels)
    allowed = false_discovery_limit(chances[present].min(axis=1), significance)
    flagged = np.zeros(len(samples), dtype=np.bool_)
    evidence = []
    for label, name in enumerate(samples.classes):
        members = samples.labels == label
        suspects = members & above_cut
        n_suspects = int(suspects.any(axis=0).sum())
        # Of two kinds that are as sure, the one with more suspects.
        surest = np.lexsort((-suspects.sum(axis=1), chances[label]))[0]
        least = float(chances[label, surest])
        found = np.zeros_like(members)
        start, doubted = suspects[surest, members], heard.doubted[members]
        if least <= allowed and start.any():
            odds = hump(scores[:, members].T, start, doubted)
            found[members] = (odds > 0) & credible(highest[members], start, doubted)
            carriers = members & heard.patterned
            if most(found, carriers) and was_learnt(carriers, heard.doubted):
                found = carriers
        flagged |= found
        evidence.append(
            ClassEvidence(
                label=label,
                n_samples=int(members.sum()),
                n_suspects=n_suspects,
                n_flagged=int(found.sum()),
                statistic=math.log10(1 / least),
                threshold=-math.log10(allowed),
                condemned=bool(found.any()),
                reason=reason(name, n_suspects, likelier[found]),
            )
        )
    return scores.astype(np.float32), flagged, tuple(evidence)


def chances_if_clean(scores: Scores, heard: Heard, samples: Samples) -> NDArray[np.float64]:
    """Return per class and kind of model how likely such suspects are if the class is clean, ``(K, kinds)``.

    Args:
        scores: per kind those of N samples, ``(kinds, N)``.
        heard: what was found of them.
        samples: N samples.
    """
    chances = np.empty((len(samples.classes), len(scores)))
    suspects = (scores > 1) & heard.telling
    for label in range(len(samples.classes)):
        for kind, of_kind in enumerate(scores):
            rows = np.flatnonzero(suspects[kind] & (samples.labels == label))
            # Each kind of model is one more chance to be wrong.
            chances[label, kind] = min(1, len(scores) * tail_probability(heard.distinct(rows, of_kind[rows])))
    return chances


def reason(name: str, n_suspects: int, gains: Scores) -> str:
    """Return in a sentence why the class of this name was condemned or cleared.

    Args:
        name: the class's.
        n_suspects: samples of it above the cut.
        gains: of its flagged samples, none if it was cleared.
    """
    if len(gains):
        return (
            f"{len(gains)} samples carry a mark that has nothing to do with what {name} looks like, and that makes "
            f"this label {math.exp(float(np.median(gains))):,.0f} times likelier"
        )
    if n_suspects:
        return f"{n_suspects} suspects, too few, too alike or too close to the clean samples to be a group of their own"
    return "no suspects"


def standing(
    flagged: Mask,
    evidence: tuple[ClassEvidence, ...],
    flagged_before: Mask,
    before: tuple[ClassEvidence, ...],
    labels: NDArray[np.int64],
) -> tuple[Mask, tuple[ClassEvidence, ...]]:
    """Return who is flagged, and the evidence, with what a round before found overwhelming and this one does not find.

    The convolutional models of a round may fail to learn a mark that differs from image to image.

    Args:
        flagged: ``bool (N,)``, in this round.
        evidence: of this round.
        flagged_before: ``bool (N,)``, in the round before.
        before: its evidence; none if there was no such round.
        labels: of the samples, ``(N,)``.
    """
    stays = {
        earlier.label
        for entry, earlier in zip(evidence, before, strict=bool(before))
        if earlier.condemned and not entry.condemned and earlier.statistic >= OVERWHELMING * earlier.threshold
    }
    of_before = np.isin(labels, list(stays))
    kept = tuple(before[entry.label] if entry.label in stays else entry for entry in evidence)
    return np.where(of_before, flagged_before, flagged), kept


def confirm(evidence: tuple[ClassEvidence, ...], before: tuple[ClassEvidence, ...]) -> tuple[ClassEvidence, ...]:
    """Return the evidence with those classes cleared that the round before, if there was one, did not condemn.

    Odd but natural looks may form a hump in one round; once a trigger does, it does in every round. But a class stays
    condemned if the evidence of both rounds is overwhelming.
    """
    return tuple(
        replace(
            entry,
            condemned=False,
            n_flagged=0,
            reason="the suspects are a group of their own in this round, but were none in the round before",
        )
        if entry.condemned
        and earlier is not None
        and not earlier.condemned
        and entry.statistic + earlier.statistic < OVERWHELMING * entry.threshold
        else entry
        for entry, earlier in zip_longest(evidence, before)
    )


def counted(
    evidence: tuple[ClassEvidence, ...], samples: Samples, flagged: Mask, gains: Scores
) -> tuple[ClassEvidence, ...]:
    """Return the evidence with who was flagged in the end.

    Args:
        evidence: per class.
        samples: N samples.
        flagged: ``bool (N,)``.
        gains: by what power of e each sample's label became likelier, ``(N,)``.
    """
    of_class = [flagged & (samples.labels == entry.label) for entry in evidence]
    return tuple(
        replace(
            entry,
            condemned=True,
            n_flagged=int(found.sum()),
            reason=reason(samples.classes[entry.label], entry.n_suspects, gains[found]),
        )
        if found.any()
        else entry
        for entry, found in zip(evidence, of_class, strict=True)
    )


def most(some: Mask, others: Mask) -> bool:
    """Tell whether most of some samples, if there are any, are among others; both ``bool (N,)``."""
    return bool(np.count_nonzero(some & others) > np.count_nonzero(some) / 2)


def was_learnt(found: Mask, doubted: Mask) -> bool:
    """Tell whether nature took a mark for its own: most of those that were found to carry it have their natural label.

    Args:
        found: ``bool (N,)``, flagged samples of one class, at least one.
        doubted: ``bool (N,)``, those whose label is not what nature says.
    """
    return most(found, ~doubted)


def in_doubt(evidence: tuple[ClassEvidence, ...]) -> bool:
    """Tell whether there is a class that is not condemned, but has suspects who look as if they may become a group."""
    return any(not entry.condemned and entry.statistic >= IN_DOUBT for entry in evidence)


def named(outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Scores:
    """Return by what power of e outputs ``(N, K)`` make each sample's own label likelier, ``float32 (N,)``."""
    gains: Scores = (outputs[np.arange(len(labels)), labels] - outputs.mean(axis=1)).astype(np.float32)
    return gains


def robust_deviation(scores: Scores) -> float:
    """Return the standard deviation that normal scores of this median absolute deviation would have."""
    return float(1.4826 * np.median(np.abs(scores - np.median(scores))))


def tail_probability(scores: Scores) -> float:
    """Return how likely scores above the cut, at 1, are to be the tail of clean ones, in (0, 1]; not below 1e-300.

    Clean scores thin out: of those above the cut, fewer than one in e² lies above 1.5 times the cut. Poison forms a
    hump of its own far above it. So this is the binomial probability of as many above 1.5 times the cut as there are.
    """
    above = np.count_nonzero(scores > 1.5)
    return max(float(binom.sf(above - 1, len(scores), math.exp(-2))), 1e-300)


def false_discovery_limit(chances: NDArray[np.float64], significance: float) -> float:
    """Return the chance up to which classes are condemned (Benjamini, Krieger and Yekutieli 2006).

    Of the classes that it condemns, a share of ``significance`` at most is expected to be clean. One class among K
    needs a chance of ``significance / K``; where many are poisoned, as in all-to-all attacks, each needs less, and all
    the less the fewer are left that may be clean.

    Args:
        chances: of each class's evidence if the class were clean, ``(K,)``.
        significance: in (0, 1).
    """
    ordered = np.sort(chances)
    shares, n_condemned = significance * np.arange(1, len(chances) + 1), 0
    # First as if all were clean, then as if those were that the first pass leaves.
    for _ in range(2):
        n_clean = max(len(chances) - n_condemned, 1)
        n_condemned = int(np.max(np.flatnonzero(ordered <= shares / n_clean), initial=-1)) + 1
    return float(shares[max(n_condemned, 1) - 1] / n_clean)


def hump(measures: NDArray[np.float32], suspects: Mask, doubted: Mask) -> NDArray[np.float64]:
    """Return the log odds that a sample of a condemned class is poison, ``float64 (N,)``.

    A normal distribution for poison and one for clean samples are fitted to the measures by expectation maximisation,
    with one share of poison among the samples whose label is not what nature says, and another among those whose label
    is. So a doubted sample needs less; where the poison spreads wide, it may even lie below the clean samples.

    Args:
        measures: of the class's samples, ``(N, M)``, where poison may differ; in multiples of the cut.
        suspects: ``bool (N,)``, who is taken for poison to begin with; at least one.
        doubted: ``bool (N,)``, those whose label is not what nature says.
    """
    values, poison = measures.astype(np.float64), suspects.astype(np.float64)
    odds = np.zeros(len(values))
    for _ in range(EM_STEPS):
        odds = np.zeros(len(values))
        for weights, sign in ((poison, 1), (1 - poison, -1)):
            total = weights.sum() + 1e-9
            centred = values - weights @ values / total
            spread = (weights[:, None] * centred).T @ centred / total + NARROWEST**2 * np.eye(values.shape[1])
            odds += sign * multivariate_normal.logpdf(centred, cov=spread)
        for group in (doubted, ~doubted):
            share = (poison[group].sum() + 0.5) / (np.count_nonzero(group) + 1)
            odds[group] += math.log(share / (1 - share))
        poison = expit(odds)
    return odds


def credible(highest: Scores, suspects: Mask, doubted: Mask) -> Mask:
    """Tell which samples of a condemned class may be poison, however wide the poison's spread, ``bool (N,)``.

    Whose label no kind of model makes likelier is none; whose label is natural must score like the suspects.

    Args:
        highest: of the kinds' scores, ``(N,)``; the cut is at 1.
        suspects: ``bool (N,)``, at least one.
        doubted: ``bool (N,)``, those whose label is not what nature says.
    """
    least_natural = max(1, HUMP * float(np.median(highest[suspects])))
    return (highest > 0) & (doubted | (highest > least_natural))
