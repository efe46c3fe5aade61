"""Number labels as a model or an attack does."""

from __future__ import annotations

import numpy as np

from foretaste.errors import UsageError
from foretaste.samples import Samples


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
    for label in np.unique(samples.labels):
        if samples.classes[label] not in numbers:
            raise UsageError(f"{source}: {owner} has no class {samples.classes[label]}; it has {', '.join(classes)}")
    mapped = np.array([numbers.get(name, 0) for name in samples.classes], dtype=np.int64)
    return Samples(mapped[samples.labels], classes, samples.ids, images=samples.images, features=samples.features)
