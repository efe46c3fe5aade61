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
LARGEST_LABEL = 2**20
"""Labels without names stop here: a larger one is a time stamp, an id or damage, not a class."""


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
            labels: ``(N,)`` integers in [0, K); without ``classes``, as ``classes_of`` has it.
            classes: K names; numbers when left out.
            ids: N distinct names; zero-padded row numbers when left out.

        Raises:
            ForetasteError: the arrays do not fit together, hold NaN or infinity, or ids repeat.
        """
        inputs, labels = np.asanyarray(inputs), np.asarray(labels)
        if not np.issubdtype(labels.dtype, np.integer):
            raise ForetasteError(f"labels must be integers, not {labels.dtype}")
        labels = labels.astype(np.int64, copy=False)
        if classes is None:
            classes = classes_of(labels)
            if len(classes) <= labels.max(initial=-1):
                labels = np.searchsorted(np.array(classes, dtype=np.int64), labels)
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


def classes_of(labels: Labels) -> tuple[str, ...]:
    """Return the classes that labels without names stand for, in numeric order.

    Labels that use at least half of the numbers from 0 to the largest are places, and each number is a class, with
    samples or not. Labels that leave more out, as postcodes do, are values: each that occurs is a class.

    Raises:
        ForetasteError: a label is ``LARGEST_LABEL`` or more.
    """
    if not labels.size:
        return ()
    largest = int(labels.max())
    if largest >= LARGEST_LABEL:
        row = int(labels.argmax())
        raise ForetasteError(f"row {row} has label {largest}, which cannot be a class; give the classes names")
    values = np.unique(labels)
    places = values[0] < 0 or 2 * len(values) > largest
    numbers = range(largest + 1) if places else values.tolist()
    return tuple(str(number) for number in numbers)


def row_ids(n: int) -> NDArray[np.str_]:
    """Return "0" … "n-1", zero-padded to one width so that they sort as they count."""
    width = len(str(max(n - 1, 0)))
    return np.array([f"{row:0{width}d}" for row in range(n)], dtype=np.str_)


def alike(*sets: Samples) -> tuple[Samples, ...]:
    """Return the sets with grey images as RGB, with equal channels, if the images of any set are RGB."""
    if not any(one.images is not None and one.images.shape[3] == 3 for one in sets):
        return sets
    return tuple(in_colour(one) for one in sets)


def in_colour(samples: Samples) -> Samples:
    """Return the samples with images in RGB; grey ones get equal channels. Features stay as they are."""
    grey = samples.images
    if grey is None or grey.shape[3] == 3:
        return samples
    # What is memory-mapped may be larger than memory.
    images = np.broadcast_to(grey, (*grey.shape[:3], 3)) if isinstance(grey, np.memmap) else np.repeat(grey, 3, axis=3)
    return Samples(samples.labels, samples.classes, samples.ids, images=images)


def coloured(samples: Samples, shape: tuple[int, ...] | None) -> Samples:
    """Return the samples with grey images in RGB if a model takes inputs ``(H, W, 3)``; None is any shape."""
    return in_colour(samples) if shape is not None and shape[-1] == 3 else samples


def renumbered(samples: Samples, classes: tuple[str, ...], source: str, owner: str = "the model") -> Samples:
    """Return the samples with the labels that the classes of the same names have among ``classes``.

    Where only the samples' classes are called by numbers, these are places among ``classes``; where both are, "1" and
    "01" are one class. Messages name the samples' source and whose the classes are.

    Raises:
        UsageError: a class that occurs has neither a name nor a number there.
    """
    if samples.classes == classes:
        return samples
    places = {name: place for place, name in enumerate(classes)}
    if all(name.isdecimal() for name in classes):
        numbers = {int(name): place for name, place in places.items()}
    else:
        numbers = dict(enumerate(range(len(classes))))
    mapped = np.zeros(len(samples.classes), dtype=np.int64)
    for label in np.unique(samples.labels).tolist():
        name = samples.classes[label]
        place = places.get(name, numbers.get(int(name)) if name.isdecimal() else None)
        if place is None:
            raise UsageError(f"{source}: {owner} has no class {name}; it has {listed(classes)}")
        mapped[label] = place
    return Samples(mapped[samples.labels], classes, samples.ids, images=samples.images, features=samples.features)


def listed(names: Sequence[str]) -> str:
    """Return names as a list for people, the first 20 of them."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
