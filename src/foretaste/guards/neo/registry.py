"""Triggers that are known: found in later inputs by their pixels, kept on disk, merged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.signal import fftconvolve
from scipy.stats import t as student

from foretaste.errors import ForetasteError
from foretaste.guards.neo.regions import Box
from foretaste.guards.trigger import Trigger
from foretaste.io.atomic import atomic_json, atomic_path
from foretaste.samples import Images, Labels, Mask

TOLERANCE = (6.0, 24.0)
"""Grey levels by which a trigger's pixels may differ on average, as after JPEG, and still be that trigger: for one
without contrast, and at most. In between it is a quarter of its contrast."""
CORRELATION = 0.75
"""How well an image must correlate with a trigger, at least, for it to be that trigger blended into the image."""
CHANCE = 0.001
"""How probable it may be, at most, that unrelated pixels correlate as well at any place of an image."""
CONTRAST = 24.0
"""Grey levels, as a standard deviation, that a trigger's pixels must differ by to be recognised by correlation."""
CORRELATED_BYTES = 2**26
"""Memory for the images that are correlated with a trigger at a time, and a few times as much for the work: 64 MiB."""
FEWEST_PIXELS = 9
"""Pixels that a trigger must have to be recognised by correlation."""
LARGEST_SIDE = 4096
"""Pixels; no trigger file with a longer side is read."""
INDEX = "triggers.json"
SCHEMA = "urn:foretaste:triggers:1"
"""The schema of ``triggers.json``, in ``docs/schemas``."""


@dataclass(frozen=True)
class Match:
    """A known trigger's pixels, seen in an image.

    Attributes:
        trigger: which one.
        box: where.
        blended: whether only their pattern is there, over something else: then it takes a question whether the box does
            what the trigger does.
    """

    trigger: Trigger
    box: Box
    blended: bool = False


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
            One entry per image: the closest match, or None. Blended ones are looked for where no other is, and only
            of triggers with a target.
        """
        closest: list[Match | None] = [None] * len(images)
        distances = np.full(len(images), np.inf)
        for trigger in self._triggers:
            rows = np.flatnonzero(labels == trigger.target) if trigger.target is not None else np.arange(len(images))
            seen = occurrences(trigger, images if len(rows) == len(images) else images[rows])
            # Best first, so that each image's first is its best.
            for place in np.unique(seen.image, return_index=True)[1].tolist():
                row, distance = int(rows[seen.image[place]]), float(seen.distance[place])
                if distance < distances[row]:
                    closest[row], distances[row] = Match(trigger, seen.box(place)), distance
        for trigger in self._triggers:
            if trigger.target is None:  # every image would have to be looked at
                continue
            rows = np.array([row for row, match in enumerate(closest) if match is None or match.blended], dtype=np.intp)
            rows = rows[labels[rows] == trigger.target]
            seen = blended(trigger, images[rows])
            for place, row in enumerate(rows[seen.image].tolist()):
                # Of blended ones, too, the closest; all others were passed over above.
                if seen.distance[place] < distances[row]:
                    closest[row] = Match(trigger, seen.box(place), blended=True)
                    distances[row] = float(seen.distance[place])
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
        atomic_json(folder / INDEX, {"schema": SCHEMA, "format": 1, "triggers": cards})

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

    # Files of before schemas had names have none. BaseModel has an attribute of that name.
    schema_: Annotated[Literal["urn:foretaste:triggers:1"] | None, Field(alias="schema")] = None
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
    if not pixels[..., -1].any():
        raise ForetasteError(f"{path} is damaged: nothing in it is opaque")
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


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Where a trigger's pixels were seen in N images, best first.

    Attributes:
        image: ``int64 (M,)``, which image, in [0, N).
        top: ``int64 (M,)``, the box's first row.
        left: ``int64 (M,)``, its first column.
        distance: ``float64 (M,)``, the mean difference in grey levels.
        size: height and width of the box.
    """

    image: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    distance: NDArray[np.float64]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.image)

    def box(self, place: int) -> Box:
        """Return the box of one occurrence."""
        top, left = int(self.top[place]), int(self.left[place])
        return Box(top, left, top + self.size[0], left + self.size[1])


def locate(trigger: Trigger, image: NDArray[np.uint8]) -> Box | None:
    """Find where a trigger's pixels fit an image ``uint8 (H, W, C)`` best; None if they fit nowhere."""
    seen = occurrences(trigger, image[None])
    return seen.box(0) if len(seen) else None


def occurrences(trigger: Trigger, images: Images) -> Occurrences:
    """Find a trigger's pixels in images ``uint8 (N, H, W, C)``: at its place, or all places if it works anywhere."""
    size = height, width = trigger.mask.shape
    rows, columns, channels = images.shape[1:]
    down, across = rows - height + 1, columns - width + 1
    none = np.empty(0, dtype=np.int64)
    if down < 1 or across < 1 or trigger.patch.shape[2] != channels:
        return Occurrences(none, none, none, np.empty(0), size)
    tops, lefts = slice(0, down), slice(0, across)
    if not trigger.anywhere:
        tops, lefts = (
            slice(place, min(place + 1, places)) for place, places in zip(trigger.position, (down, across), strict=True)
        )
    tolerance = float(np.clip(trigger.patch[trigger.mask].std() / 4, *TOLERANCE))
    members = telling(trigger)

    def near(difference: NDArray[np.int16], total: NDArray[np.float64]) -> Mask:
        """Say what may still fit: each pixel rules places out for good, so that hardly any is compared in full."""
        fits: Mask = (total <= tolerance * len(members)) & (difference.max(axis=-1) <= 4 * tolerance)
        return fits

    # The first pixel is compared everywhere, the others only where those before fitted.
    y, x = members[0].tolist()
    window = images[:, tops.start + y : tops.stop + y, lefts.start + x : lefts.stop + x]
    difference = np.abs(window.astype(np.int16) - trigger.patch[y, x])
    total = difference.mean(axis=-1)
    image, top, left = np.nonzero(near(difference, total))
    total = total[image, top, left]
    top, left = top + tops.start, left + lefts.start
    for y, x in members[1:].tolist():
        difference = np.abs(images[image, top + y, left + x].astype(np.int16) - trigger.patch[y, x])
        total = total + difference.mean(axis=-1)
        fits = near(difference, total)
        image, top, left, total = image[fits], top[fits], left[fits], total[fits]
        if not len(image):
            break
    best = np.argsort(total, kind="stable")
    return Occurrences(image[best], top[best], left[best], total[best] / len(members), size)


def blended(trigger: Trigger, images: Images) -> Occurrences:
    """Find the place in each image ``uint8 (N, H, W, C)`` that correlates best with a trigger, if it does so well.

    A trigger that is blended into an image keeps its pattern, less strong, and takes on the image's brightness. The
    distance is one less the correlation of the pixels. Triggers of few pixels, or without contrast, are not found so.
    """
    size = height, width = trigger.mask.shape
    none = np.empty(0, dtype=np.int64)
    nothing = Occurrences(none, none, none, np.empty(0), size)
    if height > images.shape[1] or width > images.shape[2] or trigger.patch.shape[2] != images.shape[3]:
        return nothing
    pixels = trigger.patch[trigger.mask].astype(np.float64)
    if not len(images) or trigger.mask.sum() < FEWEST_PIXELS or pixels.std() < CONTRAST:
        return nothing
    at_once = max(CORRELATED_BYTES // (8 * images[0].size), 1)
    best = [best_correlation(trigger, images[start : start + at_once]) for start in range(0, len(images), at_once)]
    correlation, top, left = (np.concatenate(parts) for parts in zip(*best, strict=True))
    places = (images.shape[1] - height + 1) * (images.shape[2] - width + 1) if trigger.anywhere else 1
    image = np.flatnonzero(correlation >= least_correlation(len(pixels), places))
    return Occurrences(image, top[image], left[image], 1 - correlation[image], size)


def least_correlation(pixels: int, places: int) -> float:
    """Return the correlation that so many pixels must have for chance not to explain the best of so many places.

    For n unrelated pairs, correlation · √((n − 2) / (1 − correlation²)) has Student's distribution with n − 2 degrees
    of freedom.
    """
    quantile = float(student.isf(CHANCE / places, pixels - 2))
    return max(CORRELATION, quantile / math.hypot(math.sqrt(pixels - 2), quantile))


def best_correlation(
    trigger: Trigger, images: Images
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return how well the best place in each image correlates with a trigger, and its top and left: ``(N,)`` each.

    Args:
        trigger: no larger than the images, and with contrast.
        images: ``uint8 (N, H, W, C)``, N ≥ 1.
    """
    pixels = trigger.patch[trigger.mask].astype(np.float64)
    pattern = np.zeros(trigger.patch.shape)
    pattern[trigger.mask] = pixels - pixels.mean()
    ones = np.broadcast_to(trigger.mask[..., None], trigger.patch.shape).astype(np.float64)
    values = images.astype(np.float64) - 127.5

    def under(kernel: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of products with a kernel ``(h, w, C)`` at every place: ``(N, H − h + 1, W − w + 1)``."""
        sums: NDArray[np.float64] = fftconvolve(of, kernel[None, ::-1, ::-1], mode="valid", axes=(1, 2)).sum(axis=3)
        return sums

    total, squares = under(ones, values), under(ones, values**2)
    # At least a grey level of deviation, below which rounding decides.
    variation = np.maximum(squares - total**2 / ones.sum(), ones.sum())
    correlation = under(pattern, values) / np.sqrt(variation * (pattern**2).sum())
    if not trigger.anywhere:
        row, column = (min(at, last - 1) for at, last in zip(trigger.position, correlation.shape[1:], strict=True))
        only = np.full_like(correlation, -1)
        only[:, row, column] = correlation[:, row, column]
        correlation = only
    flat = correlation.reshape(len(images), -1)
    place = flat.argmax(axis=1)
    top, left = np.divmod(place, correlation.shape[2])
    return flat[np.arange(len(images)), place], top, left


def telling(trigger: Trigger) -> NDArray[np.intp]:
    """Return the ``(row, column)`` of the trigger's pixels, those that differ most from its mean first: ``(n, 2)``."""
    members = np.argwhere(trigger.mask)
    pixels = trigger.patch[trigger.mask].astype(np.float32)
    unlike = np.abs(pixels - pixels.mean(axis=0)).sum(axis=1)
    return members[np.argsort(-unlike, kind="stable")]


def same(first: Trigger, second: Trigger) -> bool:
    """Return whether two reconstructions are of one trigger: same target, and the smaller lies in the larger.

    It may be blended into it: of a transparent trigger, each image gives another copy.
    """
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
    return locate(floating, around) is not None or len(blended(floating, around[None])) > 0
