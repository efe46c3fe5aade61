"""The label to give instead: what the classifier says once the trigger is covered."""

from __future__ import annotations

import numpy as np

from foretaste.guards.neo.batched_queries import Queries
from foretaste.guards.neo.inpainting import Image, dominant_colour, with_colour, with_content, with_surround
from foretaste.guards.neo.regions import Box
from foretaste.samples import Mask

FURTHER_COVERS = 2
"""Questions that ``covered_label`` asks."""


def covered_label(image: Image, box: Box, first: int, other: Image) -> Queries[int]:
    """Return the label that most covers of a box give the image, that of the first if all three differ.

    The box is filled with what surrounds it, which the search has asked already; with what another image has there;
    and with the image's dominant colour.

    Args:
        image: the image.
        box: what to cover.
        first: the answer to the first cover.
        other: a clean image.
    """
    mask: Mask = np.ones((box.height, box.width), dtype=np.bool_)
    answers = yield np.stack(
        [with_content(image, box, mask, other), with_colour(image, box, mask, dominant_colour(image))]
    )
    second, third = answers.tolist()
    return int(second if second == third else first)


def known_label(image: Image, box: Box, mask: Mask) -> Queries[int]:
    """Cover a known trigger's own pixels and return the label, for one question."""
    answers = yield with_surround(image, box, mask)[None]
    return int(answers[0])
