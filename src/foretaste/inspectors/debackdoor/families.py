"""The kinds of trigger that are searched: each can be drawn at random, changed a little, and stamped on images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import zoom

from foretaste.attacks.wanet import warp
from foretaste.samples import Images

GRID = 6
"""Points a side between which patterns and warps are interpolated: what is finer, a search would hardly find."""


class Candidate(Protocol):
    """A trigger that may be one."""

    kind: ClassVar[str]
    """What it is called."""

    def changed(self, rng: Generator) -> Candidate:
        """Return one that is a little different."""
        ...

    def stamp(self, images: Images) -> Images:
        """Return copies of the images ``uint8 (N, H, W, C)``, each with the trigger."""
        ...


@dataclass(frozen=True, eq=False)
class Patch:
    """A rectangle of pixels at a fixed place.

    Attributes:
        pixels: ``uint8 (h, w, C)``.
        top: row of its first pixel.
        left: column of its first pixel.
        largest: most pixels a side.
        shape: ``(H, W, C)`` of the images.
    """

    kind: ClassVar[str] = "patch"

    pixels: Images
    top: int
    left: int
    largest: int
    shape: tuple[int, ...]

    @classmethod
    def draw(cls, shape: tuple[int, ...], place: tuple[float, float], largest: int, rng: Generator) -> Patch:
        """Draw a patch of the largest size at a place, given as shares of the room that there is, in [0, 1]."""
        side = min(largest, *shape[:2])
        top, left = (round(share * (room - side)) for share, room in zip(place, shape, strict=False))
        return cls(extremes((side, side, shape[2]), rng), top, left, largest, shape)

    def changed(self, rng: Generator) -> Patch:
        """Change a pixel or some, move it by a pixel, or take off or add a row or a column."""
        move = rng.choice(["pixel", "pixels", "place", "side"], p=[0.7, 0.1, 0.1, 0.1])
        height, width, channels = self.pixels.shape
        if move == "place":
            down, right = rng.integers(-1, 2, 2).tolist()
            top = min(max(self.top + down, 0), self.shape[0] - height)
            return replace(self, top=top, left=min(max(self.left + right, 0), self.shape[1] - width))
        if move == "side":
            return self._resized(int(rng.integers(4)), bool(rng.integers(2)), rng)
        pixels = self.pixels.copy()
        mask = rng.random((height, width)) < 0.2 if move == "pixels" else np.zeros((height, width), dtype=np.bool_)
        mask[rng.integers(height), rng.integers(width)] = True
        pixels[mask] = extremes((int(mask.sum()), channels), rng)
        return replace(self, pixels=pixels)

    def _resized(self, side: int, grow: bool, rng: Generator) -> Patch:
        """Take off or add a row or column at its top, bottom, left or right (side 0 to 3), if there is room."""
        axis, first = side // 2, side % 2 == 0
        pixels, start = self.pixels, [self.top, self.left]
        if grow:
            full = pixels.shape[axis] >= min(self.largest, self.shape[axis])
            if full or (start[axis] == 0 if first else start[axis] + pixels.shape[axis] == self.shape[axis]):
                return self
            line = list(pixels.shape)
            line[axis] = 1
            parts = [extremes(tuple(line), rng), pixels]
            pixels = np.concatenate(parts if first else parts[::-1], axis=axis)
            start[axis] -= first
        elif pixels.shape[axis] > 1:
            pixels = np.delete(pixels, 0 if first else -1, axis=axis)
            start[axis] += first
        return replace(self, pixels=pixels, top=start[0], left=start[1])

    def stamp(self, images: Images) -> Images:
        """Return copies of the images with the patch on each."""
        stamped = np.array(images)
        stamped[:, self.top : self.top + self.pixels.shape[0], self.left : self.left + self.pixels.shape[1]] = (
            self.pixels
        )
        return stamped


@dataclass(frozen=True, eq=False)
class Blend:
    """A smooth pattern laid over the whole image.

    Attributes:
        points: ``float32 (GRID, GRID, C)`` in [0, 255], between which it is interpolated.
        alpha: its opacity, in [0.05, ``most``].
        most: the highest opacity.
        shape: ``(H, W, C)`` of the images.
    """

    kind: ClassVar[str] = "blend"

    points: NDArray[np.float32]
    alpha: float
    most: float
    shape: tuple[int, ...]

    @classmethod
    def draw(cls, shape: tuple[int, ...], most: float, rng: Generator) -> Blend:
        """Draw a pattern of the highest opacity."""
        points = extremes((GRID, GRID, shape[2]), rng).astype(np.float32)
        return cls(points, most, most, shape)

    def changed(self, rng: Generator) -> Blend:
        """Change a few points, and the opacity a little."""
        points = self.points.copy()
        mask = rng.random((GRID, GRID)) < 0.1
        mask[rng.integers(GRID), rng.integers(GRID)] = True
        points[mask] = extremes((int(mask.sum()), self.shape[2]), rng)
        alpha = float(np.clip(self.alpha + rng.normal(0, 0.02), 0.05, self.most))
        return replace(self, points=points, alpha=alpha)

    def stamp(self, images: Images) -> Images:
        """Return copies of the images with the pattern over each."""
        scale = (self.shape[0] / GRID, self.shape[1] / GRID, 1)
        pattern = zoom(self.points, scale, order=1)
        mixed: Images = np.rint((1 - self.alpha) * images + self.alpha * pattern).astype(np.uint8)
        return mixed


@dataclass(frozen=True, eq=False)
class Warp:
    """A smooth displacement of the pixels.

    Attributes:
        points: ``float32 (2, GRID, GRID)``, rows and columns in pixels, between which it is interpolated.
        most: the largest displacement.
        shape: ``(H, W, C)`` of the images.
    """

    kind: ClassVar[str] = "warp"

    points: NDArray[np.float32]
    most: float
    shape: tuple[int, ...]

    @classmethod
    def draw(cls, shape: tuple[int, ...], most: float, rng: Generator) -> Warp:
        """Draw displacements of up to ``most`` pixels."""
        return cls(rng.uniform(-most, most, (2, GRID, GRID)).astype(np.float32), most, shape)

    def changed(self, rng: Generator) -> Warp:
        """Change the displacement at a few points."""
        points = self.points.copy()
        mask = rng.random(points.shape) < 0.1
        mask.flat[rng.integers(mask.size)] = True
        points[mask] = rng.uniform(-self.most, self.most, int(mask.sum()))
        return replace(self, points=points)

    def stamp(self, images: Images) -> Images:
        """Return copies of the images, each warped; what comes from outside repeats the edge."""
        height, width = self.shape[:2]
        moved = zoom(self.points, (1, height / GRID, width / GRID), order=1)
        rows, columns = np.mgrid[:height, :width] + moved
        field = np.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], axis=-1)
        return warp(images, field.clip(-1, 1).astype(np.float32))


def extremes(shape: tuple[int, ...], rng: Generator) -> Images:
    """Draw pixels ``uint8 (…, C)`` that are black or white, or half of the time of another fully saturated colour."""
    grey = rng.integers(0, 2, (*shape[:-1], 1))
    colours = rng.integers(0, 2, shape)
    drawn: Images = (255 * np.where(rng.random((*shape[:-1], 1)) < 0.5, grey, colours)).astype(np.uint8)
    return drawn
