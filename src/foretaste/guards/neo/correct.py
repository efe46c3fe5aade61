"""The label to give instead: what the classifier says once the trigger is covered."""

from __future__ import annotations

import numpy as np

from foretaste.guards.neo.asking import Asking
from foretaste.guards.neo.fills import Image, dominant_colour, with_colour, with_content, with_surround
from foretaste.guards.neo.regions import Box
from foretaste.samples import Mask

COVERS = 3
"""Questions that ``covered_label`` asks."""


def covered_label(image: Image, box: Box, other: Image) -> Asking[int]:
    """Cover a box in three ways and return the label that most of them get, that of the first if all differ.

    The ways are: continuing what surrounds it, what another image has there, and the image's dominant colour.

    Args:
        image: the image.
        box: what to cover.
        other: a clean image.
    """
    mask: Mask = np.ones((box.height, box.width), dtype=np.bool_)
    answers = yield np.stack(
        [
            with_surround(image, box, mask),
            with_content(image, box, mask, other),
            with_colour(image, box, mask, dominant_colour(image)),
        ]
    )
    labels, counts = np.unique(answers, return_counts=True)
    return int(answers[0] if counts.max() == 1 else labels[counts.argmax()])


def known_label(image: Image, box: Box, mask: Mask) -> Asking[int]:
    """Cover a known trigger's own pixels and return the label, for one question."""
    answers = yield with_surround(image, box, mask)[None]
    return int(answers[0])
