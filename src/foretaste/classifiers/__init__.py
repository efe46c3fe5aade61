"""Classifiers as a guard sees them: images in, labels or scores out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Answers", "Classifier", "Endpoint", "Preprocessing", "open_classifier", "open_weights"]

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")
"""Suffixes of files that may run code when they are opened."""


class Endpoint(TypedDict, total=False):
    """How to treat an ``http(s)://`` endpoint; ``OpenInference`` says what each means, and its default."""

    token: str | None
    timeout: float
    attempts: int
    queries_per_second: float | None
    batch_size: int


def open_classifier(
    model: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    classes: tuple[str, ...] | None = None,
    **endpoint: Unpack[Endpoint],
) -> Classifier:
    """Open whatever a user names as a model.

    Args:
        model: an ``.onnx`` file; a ``.safetensors`` file that ``foretaste train`` wrote; ``module:attribute`` of a
            Python function; or ``http(s)://host/v2/models/NAME``, an endpoint that speaks the Open Inference Protocol
            v2.
        preprocessing: what is to be done to the pixels; None leaves it to the model file, else floats are 0 … 1.
        classes: the K class names, in the order of the model's outputs; None leaves them to the model file.
        **endpoint: how to treat an endpoint.

    Raises:
        UsageError: it is none of these, does not exist, settings for an endpoint are given with something else, or
            preprocessing or class names for a model that has its own in it.
        ForetasteError: it cannot be read or reached, or takes no images.
    """
    name = str(model)
    if re.match(r"https?://", name, re.IGNORECASE):
        from foretaste.classifiers.open_inference import OpenInference

        return OpenInference(name, preprocessing=preprocessing, classes=classes, **endpoint)
    if endpoint:
        raise UsageError(f"{name} is no http(s):// endpoint, so it has no {' or '.join(endpoint)}")
    suffix = Path(name).suffix.lower()
    if suffix == ".onnx":
        from foretaste.classifiers.onnx import OnnxModel

        return OnnxModel(name, preprocessing=preprocessing, classes=classes)
    if suffix == ".safetensors":
        from foretaste.classifiers.torch_module import TorchModule
        from foretaste.nets.export import load

        if not Path(name).is_file():
            raise UsageError(f"{name} does not exist or is no file")
        if preprocessing is not None or classes is not None:
            raise UsageError(f"{name} holds its preprocessing and its class names; they cannot be set")
        return TorchModule(load(name))
    if suffix in PICKLES:
        raise UsageError(f"{name} may run code when it is opened, so it is not; export the model to ONNX")
    if ":" in name and "/" not in name:
        from foretaste.classifiers.python_callable import load_callable

        return load_callable(name, preprocessing=preprocessing, classes=classes)
    raise UsageError(
        f"{name} is no model; give an .onnx file, a .safetensors file of foretaste train, module:attribute of a Python "
        "function, or an http(s):// endpoint"
    )


def open_weights(model: str | Path) -> nn.Module | None:
    """Open a model with its weights, as a module that takes raw pixel values and returns logits.

    Args:
        model: what a user names as a model, as for ``open_classifier``.

    Returns:
        The module: a ``Net`` or an ``OnnxModule``; None for a black-box model.

    Raises:
        UsageError: there is no such file, or an ONNX file uses what cannot be read into torch.
        ForetasteError: the file cannot be read.
    """
    suffix = "" if re.match(r"https?://", str(model), re.IGNORECASE) else Path(str(model)).suffix.lower()
    if suffix in (".onnx", ".safetensors") and not Path(model).is_file():
        raise UsageError(f"{model} does not exist or is no file")
    if suffix == ".onnx":
        from foretaste.classifiers.onnx_module import OnnxModule

        return OnnxModule(model)
    if suffix == ".safetensors":
        from foretaste.nets.export import load

        return load(model)
    return None
