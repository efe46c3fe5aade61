"""Triggers that are known: found in later inputs by their pixels, kept on disk, merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foretaste.errors import ForetasteError
from foretaste.guards.neo.regions import Box
from foretaste.guards.trigger import Trigger
from foretaste.io.atomic import atomic_json, atomic_path
from foretaste.samples import Images, Labels

TOLERANCE = (6.0, 24.0)
"""Grey levels by which a trigger's pixels may differ on average, as after JPEG, and still be that trigger: for one
without contrast, and at most. In between it is a quarter of its contrast."""
LARGEST_SIDE = 4096
"""Pixels; no trigger file with a longer side is read."""
INDEX = "triggers.json"


@dataclass(frozen=True)
class Match:
    """A known trigger's pixels, seen in an image.

    Attributes:
        trigger: which one.
        box: where.
    """

    trigger: Trigger
    box: Box


class Registry:
    """The known triggers.

    Args:
        triggers: those that are known at the start; of equal ones the first is kept.
    """

    def __init__(self, triggers: Iterable[Trigger] = ()) -> None:
        self._triggers: tuple[Trigger, ...] = ()
        for trigger in triggers:
            self.add(trigger)

    def __len__(self) -> int:
        return len(self._triggers)

    def __iter__(self) -> Iterator[Trigger]:
        return iter(self._triggers)

    def add(self, trigger: Trigger) -> Trigger:
        """Add a trigger unless it is known, and return the one that is now in the registry for it."""
        for known in self._triggers:
            if same(known, trigger):
                return known
        self._triggers = (*self._triggers, trigger)
        return trigger

    def replace(self, old: Trigger, new: Trigger) -> None:
        """Put a better reconstruction in the place of a trigger."""
        self._triggers = tuple(new if trigger is old else trigger for trigger in self._triggers)

    def keep(self, triggers: Iterable[Trigger]) -> None:
        """Hold these triggers and no others."""
        self._triggers = tuple(triggers)

    def merge(self, other: Registry) -> Registry:
        """Return a registry of the triggers of both; of those that are in both, this one's are kept."""
        return Registry([*self, *other])

    def match(self, images: Images, labels: Labels) -> list[Match | None]:
        """Look for known triggers in images, without a question to the classifier.

        Args:
            images: ``uint8 (N, H, W, C)``.
            labels: ``int64 (N,)``, the answers to them; a trigger with a target is looked for where the answer is that.

        Returns:
            One entry per image: the closest match, or None.
        """
        closest: list[Match | None] = [None] * len(images)
        distances = np.full(len(images), np.inf)
        for trigger in self._triggers:
            rows = np.flatnonzero(labels == trigger.target) if trigger.target is not None else np.arange(len(images))
            for row in rows.tolist():
                box, distance = locate(trigger, images[row])
                if box is not None and distance < distances[row]:
                    closest[row], distances[row] = Match(trigger, box), distance
        return closest

    def save(self, folder: str | Path) -> None:
        """Write the triggers to a folder: a PNG of pixels and mask for each, and ``triggers.json``.

        Raises:
            ForetasteError: it cannot be written.
        """
        folder = Path(folder)
        for trigger in self:
            with atomic_path(folder / f"{trigger.id}.png") as temporary:
                picture(trigger).save(temporary, format="PNG")
        cards = [
            Card(
                id=trigger.id,
                position=trigger.position,
                anywhere=trigger.anywhere,
                target=trigger.target,
                flip_rate=trigger.flip_rate,
                n_confirmed=trigger.n_confirmed,
                channels=trigger.patch.shape[2],
            ).model_dump(mode="json")
            for trigger in self
        ]
        atomic_json(folder / INDEX, {"format": 1, "triggers": cards})

    @classmethod
    def load(cls, folder: str | Path) -> Registry:
        """Read what ``save`` wrote.

        Raises:
            ForetasteError: there is no such folder, or a file in it is missing, damaged, or not such a file.
        """
        index = Path(folder) / INDEX
        try:
            catalogue = Catalogue.model_validate_json(index.read_bytes())
        except FileNotFoundError:
            raise ForetasteError(f"there is no registry of triggers in {folder}") from None
        except OSError as error:
            raise ForetasteError(f"cannot read {index}: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ForetasteError(f"{index} is damaged: {place}: {first['msg']}") from None
        return cls([read(card, Path(folder)) for card in catalogue.triggers])


class Card(BaseModel):
    """What is written of a trigger beside its pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The id is a file's name: no dots or slashes, so that it cannot lead out of the folder.
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    position: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    anywhere: bool
    target: Annotated[int, Field(ge=0)] | None
    flip_rate: Annotated[float, Field(ge=0, le=1)]
    n_confirmed: Annotated[int, Field(ge=0)]
    channels: Annotated[int, Field(ge=1, le=3)]


class Catalogue(BaseModel):
    """What ``triggers.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[int, Field(ge=1, le=1)]
    triggers: tuple[Card, ...]


def picture(trigger: Trigger) -> Picture.Image:
    """Return a trigger as a picture that is transparent outside its mask."""
    alpha = np.where(trigger.mask, 255, 0).astype(np.uint8)[..., None]
    return Picture.fromarray(
        np.concatenate([trigger.patch, alpha], axis=2), "LA" if trigger.patch.shape[2] == 1 else "RGBA"
    )


def read(card: Card, folder: Path) -> Trigger:
    """Read one trigger.

    Raises:
        ForetasteError: its picture is missing, damaged, or not the one that the card is about.
    """
    path = folder / f"{card.id}.png"
    try:
        with Picture.open(path, formats=["PNG"]) as opened:
            if max(opened.size) > LARGEST_SIDE or opened.mode != ("LA" if card.channels == 1 else "RGBA"):
                raise ForetasteError(f"{path} is damaged: it is not the picture of a trigger")
            pixels = np.array(opened, dtype=np.uint8)
    except FileNotFoundError:
        raise ForetasteError(f"the registry in {folder} names {path.name}, which is not there") from None
    except (OSError, SyntaxError, ValueError, Picture.DecompressionBombError) as error:
        raise ForetasteError(f"cannot read {path}: {error}") from error
    trigger = Trigger(
        patch=np.ascontiguousarray(pixels[..., :-1]),
        mask=pixels[..., -1] > 0,
        position=card.position,
        anywhere=card.anywhere,
        target=card.target,
        flip_rate=card.flip_rate,
        n_confirmed=card.n_confirmed,
    )
    if trigger.id != card.id:
        raise ForetasteError(f"{path} is damaged: it is not the picture that {INDEX} is about")
    return trigger


def locate(trigger: Trigger, image: NDArray[np.uint8]) -> tuple[Box | None, float]:
    """Find a trigger's pixels in an image ``uint8 (H, W, C)``: at its place, or anywhere if it works anywhere.

    Returns:
        The box where they fit best, or None if they fit nowhere, and the mean difference there in grey levels.
    """
    boxes, distances = occurrences(trigger, image)
    return (boxes[0], distances[0]) if boxes else (None, np.inf)


def occurrences(trigger: Trigger, image: NDArray[np.uint8]) -> tuple[list[Box], list[float]]:
    """Return all boxes where a trigger's pixels fit, best first, and the mean difference in each in grey levels."""
    (height, width), (rows, columns) = trigger.mask.shape, image.shape[:2]
    if height > rows or width > columns or trigger.patch.shape[2] != image.shape[2]:
        return [], []
    if trigger.anywhere:
        tops, lefts = np.divmod(np.arange((rows - height + 1) * (columns - width + 1)), columns - width + 1)
    elif trigger.box[2] <= rows and trigger.box[3] <= columns:
        tops, lefts = np.array([[trigger.position[0]], [trigger.position[1]]])
    else:
        return [], []
    tolerance = float(np.clip(trigger.patch[trigger.mask].std() / 4, *TOLERANCE))
    total = np.zeros(len(tops))
    members = telling(trigger)
    for y, x in members.tolist():
        difference = np.abs(image[tops + y, lefts + x].astype(np.int16) - trigger.patch[y, x])
        total += difference.mean(axis=1)
        # Each pixel rules places out for good, so that hardly any is compared in full.
        left = (total <= tolerance * len(members)) & (difference.max(axis=1) <= 4 * tolerance)
        tops, lefts, total = tops[left], lefts[left], total[left]
        if not len(tops):
            return [], []
    best = np.argsort(total, kind="stable")
    boxes = [
        Box(top, left, top + height, left + width)
        for top, left in zip(tops[best].tolist(), lefts[best].tolist(), strict=True)
    ]
    return boxes, (total[best] / len(members)).tolist()


def telling(trigger: Trigger) -> NDArray[np.intp]:
    """Return the ``(row, column)`` of the trigger's pixels, those that differ most from its mean first: ``(n, 2)``."""
    members = np.argwhere(trigger.mask)
    pixels = trigger.patch[trigger.mask].astype(np.float32)
    unlike = np.abs(pixels - pixels.mean(axis=0)).sum(axis=1)
    return members[np.argsort(-unlike, kind="stable")]


def same(first: Trigger, second: Trigger) -> bool:
    """Return whether two reconstructions are of one trigger: same target, and the smaller lies in the larger."""
    if first.target != second.target or first.patch.shape[2] != second.patch.shape[2]:
        return False
    small, large = sorted([first, second], key=lambda trigger: int(trigger.mask.sum()))
    if not (first.anywhere or second.anywhere) and Box(*first.box).overlap(Box(*second.box)) == 0:
        return False
    around = np.pad(large.patch, [(margin, margin) for margin in small.mask.shape] + [(0, 0)], mode="edge")
    floating = Trigger(
        patch=small.patch,
        mask=small.mask,
        position=(0, 0),
        anywhere=True,
        target=small.target,
        flip_rate=small.flip_rate,
        n_confirmed=small.n_confirmed,
    )
    return locate(floating, around)[0] is not None
