"""Known triggers in inputs: found by their pixels, and one question each to see whether they are at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretaste.classifiers.classifier import Classifier
from foretaste.guards.neo.inpainting import with_surround
from foretaste.guards.neo.registry import Match, Registry
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images, Labels


@dataclass(frozen=True, eq=False)
class Recognised:
    """A known trigger that is at work in an input.

    Attributes:
        trigger: which one.
        corrected: the label with the trigger covered.
    """

    trigger: Trigger
    corrected: int


def recognise(
    registry: Registry, images: Images, labels: Labels, classifier: Classifier
) -> tuple[list[Recognised | None], int]:
    """Look for known triggers in inputs; a trigger is at work if the label changes when it is covered.

    Args:
        registry: the known triggers.
        images: ``uint8 (N, H, W, C)``.
        labels: ``int64 (N,)``, the classifier's answers to them.
        classifier: asked about the inputs that hold a trigger's pixels, with these covered.

    Returns:
        One entry per input, None without a trigger at work; and the images that were asked about.

    Raises:
        ForetasteError: the classifier fails.
    """
    found: list[Recognised | None] = [None] * len(images)
    if not len(registry):
        return found, 0
    matches = registry.match(images, labels)
    seen: Sequence[tuple[int, Match]] = [(row, match) for row, match in enumerate(matches) if match is not None]
    if not seen:
        return found, 0
    covered = np.stack([with_surround(images[row], match.box, match.trigger.mask) for row, match in seen])
    for (row, match), label in zip(seen, classifier.classify(covered).labels.tolist(), strict=True):
        if label != labels[row]:
            found[row] = Recognised(match.trigger, label)
    return found, len(covered)
