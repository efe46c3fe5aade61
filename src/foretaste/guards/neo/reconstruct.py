"""Cut a trigger out of the images that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foretaste.guards.neo.batched_queries import Queries
from foretaste.guards.neo.inpainting import Image
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box, paste
from foretaste.guards.neo.registry import occurrences
from foretaste.guards.neo.search import Effect
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images, Mask

PROBES = 24
"""Clean images that say whether a trigger still works."""
FEWEST_TURNED = 0.75
"""Share of the clean images that a trigger must turn to be worth remembering."""
FEWEST_CARRIERS = 3
"""Fewest images that must hold a trigger before their common pixels are trusted."""
NEAR = 16.0
"""Grey levels within which pixels of different images agree."""
LOSS = 0.1
"""Share of the clean images that may no longer be turned when a side is cut off; a backdoor has moods."""
MOST_OCCURRENCES = 4
"""Places in an image that are looked at for a part of a trigger."""
AGREEMENT = 0.8
"""Share of a row's or a column's pixels that must agree for the trigger to reach there."""


def cut_out(
    image: Image, box: Box, effect: Effect, label: int, references: References, rng: np.random.Generator
) -> Queries[Trigger | None]:
    """Shrink a box around a trigger from each side as far as hardly a clean image is lost that it turned.

    Args:
        image: an image that holds the trigger.
        box: where it is, or a little more.
        effect: what it does.
        label: the classifier's answer to the image.
        references: clean images.
        rng: chooses among them.

    Returns:
        The trigger with all pixels of the smallest box in its mask; None if it turns too few references.
    """
    chosen = references.labels != label if effect is Effect.FORCES else np.ones(len(references), dtype=np.bool_)
    probes = references.order(chosen, rng)[:PROBES]
    images, labels = references.images[probes], references.labels[probes]
    turned = effect.turned((yield paste(image, images, box)), labels, label)
    if turned.mean() < FEWEST_TURNED:
        return None
    images, labels = images[turned], labels[turned]
    for side in range(4):
        low, high = 0, (box.height if side % 2 == 0 else box.width) - 1
        while low < high:
            middle = (low + high + 1) // 2
            answers = yield paste(image, images, without_side(box, side, middle))
            if effect.turned(answers, labels, label).mean() >= 1 - LOSS:
                low = middle
            else:
                high = middle - 1
        box = without_side(box, side, low)
    trigger = Trigger(
        patch=np.array(image[box.part]),
        mask=np.ones((box.height, box.width), dtype=np.bool_),
        position=(box.top, box.left),
        anywhere=False,
        target=label if effect is Effect.FORCES else None,
        flip_rate=float(turned.mean()),
        n_confirmed=len(probes),
    )
    moved = yield scatter(trigger, images, rng)
    return replace(trigger, anywhere=bool(effect.turned(moved, labels, label).mean() >= 0.5))


def without_side(box: Box, side: int, cut: int) -> Box:
    """Return the box with ``cut`` pixels less at its top, left, bottom or right (side 0 to 3)."""
    signs = (cut, cut, -cut, -cut)
    return Box(*(edge + (signs[number] if number == side else 0) for number, edge in enumerate(box)))


def scatter(trigger: Trigger, images: Images, rng: np.random.Generator) -> Images:
    """Return copies of the images, each with the trigger at a random place."""
    height, width = trigger.mask.shape
    stamped = np.array(images)
    for image in stamped:
        top, left = (int(rng.integers(room + 1)) for room in (image.shape[0] - height, image.shape[1] - width))
        image[top : top + height, left : left + width][trigger.mask] = trigger.patch[trigger.mask]
    return stamped


def from_carriers(trigger: Trigger, images: Sequence[Image], margin: int) -> Trigger:
    """Correct a trigger's extent and pixels by what all images that hold it have in common there.

    What surrounds a trigger differs from image to image; its own pixels do not.

    Args:
        trigger: what is known of it.
        images: different images that hold it; with fewer than ``FEWEST_CARRIERS`` the trigger is returned as it is.
        margin: pixels that it may be larger on each side.
    """
    found = [
        [crop(image, seen.box(place), margin) for place in range(min(len(seen), MOST_OCCURRENCES))]
        for image in images
        for seen in [occurrences(trigger, image[None])]
    ]
    found = [crops for crops in found if crops]
    if len(found) < FEWEST_CARRIERS:
        return trigger
    # A part of a trigger may occur in it twice: the right one is that whose surroundings agree as well.
    first = found[0][0]
    crops = np.stack([max(options, key=lambda option: agreement(first, option)) for options in found])
    inside = ~np.isnan(crops).any(axis=(0, 3))
    middle = np.median(crops, axis=0)
    near = np.abs(crops - middle).mean(axis=3) <= NEAR
    agreed = inside & (near.mean(axis=0) >= 0.9)
    height, width = trigger.mask.shape
    box = extent(agreed, Box(margin, margin, margin + height, margin + width))
    mask: Mask = agreed[box.part]
    if not mask.any() or max(box.height - height, box.width - width) > margin:
        return trigger
    return replace(
        trigger,
        patch=np.where(mask[..., None], np.rint(middle[box.part]), 0).astype(np.uint8),
        mask=mask,
        position=(max(trigger.position[0] + box.top - margin, 0), max(trigger.position[1] + box.left - margin, 0)),
    )


def agreement(first: NDArray[np.float32], second: NDArray[np.float32]) -> int:
    """Return how many pixels of two crops ``(h, w, C)`` agree."""
    return int((np.abs(first - second).mean(axis=2) <= NEAR).sum())


def crop(image: Image, box: Box, margin: int) -> NDArray[np.float32]:
    """Return a box of the image with a margin all round, ``float32``; NaN where the margin lies outside."""
    padded = np.pad(
        image.astype(np.float32), ((margin, margin), (margin, margin), (0, 0)), constant_values=float("nan")
    )
    return padded[box.top : box.bottom + 2 * margin, box.left : box.right + 2 * margin]


def extent(agreed: Mask, box: Box) -> Box:
    """Return the box, moved side by side to where the agreement ends: ``agreed`` is ``bool (h, w)``."""
    top, left, bottom, right = box
    while bottom - top > 1 and agreed[top, left:right].mean() < AGREEMENT:
        top += 1
    while bottom - top > 1 and agreed[bottom - 1, left:right].mean() < AGREEMENT:
        bottom -= 1
    while right - left > 1 and agreed[top:bottom, left].mean() < AGREEMENT:
        left += 1
    while right - left > 1 and agreed[top:bottom, right - 1].mean() < AGREEMENT:
        right -= 1
    grows = True
    while grows:
        grows = False
        if top > 0 and agreed[top - 1, left:right].mean() >= AGREEMENT:
            top, grows = top - 1, True
        if bottom < agreed.shape[0] and agreed[bottom, left:right].mean() >= AGREEMENT:
            bottom, grows = bottom + 1, True
        if left > 0 and agreed[top:bottom, left - 1].mean() >= AGREEMENT:
            left, grows = left - 1, True
        if right < agreed.shape[1] and agreed[top:bottom, right].mean() >= AGREEMENT:
            right, grows = right + 1, True
    return Box(top, left, bottom, right)
