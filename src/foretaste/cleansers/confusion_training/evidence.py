"""The class-level test: do the samples that show a mark carry one label more often than the base model can explain?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax
from scipy.stats import false_discovery_control
from torch import Tensor

from foretaste.samples import Labels, Mask

FEWEST = 4
"""The smallest group of samples that a mark is looked for in."""
MOST_NATS = 600.0
"""Evidence is not counted beyond this, lest a p-value be 0."""
CALIBRATED_ON = 20_000
"""Samples at most that the calibration is fitted on, evenly spaced."""
CALIBRATION_STEPS = 100
"""Of L-BFGS at most."""

PORTION = 10_000
"""Samples that are calibrated at a time."""

Probabilities = NDArray[np.float32]
"""Of each label for each sample: the largest arrays there are. The random labels keep them away from 0 and 1, so single
precision is enough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mark:
    """The group of samples that shows a mark of one label most clearly.

    Attributes:
        label: the label that goes with the mark, in [0, K); K stands for any label but the base model's answer.
        view: which view sees it.
        seeds: ``bool (N,)``, the samples of the group which carry the label.
        n_samples: size of the group.
        expected: how many of the group would carry the label, were the base model wrong by the whole tolerance.
        p_value: chance of as many as there are, over all views and group sizes; an upper bound, in (0, 1].
        threshold: p-value up to which a label is condemned in this test, in (0, 1).
    """

    label: int
    view: int
    seeds: Mask
    n_samples: int
    expected: float
    p_value: float
    threshold: float

    @property
    def condemned(self) -> bool:
        """Whether the label goes with a mark."""
        return self.p_value <= self.threshold

    @property
    def observed(self) -> int:
        """How many of the group carry the label."""
        return int(np.count_nonzero(self.seeds))


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """Clean samples whose labels are right, seen by models that were not confused with them.

    Attributes:
        base: calibrated probabilities of the base model, ``(R, K)``.
        outputs: of each view, ``(R, K + 1)``.
        labels: ``(R,)``.
    """

    base: Probabilities
    outputs: Sequence[NDArray[np.float32]]
    labels: Labels

    def rises(self, view: int) -> list[Probabilities]:
        """Return the rises of the references that would be hits: of each label, and of any but the base's answer."""
        of_labels, denial = rises(self.base, self.outputs[view])
        own = [of_labels[self.labels == label, label] for label in range(self.base.shape[1])]
        return [*own, denial[self.labels != self.base.argmax(axis=1)]]

    def counts(self, labels: Labels) -> NDArray[np.float64]:
        """Return how many samples of a set one reference stands for: of each label, and of all, ``(K + 1,)``."""
        n_classes = self.base.shape[1]
        ours, theirs = (np.append(np.bincount(some, minlength=n_classes), len(some)) for some in (self.labels, labels))
        counts: NDArray[np.float64] = theirs / np.maximum(ours, 1)
        return counts


def calibrate(logits: NDArray[np.float32], labels: Labels, label_noise: float) -> Probabilities:
    """Return how likely each label is for each sample, ``float32 (M, K)``, all above 0.

    The logits are scaled by a temperature (Guo et al. 2017, arXiv:1706.04599), and a share of the labels is taken to be
    random, which bounds the surprise at a wrong one; both are fitted to the set's labels. A bias for each class, or a
    map from class to class, would fit better, and fit the poison, too: a mark would be natural.

    Args:
        logits: of the base model, ``(M, K)``; the first N of them are of the set.
        labels: of the set, ``(N,)``.
        label_noise: least share of labels that is taken to be random, in (0, 1).
    """
    n_classes = logits.shape[1]
    step = -(-len(labels) // CALIBRATED_ON)
    some, own = torch.from_numpy(logits[: len(labels) : step]).double(), torch.from_numpy(labels[::step])[:, None]
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    noise = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)

    def likely(values: Tensor) -> Tensor:
        # From the least share to one half.
        share = label_noise + max(0.5 - label_noise, 0) * noise.sigmoid()
        # Bounded: a line search that tries an infinite scale would not come back.
        scaled = scale.clamp(-3, 3).exp() * values
        probabilities: Tensor = (1 - share) * scaled.softmax(dim=1) + share / n_classes
        return probabilities

    def loss() -> Tensor:
        optimizer.zero_grad()
        total: Tensor = -likely(some).gather(1, own).log().mean()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer = torch.optim.LBFGS([scale, noise], max_iter=CALIBRATION_STEPS, line_search_fn="strong_wolfe")
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        parts = [likely(part.double()).float().numpy() for part in torch.split(torch.from_numpy(logits), PORTION)]
    calibrated: Probabilities = np.concatenate(parts)
    return calibrated


def informed(base: Probabilities, outputs: NDArray[np.float32]) -> Probabilities:
    """Return how likely each label is once a view's outputs are added to the base model's logits, ``float32 (N, K)``.

    Args:
        base: calibrated probabilities of the base model, ``(N, K)``.
        outputs: of a view, ``(N, K + 1)``; the last is taken from the logit of the base model's answer.
    """
    logits = np.log(base)
    logits += outputs[:, :-1]
    logits[np.arange(len(base)), base.argmax(axis=1)] -= outputs[:, -1]
    likely: Probabilities = softmax(logits, axis=1)
    return likely


def rises(base: Probabilities, outputs: NDArray[np.float32]) -> tuple[Probabilities, Probabilities]:
    """Return how many times likelier a view makes each label, ``(N, K)``, and any but the base's answer, ``(N,)``.

    Args:
        base: calibrated probabilities of the base model, ``(N, K)``.
        outputs: of a view, ``(N, K + 1)``.
    """
    likely, rows, answers = informed(base, outputs), np.arange(len(base)), base.argmax(axis=1)
    denial = (1 - likely[rows, answers]) / (1 - base[rows, answers])
    likely /= base
    return likely, denial


def find_marks(
    base: Probabilities,
    views: Sequence[NDArray[np.float32]],
    labels: Labels,
    *,
    references: References | None = None,
    tolerance: float,
    false_condemnations: float,
) -> list[Mark]:
    """Return the clearest mark of every label, and last that of "any label but the base model's answer".

    For each view and label the samples are ordered by how much likelier the view makes the label. Were there no mark,
    the first m of them would carry the label as often as the base model says; it is allowed to be wrong by a factor,
    the tolerance. The chance of more is bounded (Hoeffding), multiplied by the number of views and of values of m that
    were tried, and compared over all labels by Benjamini and Yekutieli (2001), which holds under any dependence.

    The view only orders the samples, so how strongly it was trained does not matter, and samples that show the mark
    under another label (cover) weaken the evidence without hiding it. What carries a natural but rare look is expected
    by the base model, which was trained on it. And what the base model never learnt of a class, clean references of
    that class show as well: as many as their share comes to are expected, too.

    Args:
        base: calibrated probabilities of the base model, ``(N, K)``.
        views: out-of-fold outputs, each ``(N, K + 1)``.
        labels: ``(N,)``.
        references: references that are sure to be clean, or None.
        tolerance: factor by which the odds of the base model may be too low, ≥ 1.
        false_condemnations: chance that a set without a mark has a condemned label, in (0, 1).
    """
    n_classes = base.shape[1]
    rows, answers = np.arange(len(labels)), base.argmax(axis=1)
    doubted = 1 - base[rows, answers]
    naturals: list[Sequence[Probabilities | None]] = [[None] * (n_classes + 1)] * len(views)
    counts = np.zeros(n_classes + 1)
    if references is not None:
        naturals, counts = [references.rises(view) for view in range(len(views))], references.counts(labels)
    of_views, denials = [], []
    for view, outputs in enumerate(views):
        of_labels, denial = rises(base, outputs)
        denials.append(denial)
        of_views.append(
            [
                clearest(
                    label,
                    view,
                    of_labels[:, label],
                    labels == label,
                    # What the base model is unsure of, an odd look say, may all be of this label.
                    np.maximum(tolerated(base[:, label], tolerance), np.where(answers == label, 0, doubted)),
                    naturals[view][label],
                    counts[label],
                )
                for label in range(n_classes)
            ]
        )
    marks = clearest_of(of_views)
    # A mark that goes with any label but the right one shows in all classes at once; what is explained is left out.
    explained = np.isin(labels, [mark.label for mark in decided(marks, false_condemnations) if mark.condemned])
    disagree, expected = (labels != answers) & ~explained, np.where(explained, 0, tolerated(doubted, tolerance))
    of_any = [
        [clearest(n_classes, view, np.where(explained, 0, denial), disagree, expected, naturals[view][-1], counts[-1])]
        for view, denial in enumerate(denials)
    ]
    return decided([*marks, *clearest_of(of_any)], false_condemnations)


def clearest_of(views: Sequence[Sequence[Mark]]) -> list[Mark]:
    """Return the clearest mark of each label over several views, with p-values for all of them.

    Args:
        views: of each view the marks of all labels, in the same order.
    """
    return [
        replace(best, p_value=min(1.0, best.p_value * len(views)))
        for best in (min(of_label, key=lambda mark: mark.p_value) for of_label in zip(*views, strict=True))
    ]


def tolerated(likely: Probabilities, tolerance: float) -> Probabilities:
    """Return probabilities whose odds are higher by the tolerance."""
    raised: Probabilities = tolerance * likely / (1 + (tolerance - 1) * likely)
    return raised


def clearest(
    label: int,
    view: int,
    rise: Probabilities,
    hits: Mask,
    expected: Probabilities,
    natural: Probabilities | None = None,
    count: float = 0.0,
) -> Mark:
    """Return the group of samples in which the hits exceed what is expected most clearly, over all group sizes.

    Args:
        label: the label in question.
        view: which view orders the samples.
        rise: how many times likelier it makes the label for each sample, ``(N,)``.
        hits: ``bool (N,)``, the samples which carry the label.
        expected: the probability of a hit by the base model with the tolerance, ``(N,)``.
        natural: rises of the clean references that would be hits, ``(r,)``, or None.
        count: how many samples one reference stands for.
    """
    sizes = group_sizes(len(hits))
    first = np.argsort(-rise, kind="stable")[: sizes[-1]]
    observed, mean = np.cumsum(hits[first])[sizes - 1], np.cumsum(expected[first], dtype=np.float64)[sizes - 1]
    if natural is not None:
        above = len(natural) - np.searchsorted(np.sort(natural), rise[first[sizes - 1]])
        mean = np.maximum(mean, np.minimum(above * count, sizes))
    nats = surplus(observed.astype(np.float64), mean, sizes)
    best = int(nats.argmax())
    group = first[: sizes[best]]
    seeds = np.zeros(len(hits), dtype=np.bool_)
    seeds[group] = hits[group]
    return Mark(
        label=label,
        view=view,
        seeds=seeds,
        n_samples=int(sizes[best]),
        expected=float(mean[best]),
        p_value=min(1.0, math.exp(-min(float(nats[best]), MOST_NATS)) * len(sizes)),
        threshold=0.0,
    )


def group_sizes(n: int) -> NDArray[np.intp]:
    """Return the sizes of groups to try among n samples: powers of √2 from ``FEWEST`` to half of n."""
    largest = max(n // 2, 1)
    sizes = np.unique(np.rint(FEWEST * 2 ** (np.arange(64) / 2)))
    tried: NDArray[np.intp] = sizes[sizes <= largest].astype(np.intp)
    return tried if len(tried) else np.array([largest])


def surplus(observed: NDArray[np.float64], mean: NDArray[np.float64], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the negative logarithm of a bound on the chance of so many hits or more, in nats, ≥ 0.

    The bound of Hoeffding (1963, theorem 1) for a sum of independent events, whatever the probability of each.

    Args:
        observed: hits in each group.
        mean: hits to be expected.
        sizes: of the groups.
    """
    counts = sizes.astype(np.float64)
    share, expected = observed / counts, np.clip(mean / counts, 1e-12, 1)
    nats: NDArray[np.float64] = counts * (rel_entr(share, expected) + rel_entr(1 - share, 1 - expected))
    return np.where(share > expected, nats, 0.0)


def decided(marks: Sequence[Mark], false_condemnations: float) -> list[Mark]:
    """Return the marks with the threshold that all of them together imply."""
    p_values = np.array([mark.p_value for mark in marks])
    n_condemned = int(np.count_nonzero(false_discovery_control(p_values, method="by") <= false_condemnations))
    harmonic = float((1 / np.arange(1, len(marks) + 1)).sum())
    threshold = false_condemnations * max(n_condemned, 1) / (len(marks) * harmonic)
    return [replace(mark, threshold=threshold) for mark in marks]
