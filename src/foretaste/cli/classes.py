"""Number labels as a model or an attack does."""

from __future__ import annotations

import numpy as np

from foretaste.classifiers.answers import MOST_CLASSES
from foretaste.errors import UsageError
from foretaste.samples import Samples


def numbering(classes: tuple[str, ...] | None, trusted: Samples) -> tuple[str, ...]:
    """Return the names of a model's classes in its own order.

    These are the names that the model states; without them, where all classes of the clean set are called by numbers,
    those numbers; else the classes of the clean set in their order, which only the model's accuracy on it can confirm.
    """
    if classes is not None:
        return classes
    if not all(name.isdecimal() and int(name) < MOST_CLASSES for name in trusted.classes):
        return trusted.classes
    names = {int(name): name for name in trusted.classes}
    if len(names) < len(trusted.classes):  # "1" and "01"
        return trusted.classes
    return tuple(names.get(number, str(number)) for number in range(max(names) + 1))


def renumbered(samples: Samples, classes: tuple[str, ...], source: str, owner: str = "the model") -> Samples:
    """Return the samples with the labels that the classes of the same names have among ``classes``.

    Classes that are only numbers keep them. Messages name the samples' source and whose the classes are.

    Raises:
        UsageError: a class that occurs has neither a name nor a number there.
    """
    if samples.classes == classes:
        return samples
    numbers = {name: number for number, name in enumerate(classes)}
    numbers |= {str(number): number for number in range(len(classes)) if str(number) not in numbers}
    # "00012" is 12.
    numbers |= {
        name: numbers[str(int(name))]
        for name in samples.classes
        if name not in numbers and name.isdecimal() and str(int(name)) in numbers
    }
    for label in np.unique(samples.labels):
        if samples.classes[label] not in numbers:
            raise UsageError(f"{source}: {owner} has no class {samples.classes[label]}; it has {', '.join(classes)}")
    mapped = np.array([numbers.get(name, 0) for name in samples.classes], dtype=np.int64)
    return Samples(mapped[samples.labels], classes, samples.ids, images=samples.images, features=samples.features)
