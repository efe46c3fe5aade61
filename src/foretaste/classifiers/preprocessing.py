"""How pixels become the numbers that a model takes: stated by the user or the model file, never guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from foretaste.classifiers.classifier import Classifier
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images

METADATA_KEY = "preprocessing"
"""The metadata key of an ONNX file under which the fields of ``Preprocessing`` are kept, as a JSON object."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The numbers ``(pixel · scale / 255 − mean) / std`` that a model takes in place of the pixels 0 … 255.

    Attributes:
        scale: what the pixel value 255 becomes before ``mean`` is taken off, > 0.
        mean: what is taken off, one number or one per channel in the model's order.
        std: what the rest is divided by, one number or one per channel in the model's order, each > 0.
        channels: the order of the colours that the model takes. Grey images have none.

    Raises:
        UsageError: a field is out of range.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UsageError(f"scale must be a number above 0, not {self.scale:g}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise UsageError(f"{name} must be one number, or three, one per channel")
        if min(self.std) <= 0:
            raise UsageError("std must be above 0")
        if self.channels not in ("rgb", "bgr"):
            raise UsageError(f"channels must be rgb or bgr, not {self.channels}")

    @property
    def rescales(self) -> bool:
        """Whether it changes more than the order of the colours, which only a model that takes floats allows."""
        return self != Preprocessing(channels=self.channels)

    def order(self, images: Any) -> Any:
        """Return images ``(N, H, W, C)``, an array or a tensor, with their colours in the model's order."""
        return images if self.channels == "rgb" else images[..., list(range(images.shape[3]))[::-1]]

    def scaled(self, pixels: Any, array: Callable[[tuple[float, ...]], Any]) -> Any:
        """Return the model's numbers for pixel values in the model's order of colours.

        Args:
            pixels: ``float32 (N, H, W, C)`` in [0, 255], an array or a tensor.
            array: makes a ``float32`` one of the same kind.

        Raises:
            UsageError: ``mean`` or ``std`` has a number per channel, and the images have another number of channels.
        """
        most = max(len(self.mean), len(self.std))
        if most > 1 and pixels.shape[3] != most:
            raise UsageError(f"mean and std are for {most} channels, and the images have {pixels.shape[3]}")
        return (pixels / 255 * self.scale - array(self.mean)) / array(self.std)

    def apply(self, images: Images) -> NDArray[np.float32]:
        """Return the model's numbers ``float32 (N, H, W, C)`` for images ``uint8 (N, H, W, C)``.

        Raises:
            UsageError: ``mean`` or ``std`` has a number per channel, and the images have another number of channels.
        """
        values: NDArray[np.float32] = self.scaled(
            self.order(images).astype(np.float32), partial(np.array, dtype=np.float32)
        )
        return values

    @property
    def options(self) -> str:
        """The command-line options that ask for it."""
        usual = Preprocessing()
        named = [
            ("--scale", f"{self.scale:g}", self.scale != usual.scale),
            ("--mean", ",".join(f"{value:g}" for value in self.mean), self.mean != usual.mean),
            ("--std", ",".join(f"{value:g}" for value in self.std), self.std != usual.std),
            ("--channels", self.channels, self.channels != usual.channels),
        ]
        return " ".join(f"{name} {text}" for name, text, given in named if given) or "--scale 1"

    def described(self) -> dict[str, Any]:
        """Return the fields, for ``summary.json``."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}


@runtime_checkable
class Preprocesses(Protocol):
    """A classifier whose images can be preprocessed in one way or another."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to the pixels; None if the model gets them as they are."""
        ...

    def preprocessed(self, preprocessing: Preprocessing) -> Classifier:
        """Return the same model with other preprocessing.

        Raises:
            UsageError: the model takes pixels as they are.
        """
        ...


CONVENTIONS: Mapping[str, Preprocessing] = {
    "0 to 1": Preprocessing(),
    "0 to 255": Preprocessing(scale=255),
    "−1 to 1": Preprocessing(mean=(0.5,), std=(0.5,)),
    "ImageNet's mean and deviation": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "CIFAR-10's mean and deviation": Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)),
    "MNIST's mean and deviation": Preprocessing(mean=(0.1307,), std=(0.3081,)),
    "0 to 1, BGR": Preprocessing(channels="bgr"),
    "0 to 255, BGR": Preprocessing(scale=255, channels="bgr"),
    "−1 to 1, BGR": Preprocessing(mean=(0.5,), std=(0.5,), channels="bgr"),
    "Caffe's mean, 0 to 255, BGR": Preprocessing(scale=255, mean=(103.939, 116.779, 123.68), channels="bgr"),
}
"""How the images of most models are preprocessed, by what people call it."""


def conventions(channels: int) -> dict[str, Preprocessing]:
    """Return those of the usual conventions that apply to images with so many channels."""
    return {
        name: way
        for name, way in CONVENTIONS.items()
        if channels == 3 or (way.channels == "rgb" and len(way.mean) == len(way.std) == 1)
    }


def from_metadata(text: str | None, source: str) -> Preprocessing | None:
    """Read what an ONNX file says of its preprocessing; None if it says nothing.

    Raises:
        ForetasteError: it is no JSON object with the fields of ``Preprocessing``.
    """
    if text is None:
        return None
    try:
        return TypeAdapter(Preprocessing).validate_json(text, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ForetasteError(
            f'{source}: the metadata key "{METADATA_KEY}" is damaged: {place}: {first["msg"]}'
        ) from None
    except UsageError as error:
        raise ForetasteError(f'{source}: the metadata key "{METADATA_KEY}" is damaged: {error}') from None
