"""Number labels as a model or an attack does."""

from __future__ import annotations

from foretaste.classifiers.answers import MOST_CLASSES
from foretaste.samples import Samples, renumbered

__all__ = ["numbering", "renumbered"]


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
