"""How images go into a model that declares its tensors, and which of its outputs is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.batches import check_images
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images
from foretaste.sanitising import shown

LARGEST_BATCH = 4096
"""No model that takes so many images at a time, and only so many, is asked: it would have to be sent gigabytes."""


@dataclass(frozen=True)
class Declared:
    """A tensor as a model declares it.

    Attributes:
        name: what the model calls it.
        dtype: the type of its elements, or None if that is no number.
        shape: its sizes, None for each that is free; None if even their number is.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{shown(self.name)}: {self.dtype or 'no numbers'} ({sizes})"


@dataclass(frozen=True)
class Layout:
    """The form in which a model takes images.

    A ``uint8`` input gets the pixels as they are, 0 … 255. A ``float32`` input gets them divided by 255, 0 … 1, unless
    it is told otherwise: no declaration says what else a model needs (scale, mean, standard deviation).

    Attributes:
        source: what the model is called in messages.
        name: what the model calls its input.
        dtype: uint8 or float32.
        channels_first: whether the input is ``(N, C, H, W)`` and not ``(N, H, W, C)``.
        shape: H, W and C that it takes, None where any will do.
        batch: how many images it takes at a time, or None where any number will do.
        preprocessing: what is done to the pixels.
    """

    source: str
    name: str
    dtype: np.dtype[Any]
    channels_first: bool
    shape: tuple[int | None, int | None, int | None]
    batch: int | None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @classmethod
    def of(cls, inputs: Sequence[Declared], source: str) -> Layout:
        """Return how images go into a model with these inputs.

        The channels are the one size of 1 or 3 at either end of an image's shape.

        Raises:
            ForetasteError: it takes no images, or how it takes them is not clear.
        """
        if len(inputs) != 1:
            names = ", ".join(shown(one.name) for one in inputs) or "none that it declares"
            raise ForetasteError(f"{source} must have one input, for images; it has {names}")
        [given] = inputs
        if given.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
            raise ForetasteError(f"{source} must take uint8 or float32 images; its input is {given}")
        if given.shape is None or len(given.shape) != 4:
            raise ForetasteError(
                f"{source} must take images as (N, H, W, C) or (N, C, H, W), so of rank 4; its input is {given}"
            )
        batch, second, third, last = given.shape
        if (second in (1, 3)) == (last in (1, 3)):
            raise ForetasteError(
                f"{source} does not make clear which size of its input is the channels, 1 or 3; its input is {given}"
            )
        if batch is not None and not 1 <= batch <= LARGEST_BATCH:
            raise ForetasteError(f"{source} must take 1 to {LARGEST_BATCH} images at a time; its input is {given}")
        channels_first = second in (1, 3)
        shape = (third, last, second) if channels_first else (second, third, last)
        return cls(source, given.name, given.dtype, channels_first, shape, batch)

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """``(H, W, C)`` if the model fixes all three, or None."""
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == 3 else None

    def preprocessed(self, preprocessing: Preprocessing | None) -> Layout:
        """Return the layout with other preprocessing, or itself for None.

        Raises:
            UsageError: the model takes the pixels as they are.
        """
        if preprocessing is None:
            return self
        if self.dtype == np.uint8 and preprocessing.rescales:
            raise UsageError(
                f"{self.source} takes the pixels as they are (uint8), so that scale, mean and std do not apply"
            )
        return replace(self, preprocessing=preprocessing)

    def check(self, images: Images) -> None:
        """Refuse images that do not go into the model.

        Raises:
            UsageError: they are no images, or of another shape.
        """
        check_images(images, self.shape, self.source)

    def pack(self, images: Images) -> NDArray[Any]:
        """Return the model's input for images ``uint8 (N, H, W, C)``, N ≥ 1, contiguous.

        Where the model fixes the batch, the last image is repeated to fill it.
        """
        if self.batch is not None:
            images = images[np.minimum(np.arange(self.batch), len(images) - 1)]
        way = self.preprocessing
        packed: NDArray[Any] = way.order(images) if self.dtype == np.uint8 else way.apply(images)
        return np.ascontiguousarray(packed.transpose(0, 3, 1, 2) if self.channels_first else packed)

    def unpack(self, packed: NDArray[Any]) -> Images:
        """Return the images ``uint8 (N, H, W, C)`` in an input of the model: ``pack`` turned round.

        Values that no pixel has are rounded to the nearest that one has.

        Raises:
            UsageError: it is not what the model takes, or holds NaN or infinity.
        """
        if packed.dtype != self.dtype or packed.ndim != 4:
            raise UsageError(f"{self.source} takes {self.dtype} of rank 4, not {packed.dtype} {packed.shape}")
        values = packed.transpose(0, 2, 3, 1) if self.channels_first else packed
        way = self.preprocessing
        if self.dtype != np.uint8:
            if not np.isfinite(values).all():
                raise UsageError("the images hold NaN or infinity")
            mean, std = (np.array(per_channel, dtype=np.float32) for per_channel in (way.mean, way.std))
            if values.shape[3] not in (1, 3) or max(len(mean), len(std)) not in (1, values.shape[3]):
                raise UsageError(f"{self.source} takes images with as many channels as mean and std have numbers")
            values = np.rint(np.clip((values * std + mean) / np.float32(way.scale), 0, 1) * 255).astype(np.uint8)
        images = way.order(values)
        self.check(images)
        return np.ascontiguousarray(images)


def choose_output(outputs: Sequence[Declared], source: str) -> Declared:
    """Return the output that answers: the only one, else the one with scores, else the one with labels.

    Raises:
        ForetasteError: there is none, or more than one could be meant.
    """
    if len(outputs) == 1:
        return outputs[0]
    scores = [one for one in outputs if _is(one, "f") and one.shape is not None and len(one.shape) == 2]
    labels = [one for one in outputs if _is(one, "iu") and one.shape is not None and len(one.shape) == 1]
    fitting = scores or labels
    if len(fitting) != 1:
        listing = "; ".join(map(str, outputs)) or "none"
        raise ForetasteError(f"{source} must have one output with scores (N, K) or labels (N,); it has {listing}")
    return fitting[0]


def _is(declared: Declared, kinds: str) -> bool:
    return declared.dtype is not None and declared.dtype.kind in kinds
