"""What is wrong with ordinary training sets, without an attacker: imbalance, wrong labels, mixed classes, copies.

A defence that takes these for poison raises false alarms on every set that was not cleaned by hand, so its tests need
sets that have them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.errors import UsageError
from foretaste.samples import Mask, Samples

COPIES = 20
"""Near-duplicates that are made of one sample: about what a second of video gives."""
NOISE = 4.0
"""Standard deviation of what sets an image apart from the one it is a copy of, in grey levels."""
FEATURE_NOISE = 0.01
"""The same for feature vectors, as a share of each feature's standard deviation."""


@dataclass(frozen=True, eq=False)
class Imperfect:
    """A training set with imperfections.

    Attributes:
        samples: the set; ids are those that the samples had before.
        mislabelled: ``bool (N,)``, samples that ``label_noise`` gave a wrong label.
        original_labels: ``int64 (N,)``, the labels before that.
    """

    samples: Samples
    mislabelled: Mask
    original_labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Imperfections:
    """How imperfect a training set is to be made, before anybody poisons it; by default not at all.

    They are made in the order of the fields, each with random numbers of its own, so that one more changes nothing in
    those before.

    Attributes:
        imbalance: how many times as large a share the first class keeps as the last, ≥ 1; in between, shares fall
            exponentially (Cui et al. 2019, arXiv:1901.05555). 1 keeps all samples.
        class_in_class: share of the set that is moved from the second largest class under the label of the largest, in
            [0, 1): a class that holds two kinds of things.
        near_duplicates: share of the set that is replaced by nearly equal copies of other samples of its class, in
            [0, 1).
        label_noise: share of the set that gets a wrong label, each wrong label as likely as the others, in [0, 1).

    Raises:
        UsageError: a field is out of range.
    """

    imbalance: float = 1.0
    class_in_class: float = 0.0
    near_duplicates: float = 0.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.imbalance < math.inf:
            raise UsageError(f"imbalance must be 1 or more, not {self.imbalance:g}")
        for name in ("class_in_class", "near_duplicates", "label_noise"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise UsageError(f"{name} must be in [0, 1), not {share:g}")

    def apply(self, samples: Samples, seed: int) -> Imperfect:
        """Return the samples with these imperfections; same seed, same bytes.

        Args:
            samples: the clean training set; not modified.
            seed: where all random numbers come from, at least 0.

        Raises:
            UsageError: the set is too small for an imperfection, or the seed is negative.
        """
        if seed < 0:
            raise UsageError(f"seed must be 0 or more, not {seed}")
        streams = [np.random.default_rng([seed, 2, purpose]) for purpose in range(4)]
        if self.imbalance > 1:
            samples = long_tailed(samples, self.imbalance, streams[0])
        if self.class_in_class:
            samples = class_in_class(samples, self.class_in_class, streams[1])
        if self.near_duplicates:
            samples = near_duplicates(samples, self.near_duplicates, streams[2])
        before = samples.labels
        if self.label_noise:
            samples = noisy_labels(samples, self.label_noise, streams[3])
        return Imperfect(samples, samples.labels != before, before)


def long_tailed(samples: Samples, ratio: float, rng: Generator) -> Samples:
    """Keep all of the first class that is present, 1 / ``ratio`` of the last, and exponentially less in between.

    A class keeps one sample at least. The samples stay in their order.
    """
    present = np.unique(samples.labels)
    kept = np.ones(len(samples), dtype=np.bool_)
    for rank, label in enumerate(present.tolist()):
        members = np.flatnonzero(samples.labels == label)
        share = ratio ** (-rank / max(len(present) - 1, 1))
        count = max(round(share * len(members)), 1)
        kept[rng.choice(members, len(members) - count, replace=False)] = False
    return samples[kept]


def class_in_class(samples: Samples, share: float, rng: Generator) -> Samples:
    """Move a share of the set from the second largest class under the label of the largest.

    Raises:
        UsageError: the second largest class holds fewer samples than that.
    """
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    outer, inner = np.argsort(-counts, kind="stable")[:2]
    count = round(share * len(samples))
    if count > counts[inner]:
        raise UsageError(
            f"class_in_class {share:g} takes {count} samples of the class {samples.classes[inner]}, which has "
            f"{counts[inner]}"
        )
    labels = samples.labels.copy()
    labels[rng.choice(np.flatnonzero(labels == inner), count, replace=False)] = outer
    return samples.with_labels(labels)


def near_duplicates(samples: Samples, share: float, rng: Generator) -> Samples:
    """Replace a share of the set by nearly equal copies of samples of the same class, 20 of each.

    Raises:
        UsageError: no class is large enough for a group of copies.
    """
    left, inputs = round(share * len(samples)), np.array(samples.inputs)
    noise = NOISE if samples.images is not None else FEATURE_NOISE * samples.inputs.std(axis=0)
    free = np.ones(len(samples), dtype=np.bool_)
    while left > 0:
        room = np.bincount(samples.labels[free], minlength=len(samples.classes))
        wide = np.flatnonzero(room > COPIES)
        if not len(wide):
            raise UsageError(f"near_duplicates {share:g} is more than classes of more than {COPIES} samples can hold")
        members = np.flatnonzero(free & (samples.labels == rng.choice(wide)))
        group = rng.choice(members, 1 + min(COPIES, left), replace=False)
        copies = inputs[group[0]] + rng.normal(0, 1, (len(group) - 1, *samples.sample_shape)) * noise
        if samples.images is not None:
            copies = np.rint(copies).clip(0, 255)
        inputs[group[1:]], free[group] = copies, False
        left -= len(group) - 1
    kind = "images" if samples.images is not None else "features"
    return Samples(samples.labels, samples.classes, samples.ids, **{kind: inputs})


def noisy_labels(samples: Samples, share: float, rng: Generator) -> Samples:
    """Give a share of the set a wrong label, each as likely as the others: symmetric noise.

    Raises:
        UsageError: there is only one class.
    """
    if len(samples.classes) < 2:
        raise UsageError("label noise needs two classes or more")
    labels = samples.labels.copy()
    chosen = rng.choice(len(samples), round(share * len(samples)), replace=False)
    labels[chosen] = (labels[chosen] + rng.integers(1, len(samples.classes), len(chosen))) % len(samples.classes)
    return samples.with_labels(labels)
