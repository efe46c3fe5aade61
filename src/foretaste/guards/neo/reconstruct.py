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
SURPRISE = 0.05
"""How probable it may be, at most, that pixels of as many clean images agree, for the agreement to tell of a trigger:
where the background is constant, all images agree."""
NEAR = 16.0
"""Grey levels within which pixels of different images agree."""
LOSS = 0.1
"""Share of the clean images that may no longer be turned when a side is cut off; no backdoor always works."""
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
    trigger = replace(trigger, anywhere=bool(effect.turned(moved, labels, label).mean() >= 0.5))
    return (yield from measured(trigger, references, rng))


def measured(trigger: Trigger, references: References, rng: np.random.Generator) -> Queries[Trigger]:
    """Return the trigger with the flip rate that just these pixels have, pasted at its place into clean images."""
    effect, label = (Effect.MOVES, -1) if trigger.target is None else (Effect.FORCES, trigger.target)
    probes = references.order(references.labels != label, rng)[:PROBES]
    images, before, box = np.array(references.images[probes]), references.labels[probes], Box(*trigger.box)
    images[:, box.part[0], box.part[1]][:, trigger.mask] = trigger.patch[trigger.mask]
    turned = effect.turned((yield images), before, label)
    return replace(trigger, flip_rate=float(turned.mean()), n_confirmed=len(probes))


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


def from_carriers(trigger: Trigger, images: Sequence[Image], clean: Images, margin: int) -> Trigger:
    """Correct a trigger's extent and pixels by what all images that hold it have in common there.

    What surrounds a trigger differs from image to image; its own pixels do not. Where clean images have the same pixels
    as well, as on a constant background, that they agree tells nothing: the trigger does not grow there.

    Args:
        trigger: what is known of it.
        images: different images that hold it; with fewer than ``FEWEST_CARRIERS`` the trigger is returned as it is.
        clean: clean images ``uint8 (n, H, W, C)`` to compare with.
        margin: pixels that it may be larger on each side.
    """
    found = [
        [seen.box(place) for place in range(min(len(seen), MOST_OCCURRENCES))]
        for image in images
        for seen in [occurrences(trigger, image[None])]
    ]
    if sum(map(bool, found)) < FEWEST_CARRIERS:
        return trigger
    # A part of a trigger may occur in it twice: the right one is that whose surroundings agree as well.
    options = [[(crop(image, box, margin), box) for box in boxes] for image, boxes in zip(images, found, strict=True)]
    options = [some for some in options if some]
    first = options[0][0][0]
    chosen = [max(some, key=lambda one: agreement(first, one[0])) for some in options]
    crops = np.stack([pixels for pixels, _ in chosen])
    inside = ~np.isnan(crops).any(axis=(0, 3))
    middle = np.median(crops, axis=0)
    near = np.abs(crops - middle).mean(axis=3) <= NEAR
    agreed = inside & (near.mean(axis=0) >= 0.9)
    height, width = trigger.mask.shape
    ordinary = common(middle, [place for _, place in chosen], clean, margin)
    surprising = agreed & (ordinary ** len(crops) <= SURPRISE)
    box = extent(agreed, surprising, Box(margin, margin, margin + height, margin + width))
    mask: Mask = agreed[box.part]
    if not mask.any() or max(box.height - height, box.width - width) > margin:
        return trigger
    return replace(
        trigger,
        patch=np.where(mask[..., None], np.rint(middle[box.part]), 0).astype(np.uint8),
        mask=mask,
        position=(max(trigger.position[0] + box.top - margin, 0), max(trigger.position[1] + box.left - margin, 0)),
    )


def common(middle: NDArray[np.float32], boxes: Sequence[Box], clean: Images, margin: int) -> NDArray[np.float64]:
    """Return how often clean images have such pixels at the same places: ``(h, w)`` shares in (0, 1].

    Args:
        middle: the pixels ``(h, w, C)`` of a box and its margin, NaN outside of the image.
        boxes: where the box lies in each of the images that it is from, without the margin.
        clean: clean images ``uint8 (n, H, W, C)``.
        margin: pixels all round the box.
    """
    around = (margin, margin)
    padded = np.pad(clean.astype(np.float32), ((0, 0), around, around, (0, 0)), constant_values=float("nan"))
    seen, places = np.zeros(middle.shape[:2]), sorted(set(boxes))
    for top, left, bottom, right in places:
        crops = padded[:, top : bottom + 2 * margin, left : right + 2 * margin]
        seen += (np.abs(crops - middle).mean(axis=3) <= NEAR).sum(axis=0)
    # As if it had been seen once more.
    shares: NDArray[np.float64] = (seen + 1) / (len(places) * len(clean) + 1)
    return shares


def agreement(first: NDArray[np.float32], second: NDArray[np.float32]) -> int:
    """Return how many pixels of two crops ``(h, w, C)`` agree."""
    return int((np.abs(first - second).mean(axis=2) <= NEAR).sum())


def crop(image: Image, box: Box, margin: int) -> NDArray[np.float32]:
    """Return a box of the image with a margin all round, ``float32``; NaN where the margin lies outside."""
    padded = np.pad(
        image.astype(np.float32), ((margin, margin), (margin, margin), (0, 0)), constant_values=float("nan")
    )
    return padded[box.top : box.bottom + 2 * margin, box.left : box.right + 2 * margin]


def extent(agreed: Mask, surprising: Mask, box: Box) -> Box:
    """Return the box, moved side by side to where the trigger ends.

    A row or a column belongs to it if most of its pixels agree, and one of them in a way that clean images do not.

    Args:
        agreed: ``bool (h, w)``, where the images that hold the trigger agree.
        surprising: ``bool (h, w)``, where it would surprise if as many clean images did.
        box: where to begin.
    """

    def belongs(rows: slice, columns: slice) -> bool:
        return bool(agreed[rows, columns].mean() >= AGREEMENT and surprising[rows, columns].any())

    top, left, bottom, right = box
    across, down = slice(left, right), slice(top, bottom)
    while bottom - top > 1 and not belongs(slice(top, top + 1), across):
        top += 1
    while bottom - top > 1 and not belongs(slice(bottom - 1, bottom), across):
        bottom -= 1
    down = slice(top, bottom)
    while right - left > 1 and not belongs(down, slice(left, left + 1)):
        left += 1
    while right - left > 1 and not belongs(down, slice(right - 1, right)):
        right -= 1
    grows = True
    while grows:
        grows, across = False, slice(left, right)
        if top > 0 and belongs(slice(top - 1, top), across):
            top, grows = top - 1, True
        if bottom < agreed.shape[0] and belongs(slice(bottom, bottom + 1), across):
            bottom, grows = bottom + 1, True
        down = slice(top, bottom)
        if left > 0 and belongs(down, slice(left - 1, left)):
            left, grows = left - 1, True
        if right < agreed.shape[1] and belongs(down, slice(right, right + 1)):
            right, grows = right + 1, True
    return Box(top, left, bottom, right)
