"""Clean images that suspicious pixels are pasted into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.samples import Images, Labels, Mask


@dataclass(frozen=True, eq=False)
class References:
    """Clean images whose answers are known.

    Attributes:
        images: ``uint8 (n, H, W, C)``.
        labels: ``int64 (n,)``, what the classifier says of each.
    """

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, chosen: Mask, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return the numbers of the chosen references, ``bool (n,)``, in random order, classes taking turns."""
        order = rng.permutation(np.flatnonzero(chosen))
        turn = np.zeros(len(order), dtype=np.int64)
        seen: dict[int, int] = {}
        for place, label in enumerate(self.labels[order].tolist()):
            turn[place] = seen[label] = seen.get(label, -1) + 1
        return order[np.argsort(turn, kind="stable")]
