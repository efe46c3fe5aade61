"""What every classifier is to a guard: images in, labels or scores out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foretaste.samples import Images, Labels


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier said of N images.

    Attributes:
        labels: ``int64 (N,)``, the class it chose for each.
        scores: ``float32 (N, K)``, one score per class, higher is likelier (logits or probabilities); None if the
            classifier gives labels alone.
    """

    labels: Labels
    scores: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@runtime_checkable
class Classifier(Protocol):
    """A black-box model: one that answers queries, and no more."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The K class names if the model states them, or None."""
        ...

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """``(H, W, C)`` of the images it takes if the model states it, or None."""
        ...

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            ForetasteError: the model does not take these images, cannot be reached, or answers with what is no answer.
        """
        ...
