"""Boxes in an image: where a trigger may lie, and the smaller boxes that it then lies in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.samples import Images


class Box(NamedTuple):
    """A part of an image in pixels; bottom and right are excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def part(self) -> tuple[slice, slice]:
        """The slices that cut it out of ``(H, W, …)``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, margin: int, height: int, width: int) -> Box:
        """Return the box with a margin all round, inside an image of this size."""
        return Box(
            max(self.top - margin, 0),
            max(self.left - margin, 0),
            min(self.bottom + margin, height),
            min(self.right + margin, width),
        )

    def overlap(self, other: Box) -> float:
        """Return the intersection over the union of the two, in [0, 1]."""
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        width = min(self.right, other.right) - max(self.left, other.left)
        common = max(height, 0) * max(width, 0)
        return common / (self.height * self.width + other.height * other.width - common)


def halves(start: int, stop: int, largest: int) -> list[tuple[int, int]]:
    """Return two parts of a range that together hold every stretch of ``largest``; one if they would not be smaller."""
    size = (stop - start + largest) // 2
    if size >= stop - start:
        return [(start, stop)]
    return [(start, start + size), (stop - size, stop)]


def quarters(box: Box, largest: int) -> list[Box]:
    """Return up to four boxes in a box such that any square of side ``largest`` in it lies whole in one of them."""
    return [
        Box(top, left, bottom, right)
        for top, bottom in halves(box.top, box.bottom, largest)
        for left, right in halves(box.left, box.right, largest)
    ]


def paste(source: NDArray[np.uint8], references: Images, box: Box) -> Images:
    """Return copies of the references ``uint8 (n, H, W, C)`` with the box of the source ``uint8 (H, W, C)`` in each."""
    pasted = np.array(references)
    rows, columns = box.part
    pasted[:, rows, columns] = source[rows, columns]
    return pasted


def places(height: int, width: int, largest: int) -> list[Box]:
    """Return all boxes smaller than a quarter that are looked at in an image of this size, sorted."""
    found: set[Box] = set()
    level = {part for box in quarters(Box(0, 0, height, width), largest) for part in inside(box, largest)}
    while level:
        found |= level
        level = {part for box in level for part in inside(box, largest)}
    return sorted(found)


def inside(box: Box, largest: int) -> list[Box]:
    """Return the boxes that are looked at in a box: none if it is small enough."""
    return [] if small_enough(box, largest) else quarters(box, largest)


def small_enough(box: Box, largest: int) -> bool:
    """Return whether a box is hardly larger than the largest trigger, so that its parts are not looked at."""
    return max(box.height, box.width) <= 1.8 * largest
