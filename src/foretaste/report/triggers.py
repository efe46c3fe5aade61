"""Reconstructed triggers as pictures: enlarged, in place, and covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate

from foretaste.guards.trigger import Trigger
from foretaste.report.pictures import data_uri
from foretaste.report.wording import class_name, plural, share
from foretaste.samples import Images

EXAMPLE_SIDE = 224
"""Pixels up to which a picture that shows where a trigger lies is kept."""
_LOCATED = 200
"""Images in which a trigger that moves about is looked for, at most."""
_HEAT = np.array([217, 102, 26])
"""The page's colour for what was flagged, as it reads on light and on dark."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A box in per cent of the picture that it lies on."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True, kw_only=True)
class TriggerView:
    """A trigger as the page shows it.

    Attributes:
        id: its short name.
        enlarged: picture of its pixels, transparent where none are.
        size: its extent, for people.
        forces: what becomes of the label, for people.
        where: its place, for people.
        evidence: how it was confirmed, for people.
        n_found: images of the set at hand that carry it.
        example: picture that carries it, or None.
        place: its box on the example.
        heat: picture of how often it covered each pixel, None for a trigger that keeps its place.
    """

    id: str
    enlarged: str
    size: str
    forces: str
    where: str
    evidence: str
    n_found: int
    example: str | None
    place: Place
    heat: str | None


def view(trigger: Trigger, images: Images, classes: Sequence[str]) -> TriggerView:
    """Show a trigger on the images that carry it, ``uint8 (N, H, W, C)`` with N ≥ 0."""
    places = locate(trigger, images[:_LOCATED])
    example = images[0] if len(images) else None
    shown = places[0] if len(images) else np.array(trigger.position)
    top, left = int(shown[0]), int(shown[1])
    height, width = trigger.mask.shape
    return TriggerView(
        id=trigger.id,
        enlarged=data_uri(_with_transparency(trigger)),
        size=f"{width} × {height} pixels",
        forces="another label for each label (all-to-all)"
        if trigger.target is None
        else f"“{class_name(trigger.target, classes)}”",
        where="at many places" if trigger.anywhere else f"at row {top}, column {left}",
        evidence=f"turned {share(trigger.flip_rate)} of {plural(trigger.n_confirmed, 'clean image')}",
        n_found=len(images),
        example=None if example is None else data_uri(example, largest=EXAMPLE_SIDE),
        place=_percent(top, left, height, width, images.shape[1:3]),
        heat=_heat(trigger, images[:_LOCATED], places) if trigger.anywhere and len(images) > 1 else None,
    )


def locate(trigger: Trigger, images: Images) -> NDArray[np.int64]:
    """Return the ``(row, column)`` of the trigger's top-left pixel in each image, ``int64 (N, 2)``.

    A trigger that works anywhere is where the squared difference is least.
    """
    places = np.tile(np.array(trigger.position, dtype=np.int64), (len(images), 1))
    if trigger.anywhere:
        mask = trigger.mask.astype(np.float64)
        patch = trigger.patch * mask[..., None]
        for row, image in enumerate(images.astype(np.float64)):
            energy = correlate(np.square(image).sum(axis=2), mask, mode="valid")
            likeness = sum(correlate(image[..., c], patch[..., c], mode="valid") for c in range(image.shape[2]))
            difference = energy - 2 * likeness
            places[row] = np.unravel_index(difference.argmin(), difference.shape)
    return places


def cover(trigger: Trigger, image: NDArray[np.uint8], place: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the image ``(H, W, C)`` with the trigger's pixels in the median colour of what surrounds its box."""
    (top, left), (height, width) = place, trigger.mask.shape
    covered = image.copy()
    box = covered[top : top + height, left : left + width]
    around = np.ones(image.shape[:2], dtype=np.bool_)
    around[top : top + height, left : left + width] = False
    around[: max(top - 2, 0)] = around[top + height + 2 :] = False
    around[:, : max(left - 2, 0)] = around[:, left + width + 2 :] = False
    if around.any():
        box[trigger.mask[: len(box), : box.shape[1]]] = np.median(image[around], axis=0)
    return covered


def _with_transparency(trigger: Trigger) -> NDArray[np.uint8]:
    colours = np.broadcast_to(trigger.patch, (*trigger.mask.shape, 3))
    return np.dstack([colours, np.where(trigger.mask, 255, 0).astype(np.uint8)])


def _percent(top: int, left: int, height: int, width: int, whole: tuple[int, ...]) -> Place:
    rows, columns = whole
    return Place(
        top=round(100 * top / rows, 3),
        left=round(100 * left / columns, 3),
        height=round(100 * height / rows, 3),
        width=round(100 * width / columns, 3),
    )


def _heat(trigger: Trigger, images: Images, places: NDArray[np.int64]) -> str:
    """Draw over the mean image, in grey, how often the trigger covered each pixel."""
    counts = np.zeros(images.shape[1:3])
    for top, left in places:
        counts[top : top + trigger.mask.shape[0], left : left + trigger.mask.shape[1]] += trigger.mask
    strength = (counts / max(counts.max(), 1))[..., None]
    grey = images.mean(axis=(0, 3))[..., None]
    return data_uri(((1 - strength) * (90 + grey / 2) + strength * _HEAT).astype(np.uint8), largest=EXAMPLE_SIDE)
