"""A trigger as a guard reconstructs it, in memory and on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foretaste.samples import Images, Mask

LEAST_FLIP_RATE = 0.8
"""Share of clean images that a patch turns at least, to be called a trigger (Udeshi et al. 2022, arXiv:1908.02203)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trigger:
    """A patch that forces a label.

    Attributes:
        patch: ``uint8 (h, w, C)``, the pixels of its box.
        mask: ``bool (h, w)``, which of them belong to it.
        position: ``(row, column)`` of the box's top-left pixel in the image it was found in.
        anywhere: whether it also works in other places.
        target: the label that it forces, in [0, K); None if it moves each label to another one (all-to-all).
        flip_rate: share of clean images whose label just these pixels turned when they were pasted there, in [0, 1].
        n_confirmed: the clean images that they were pasted into.
    """

    patch: Images
    mask: Mask
    position: tuple[int, int]
    anywhere: bool
    target: int | None
    flip_rate: float
    n_confirmed: int

    @property
    def confirmed(self) -> bool:
        """Whether it turns as many clean images as a trigger does, and a natural look seldom."""
        return self.flip_rate >= LEAST_FLIP_RATE

    @cached_property
    def id(self) -> str:
        """A short name that follows from pixels, mask, place and target."""
        told = f"{self.patch.shape} {self.position} {self.anywhere} {self.target}".encode()
        digest = hashlib.sha256(told + np.ascontiguousarray(self.patch).tobytes() + self.mask.tobytes())
        return digest.hexdigest()[:12]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``(top, left, bottom, right)`` in pixels, bottom and right excluded."""
        (top, left), (height, width) = self.position, self.mask.shape
        return top, left, top + height, left + width
