"""Nets on disk: safetensors to load again, ONNX for everybody else."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised

from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_bytes, atomic_path
from foretaste.nets import Net, outline
from foretaste.sanitising import reason

CARD = "foretaste"
"""The metadata key of a model file under which ``Card`` is kept, as JSON."""

OPSET = 18


class Card(BaseModel):
    """What a model file says of its net beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    net: str
    width: Annotated[int, Field(ge=1, le=65536)]
    sample_shape: tuple[Annotated[int, Field(ge=1)], ...]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]


def save(net: Net, path: str | Path) -> None:
    """Write a net as safetensors, with what ``load`` needs to rebuild it.

    Raises:
        ForetasteError: the file cannot be written.
    """
    card = Card(net=net.name, width=net.width, sample_shape=net.sample_shape, classes=net.classes)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    atomic_bytes(path, serialised(state, {CARD: card.model_dump_json()}))


def load(path: str | Path) -> Net:
    """Read a net that ``save`` wrote, on the CPU and in evaluation mode.

    Raises:
        ForetasteError: the file is missing, damaged, or not such a net.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = Card.model_validate_json((file.metadata() or {})[CARD])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        net = outline(card.net, card.sample_shape, card.classes, card.width)
        if {name: tensor.dtype for name, tensor in net.state_dict().items()} != {
            name: tensor.dtype for name, tensor in state.items()
        }:
            raise ForetasteError(f"cannot read {path}: its tensors are not those of the net {card.net}")
        net.load_state_dict(state, assign=True)
    except FileNotFoundError:
        raise ForetasteError(f"there is no file {path}") from None
    except KeyError:
        raise ForetasteError(f"{path} is not a model that foretaste wrote") from None
    except (SafetensorError, OSError, ValidationError, RuntimeError) as error:
        raise ForetasteError(f"cannot read {path}: {reason(error)}") from error
    net.channels_last()
    return net.eval()


def export_onnx(net: Net, path: str | Path) -> None:
    """Write a net as ONNX, opset 18.

    The input is "images", ``uint8 (N, H, W, C)``, or "features", ``float32 (N, D)``: raw, with any N. The output is
    "logits", ``float32 (N, K)``. The class names are in the model's metadata as JSON, under "classes".

    Raises:
        ForetasteError: the file cannot be written.
    """
    is_image = len(net.sample_shape) == 3
    example = torch.zeros((2, *net.sample_shape), dtype=torch.uint8 if is_image else torch.float32)
    twin = outline(net.name, net.sample_shape, net.classes, net.width)
    twin.load_state_dict({name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}, assign=True)
    with quiet_exporter():
        program = torch.onnx.export(
            twin.eval(),
            (example,),
            input_names=["images" if is_image else "features"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(net.classes)
    with atomic_path(path) as temporary:
        program.save(temporary)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter from warning of its own internals and of packages that the nets do not use."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
