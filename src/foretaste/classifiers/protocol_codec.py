"""Tensors in the bodies of Open Inference Protocol v2 messages, as JSON or with the binary tensor data extension.

https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and
https://kserve.github.io/website (binary tensor data extension). BYTES tensors are left out: no classifier needs them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StrictInt, ValidationError

JSON_LENGTH = "Inference-Header-Content-Length"
"""The HTTP header that gives the bytes of JSON before the binary data."""

DATATYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "UINT8": "u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }.items()
}
"""The protocol's names for the types of numbers."""

NAMES = {dtype: name for name, dtype in DATATYPES.items()}

KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}
"""The kinds of JSON values, as NumPy reads them, that a tensor of each kind may be written with."""

Role = Literal["inputs", "outputs"]

Model = TypeVar("Model", bound=BaseModel)


class CodecError(ValueError):
    """A message is not as the protocol has it; the text goes on a sentence about who sent it."""


class Size(BaseModel):
    """What the ``parameters`` of a tensor may say of binary data; the rest of them is not for us."""

    binary_data_size: Annotated[StrictInt, Field(ge=0)] | None = None


class Tensor(BaseModel):
    """A tensor in a message."""

    name: str
    datatype: str
    shape: Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], Field(max_length=8)]
    parameters: Size | None = None
    data: list[Any] | None = None


class Request(BaseModel):
    """The JSON of a request, as far as it is about tensors; what it says of outputs is which ones are wanted."""

    inputs: tuple[Tensor, ...] = ()


class Answer(BaseModel):
    """The JSON of an answer, as far as it is about tensors."""

    outputs: tuple[Tensor, ...] = ()


def encode(
    tensors: Mapping[str, NDArray[Any]], role: Role, *, binary: bool, fields: Mapping[str, Any] | None = None
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the HTTP headers of a message.

    Args:
        tensors: arrays of the types in ``DATATYPES``, by name.
        role: whether these are the inputs of a request or the outputs of an answer.
        binary: whether to write them as binary data and not as JSON.
        fields: further fields of the JSON object.
    """
    listed: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    for name, tensor in tensors.items():
        dtype = tensor.dtype.newbyteorder("<")
        one: dict[str, Any] = {"name": name, "datatype": NAMES[dtype], "shape": list(tensor.shape)}
        if binary:
            pieces.append(tensor.astype(dtype, copy=False).tobytes())
            one["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            one["data"] = tensor.ravel().tolist()
        listed.append(one)
    text = json.dumps({**(fields or {}), role: listed}, separators=(",", ":")).encode()
    if not binary:
        return text, {"Content-Type": "application/json"}
    return b"".join([text, *pieces]), {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(text))}


def decode(body: bytes, role: Role, json_length: str | None = None) -> dict[str, NDArray[Any]]:
    """Return the tensors of a message by name.

    Args:
        body: the whole body.
        role: whether they are the inputs of a request or the outputs of an answer.
        json_length: the value of the header ``JSON_LENGTH``, if there is one.

    Raises:
        CodecError: the message is not as the protocol has it.
    """
    length = len(body) if json_length is None else _length(json_length, len(body))
    text = body[:length]
    listed = parse(Request, text).inputs if role == "inputs" else parse(Answer, text).outputs
    rest = memoryview(body)[length:]
    tensors: dict[str, NDArray[Any]] = {}
    for tensor in listed:
        if tensor.datatype not in DATATYPES:
            raise CodecError(f"has a tensor of datatype {tensor.datatype[:20]!r}")
        if tensor.name in tensors:
            raise CodecError(f"has two tensors with the name {tensor.name[:50]!r}")
        size = None if tensor.parameters is None else tensor.parameters.binary_data_size
        if size is None:
            tensors[tensor.name] = _from_json(tensor)
        else:
            tensors[tensor.name] = _from_binary(tensor, rest[:size])
            rest = rest[size:]
    if len(rest):
        raise CodecError(f"has {len(rest)} bytes that belong to no tensor")
    return tensors


def parse(model: type[Model], text: bytes) -> Model:
    """Return the JSON object that a body holds.

    Raises:
        CodecError: it is no JSON, or not such an object.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise CodecError("is not JSON") from None
        place = ".".join(map(str, first["loc"]))
        raise CodecError(f"is not as the protocol has it ({place or 'the whole'}: {first['msg']})") from None


def _length(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) <= most):
        raise CodecError(f"has a wrong {JSON_LENGTH} header")
    return int(text)


def _from_binary(tensor: Tensor, data: memoryview) -> NDArray[Any]:
    dtype, count = DATATYPES[tensor.datatype], math.prod(tensor.shape)
    if tensor.data is not None or len(data) != count * dtype.itemsize:
        raise CodecError(f"has {len(data)} bytes for {count} {tensor.datatype} values")
    return np.frombuffer(data, dtype).reshape(tensor.shape)


def _from_json(tensor: Tensor) -> NDArray[Any]:
    dtype, count = DATATYPES[tensor.datatype], math.prod(tensor.shape)
    # One long text would make NumPy pad all the others to its length.
    if not _all_numbers(tensor.data or []):
        raise CodecError(f"has data that is no array of {tensor.datatype}")
    try:
        # NumPy would read whole numbers on both sides of 2**63 as floats.
        values = np.asarray(tensor.data or [], dtype=object if tensor.datatype == "UINT64" else None)
    except (ValueError, OverflowError):  # rows of different lengths, lists too deep, numbers too large
        raise CodecError(f"has data that is no array of {tensor.datatype}") from None
    # Flat or nested, as the protocol allows; no values have no kind.
    if values.size != count or (values.ndim != 1 and values.shape != tensor.shape):
        raise CodecError(f"has {values.size} values for a tensor of {count}")
    whole = values.dtype == object and all(type(value) is int for value in values.flat)
    if count and ("i" if whole else values.dtype.kind) not in KINDS[dtype.kind]:
        raise CodecError(f"has data that is no array of {tensor.datatype}")
    if count and dtype.kind in "iu" and not _fits(values, dtype):
        raise CodecError(f"has values outside the range of {tensor.datatype}")
    try:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which a reader of scores refuses
            return values.astype(dtype).reshape(tensor.shape)
    except OverflowError:  # a whole number beyond all floats
        raise CodecError(f"has values outside the range of {tensor.datatype}") from None


def _all_numbers(data: list[Any]) -> bool:
    """Return whether nested lists hold nothing but numbers and truth values."""
    pending: list[Any] = [data]
    while pending:
        for value in pending.pop():
            if isinstance(value, list):
                pending.append(value)
            elif not isinstance(value, bool | int | float):
                return False
    return True


def _fits(values: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return int(values.min()) >= limits.min and int(values.max()) <= limits.max
