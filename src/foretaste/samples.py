"""The one data type that flows through everything: labelled images or feature vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ForetasteError, UsageError

Images = NDArray[np.uint8]
"""``uint8 (N, H, W, C)``, C = 1 (grey) or 3 (RGB); may be memory-mapped."""
Features = NDArray[np.float32]
"""``float32 (N, D)``; may be memory-mapped."""
Labels = NDArray[np.int64]
"""``int64 (N,)``, each in [0, K)."""
Mask = NDArray[np.bool_]
"""``bool (N,)``."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled images or labelled feature vectors; exactly one of ``images`` and ``features`` is given.

    Indexing with a slice, an integer array or a boolean mask gives ``Samples`` again. Nothing is copied that need not
    be, so arrays may be memory-mapped and larger than memory.

    Attributes:
        images: ``uint8 (N, H, W, C)`` with C = 1 or 3, or None.
        features: ``float32 (N, D)``, finite, or None.
        labels: ``int64 (N,)``, each in [0, K).
        classes: the K class names.
        ids: N distinct strings that name the samples in every file foretaste writes.

    Raises:
        ForetasteError: shapes, types or ranges are not as above.
    """

    labels: Labels
    classes: tuple[str, ...]
    ids: NDArray[np.str_]
    images: Images | None = field(default=None, kw_only=True)
    features: Features | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.images is None) == (self.features is None):
            raise ForetasteError("samples need either images or features, and not both")
        if self.images is not None and (
            self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] not in (1, 3)
        ):
            raise ForetasteError(f"images must be uint8 (N, H, W, 1 or 3), not {self.images.dtype} {self.images.shape}")
        if self.features is not None and (self.features.dtype != np.float32 or self.features.ndim != 2):
            raise ForetasteError(f"features must be float32 (N, D), not {self.features.dtype} {self.features.shape}")
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.inputs),):
            raise ForetasteError(
                f"labels must be int64 ({len(self.inputs)},), not {self.labels.dtype} {self.labels.shape}"
            )
        if self.ids.shape != self.labels.shape:
            raise ForetasteError(f"{len(self.ids)} ids for {len(self.labels)} samples")
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if outside.size:
            row = int(outside[0])
            raise ForetasteError(
                f"sample {self.ids[row]} (row {row}) has label {self.labels[row]}, "
                f"outside the {len(self.classes)} classes"
            )

    @classmethod
    def from_arrays(
        cls,
        inputs: NDArray[Any],
        labels: NDArray[Any],
        classes: Sequence[str] | None = None,
        ids: Sequence[str] | NDArray[np.str_] | None = None,
    ) -> Samples:
        """Build samples from plain arrays.

        Args:
            inputs: ``uint8 (N, H, W, C)`` or ``(N, H, W)`` images, or floating ``(N, D)`` features.
            labels: ``(N,)`` integers in [0, K).
            classes: K names; "0", "1", … up to the largest label when left out.
            ids: N distinct names; zero-padded row numbers when left out.

        Raises:
            ForetasteError: the arrays do not fit together, hold NaN or infinity, or ids repeat.
        """
        inputs, labels = np.asanyarray(inputs), np.asarray(labels)
        if not np.issubdtype(labels.dtype, np.integer):
            raise ForetasteError(f"labels must be integers, not {labels.dtype}")
        labels = labels.astype(np.int64, copy=False)
        if classes is None:
            classes = [str(k) for k in range(int(labels.max(initial=-1)) + 1)]
        names = row_ids(len(labels)) if ids is None else np.asarray(ids, dtype=np.str_)
        if len(np.unique(names)) != len(names):
            raise ForetasteError("sample ids repeat")
        if inputs.ndim == 2 and np.issubdtype(inputs.dtype, np.number):
            features = inputs.astype(np.float32, copy=False)
            bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
            if bad.size:
                raise ForetasteError(f"sample {names[bad[0]]} (row {bad[0]}) has NaN or infinite features")
            return cls(labels, tuple(classes), names, features=features)
        if inputs.ndim == 3:
            inputs = inputs[..., None]
        return cls(labels, tuple(classes), names, images=inputs)

    @property
    def inputs(self) -> NDArray[Any]:
        """The images, or the features where there are no images."""
        if self.images is not None:
            return self.images
        assert self.features is not None
        return self.features

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(H, W, C)`` of one image or ``(D,)`` of one feature vector."""
        return self.inputs.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | NDArray[np.integer] | Mask) -> Samples:
        """Return the samples that a slice, an integer array or a boolean mask picks."""
        return Samples(
            self.labels[index],
            self.classes,
            self.ids[index],
            images=None if self.images is None else self.images[index],
            features=None if self.features is None else self.features[index],
        )

    def with_labels(self, labels: Labels) -> Samples:
        """Return the same inputs under other labels."""
        return Samples(labels, self.classes, self.ids, images=self.images, features=self.features)

    def split(self, first: int, rng: np.random.Generator) -> tuple[Samples, Samples]:
        """Split at random into ``first`` samples and the rest, each in the original order.

        Raises:
            UsageError: fewer than ``first`` samples.
        """
        if not 0 <= first <= len(self):
            raise UsageError(f"cannot take {first} of {len(self)} samples")
        chosen = np.zeros(len(self), dtype=np.bool_)
        chosen[rng.choice(len(self), first, replace=False)] = True
        return self[chosen], self[~chosen]

    @staticmethod
    def concat(*parts: Samples) -> Samples:
        """Join samples of the same classes and shape, in order.

        Raises:
            ForetasteError: classes or shapes differ, or an id occurs twice.
        """
        first = parts[0]
        for part in parts[1:]:
            if part.classes != first.classes or part.sample_shape != first.sample_shape:
                raise ForetasteError("cannot join samples of different classes or shapes")
        return Samples.from_arrays(
            np.concatenate([part.inputs for part in parts]),
            np.concatenate([part.labels for part in parts]),
            first.classes,
            np.concatenate([part.ids for part in parts]),
        )


def row_ids(n: int) -> NDArray[np.str_]:
    """Return "0" … "n-1", zero-padded to one width so that they sort as they count."""
    width = len(str(max(n - 1, 0)))
    return np.array([f"{row:0{width}d}" for row in range(n)], dtype=np.str_)
