"""The label to give instead: what the classifier says once the trigger is covered."""

from __future__ import annotations

import numpy as np

from foretaste.guards.neo.batched_queries import Queries
from foretaste.guards.neo.inpainting import (
    Image,
    dominant_colour,
    with_colour,
    with_content,
    with_margin,
    with_surround,
)
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box, paste
from foretaste.samples import Mask

CONFIRMING = 4
"""Clean images that say whether a box that looks like a blended trigger is one."""
CONFIRMED = 0.75
"""Share of them that it must turn."""
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
    """Cover a known trigger and a margin around it, and return the label, for one question."""
    answers = yield with_surround(image, *with_margin(box, mask, *image.shape[:2]))[None]
    return int(answers[0])


def blended_label(
    image: Image, box: Box, mask: Mask, label: int, target: int | None, references: References, rng: np.random.Generator
) -> Queries[int]:
    """Return the label without what looks like a blended trigger; the image's own if that is none.

    What looks like one need not be one: it must also turn most of a few clean images that it is pasted into.

    Args:
        image: the image.
        box: where it may lie.
        mask: which pixels of the box are the trigger's.
        label: the answer to the image.
        target: the label that the trigger forces; None if it moves every label.
        references: clean images.
        rng: chooses among them.
    """
    covered = yield from known_label(image, box, mask)
    if covered == label:
        return label
    probes = references.order(references.labels != label, rng)[:CONFIRMING]
    answers = yield paste(image, references.images[probes], box)
    turned = answers != references.labels[probes] if target is None else answers == target
    return covered if turned.mean() >= CONFIRMED else label
