"""Poison a training set, or stamp a share of a model's inputs, from one seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from foretaste.attacks._base.attack import Attack, Inputs, Poisoned, check_range, choose
from foretaste.errors import UsageError
from foretaste.samples import Mask, Samples


def poison_training_set(samples: Samples, attack: Attack, seed: int, taken: Mask | None = None) -> Poisoned:
    """Return the poisoned set with its ground truth; same seed, same bytes.

    Args:
        samples: the training set; not modified.
        attack: what to poison it with.
        seed: where all random numbers come from, at least 0.
        taken: ``bool (N,)``, samples that an earlier attack touched. They stay as they are, rates are shares of the
            others, and the truth is about this attack alone.

    Raises:
        UsageError: the attack cannot apply to these samples, its trigger changes none of them, or the seed is negative.
    """
    rng = generator(seed, 0)
    free = np.arange(len(samples)) if taken is None else np.flatnonzero(~taken)
    part = attack.poison(samples if taken is None else samples[free], rng)
    inputs, labels = part.samples.inputs, part.samples.labels
    poison, cover = np.flatnonzero(part.poison), np.flatnonzero(part.cover)
    check_changed(samples.inputs[free[poison]], inputs[poison])
    if taken is None:
        return part
    return Poisoned.from_stamped(samples, free[poison], inputs[poison], labels[poison], free[cover], inputs[cover])


def stamp_inputs(samples: Samples, attack: Attack, rate: float, seed: int) -> tuple[Samples, Mask]:
    """Put the test-time trigger on a share of the inputs that the attack can turn; labels stay true.

    Args:
        samples: clean inputs under their true labels; not modified.
        attack: what to stamp them with.
        rate: share of the attack's victims to stamp, in (0, 1]; 1 stamps them all.
        seed: where all random numbers come from, at least 0.

    Returns:
        The samples in their order, and which of them are trojaned: ``bool (N,)``.

    Raises:
        UsageError: the rate is out of range or leaves no input, the attack cannot apply to these samples, or its
            trigger changes none of them.
    """
    check_range("rate", rate, 0, 1, open_low=True)
    forced = attack.forced(samples.labels, len(samples.classes))
    if forced is not None and forced.max(initial=0) >= len(samples.classes):
        raise UsageError(
            f"the attack forces class {forced.max()}, which is not one of the {len(samples.classes)} classes"
        )
    rng = generator(seed, 1)
    victims = attack.victims(samples.labels)
    if not victims.any():
        raise UsageError("none of the inputs is of a class that the attack turns")
    chosen = choose(victims, round(rate * int(victims.sum())), rng, "to stamp")
    inputs = attack.stamp(samples.inputs[chosen], rng)
    check_changed(samples.inputs[chosen], inputs)
    stamped = Poisoned.from_stamped(samples, chosen, inputs, samples.labels[chosen])
    return stamped.samples, stamped.poison


def check_changed(before: Inputs, after: Inputs) -> None:
    """Refuse a trigger that is too faint for whole grey levels, or that all inputs have already.

    Raises:
        UsageError: no input was changed.
    """
    if np.array_equal(before, after):
        raise UsageError("at these settings the trigger changes none of the samples that it is put on")


def generator(seed: int, purpose: int) -> Generator:
    """Return a generator of its own for each purpose, so that training and test choices do not repeat each other."""
    check_range("seed", seed, 0, math.inf)
    return np.random.default_rng([seed, purpose])
