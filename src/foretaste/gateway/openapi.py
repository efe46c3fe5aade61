"""What the OpenAPI description says of the protocol's messages."""

from __future__ import annotations

from typing import Any

from foretaste.classifiers.protocol_codec import DATATYPES

ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
"""The protocol's error."""

NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}

TENSOR_METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
    "required": ["name", "datatype", "shape"],
}

SERVER = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "extensions": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "version"],
}

MODEL = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": TENSOR_METADATA},
        "outputs": {"type": "array", "items": TENSOR_METADATA},
    },
    "required": ["name"],
}

TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": [*DATATYPES, "BYTES"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 8},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
    "required": ["name", "datatype", "shape"],
}

INFER_REQUEST = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": TENSOR, "minItems": 1},
        "outputs": {"type": "array", "items": NAMED},
    },
    "required": ["inputs"],
}

INFER_ANSWER = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "foretaste_verdict": {"type": "string"},
                "foretaste_score": {"type": "string"},
                "foretaste_trigger": {"type": "string"},
            },
        },
        "outputs": {"type": "array", "items": TENSOR},
    },
    "required": ["outputs"],
}

BINARY = {"type": "string", "format": "binary"}
"""JSON, and after it the bytes of the tensors; the header Inference-Header-Content-Length says where it ends."""


def answers(schema: dict[str, Any], *, binary: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the responses of an operation: one with this schema, or an error of the protocol.

    Args:
        schema: of the JSON.
        binary: whether the answer may have binary tensors.
    """
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if binary:
        content["application/octet-stream"] = {"schema": BINARY}
    return {
        200: {"description": "The answer.", "content": content},
        "default": {
            "description": "The request failed, and why.",
            "content": {"application/json": {"schema": ERROR}},
        },
    }
