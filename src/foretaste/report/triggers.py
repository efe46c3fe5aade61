"""Reconstructed triggers as pictures: enlarged, in place, and covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.guards.neo.inpainting import with_margin, with_surround
from foretaste.guards.neo.regions import Box
from foretaste.guards.neo.registry import Registry, locate
from foretaste.guards.trigger import Trigger
from foretaste.report.pictures import data_uri
from foretaste.report.wording import class_name, plural, share
from foretaste.samples import Images, Samples

EXAMPLE_SIDE = 224
"""Pixels up to which a picture that shows where a trigger lies is kept."""
_LOCATED = 200
"""Images in which a trigger that moves about is looked for, at most."""
_HEAT = np.array([217, 102, 26])
"""The page's colour for what was flagged, as it reads on light and on dark."""


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
        frame: top, left, height and width of its box on the example, in per cent of it.
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
    frame: tuple[float, float, float, float]
    heat: str | None


def view(trigger: Trigger, images: Images, classes: Sequence[str]) -> TriggerView:
    """Show a trigger on the images that carry it, ``uint8 (N, H, W, C)`` with N ≥ 0."""
    boxes = [place(trigger, image) for image in images[: _LOCATED if trigger.anywhere else 1]]
    box = boxes[0] if boxes else Box(*trigger.box)
    rows, columns = images.shape[1:3]
    return TriggerView(
        id=trigger.id,
        enlarged=data_uri(_with_opacity(trigger)),
        size=f"{box.width} × {box.height} pixels",
        forces="another label for each label (all-to-all)"
        if trigger.target is None
        else f"“{class_name(trigger.target, classes)}”",
        where="at any place" if trigger.anywhere else f"at row {box.top}, column {box.left}",
        evidence=f"turned {share(trigger.flip_rate)} of {plural(trigger.n_confirmed, 'clean image')}",
        n_found=len(images),
        example=data_uri(images[0], largest=EXAMPLE_SIDE) if boxes else None,
        frame=(100 * box.top / rows, 100 * box.left / columns, 100 * box.height / rows, 100 * box.width / columns),
        heat=_heat(trigger, images, boxes) if len(boxes) > 1 else None,
    )


def find_triggers(registry: Registry, samples: Samples) -> list[tuple[Trigger, NDArray[np.intp]]]:
    """Return each trigger with the rows of those samples that carry it, the one that most carry first."""
    images = samples.images
    assert images is not None
    matches = registry.match(images, samples.labels)
    found = [
        (trigger, np.array([row for row, match in enumerate(matches) if match and match.trigger is trigger], np.intp))
        for trigger in registry
    ]
    return sorted(found, key=lambda pair: -len(pair[1]))


def place(trigger: Trigger, image: NDArray[np.uint8]) -> Box:
    """Return where the trigger lies in an image ``(H, W, C)``; where its pixels cannot be made out, its usual place."""
    return locate(trigger, image) or Box(*trigger.box)


def covered(trigger: Trigger, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image ``(H, W, C)`` with what lies around the trigger continued over it, as the guard covers it."""
    return with_surround(image, *with_margin(place(trigger, image), trigger.mask, *image.shape[:2]))


def _with_opacity(trigger: Trigger) -> NDArray[np.uint8]:
    """Return a trigger's pixels ``uint8 (h + 2, w + 2, 4)`` in a transparent frame, so that its edge shows."""
    colours = np.broadcast_to(trigger.patch, (*trigger.mask.shape, 3))
    pixels = np.dstack([colours, np.where(trigger.mask, 255, 0).astype(np.uint8)])
    return np.pad(pixels, ((1, 1), (1, 1), (0, 0)))


def _heat(trigger: Trigger, images: Images, boxes: Sequence[Box]) -> str:
    """Draw over the mean image, in grey, how often the trigger covered each pixel."""
    counts = np.zeros(images.shape[1:3])
    for box in boxes:
        counts[box.part] += trigger.mask
    strength = (counts / counts.max())[..., None]
    grey = images[: len(boxes)].mean(axis=(0, 3))[..., None]
    return data_uri(((1 - strength) * (90 + grey / 2) + strength * _HEAT).astype(np.uint8), largest=EXAMPLE_SIDE)
