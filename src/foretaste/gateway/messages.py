"""Requests and answers of the Open Inference Protocol v2, as far as the gateway looks into them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.answers import read_answers
from foretaste.classifiers.classifier import Answers
from foretaste.classifiers.http_retry import Reply
from foretaste.classifiers.layout import Layout
from foretaste.classifiers.protocol_codec import DATATYPES, JSON_LENGTH, CodecError, decode
from foretaste.errors import ForetasteError
from foretaste.samples import Images, Labels

INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?/infer")
"""The path of a request for inference, decoded."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request as the server took it.

    Attributes:
        method: the HTTP method.
        path: the path as it was sent, query included, percent-encoded.
        body: the whole body.
        headers: the headers; names are compared without case.
        id: 32 hexadecimal digits that name the request in logs and records.
    """

    method: str
    path: str
    body: bytes
    headers: httpx.Headers
    id: str


class UnscreenableError(Exception):
    """A request goes through untouched; the text is the reason, one word, by which such requests are counted."""


class AmbiguousError(Exception):
    """A request can be read in two ways, and the model server may take the other one; the text says why."""


class CompressionError(Exception):
    """The body of a request cannot be decompressed; the text says why."""


@dataclass(frozen=True)
class GuardedModel:
    """The model that is guarded, and how images and answers are read from messages about it.

    Attributes:
        name: what the protocol calls it.
        version: the one version that is meant, or None for all.
        layout: the form of its input.
        output: the name of the output that answers; None if it has only one.
        sample_shape: ``(H, W, C)`` of the images that the guard was calibrated with.
    """

    name: str
    version: str | None
    layout: Layout
    output: str | None
    sample_shape: tuple[int, ...]

    def require(self, model: str, version: str | None) -> None:
        """Check that a request is about the guarded model.

        Raises:
            UnscreenableError: it is about another one.
        """
        if model != self.name:
            raise UnscreenableError("model")
        if self.version is not None and version != self.version:
            raise UnscreenableError("version")

    def images(self, request: Request) -> Images:
        """Return the images ``uint8 (N, H, W, C)``, N ≥ 1, in a request for inference that is not compressed.

        Raises:
            UnscreenableError: it holds anything but images of the guard's shape.
            AmbiguousError: a field is there twice.
        """
        body = request.body
        length = request.headers.get(JSON_LENGTH)
        try:
            tensors = decode(body, "inputs", length)
        except CodecError:
            raise UnscreenableError("format") from None
        json.loads(body if length is None else body[: int(length)], object_pairs_hook=without_repeats)
        if len(tensors) != 1:
            raise UnscreenableError("inputs")
        given = tensors.get(self.layout.name)
        if given is None:
            raise UnscreenableError("inputs")
        try:
            images = self.layout.unpack(given)
        except ForetasteError:
            raise UnscreenableError("shape") from None
        if not len(images) or images.shape[1:] != self.sample_shape:
            raise UnscreenableError("shape")
        return images

    def answers(self, reply: Reply, n: int) -> Answers | None:
        """Return what the model said of n images; None if its answer does not hold that, or not in numbers."""
        try:
            outputs = decode(reply.body, "outputs", reply.headers.get(JSON_LENGTH))
        except CodecError:
            return None
        output = outputs.get(self.output) if self.output is not None else None
        if output is None and len(outputs) == 1:  # perhaps the client asked for the labels alone
            [output] = outputs.values()
        if output is None:
            return None
        try:
            return read_answers(output, n, self.layout.source)
        except ForetasteError:
            return None

    def corrected(self, reply: Reply, answers: Answers, labels: Labels) -> dict[str, NDArray[Any]]:
        """Return the outputs of an answer with other labels: those that hold scores, and those that hold labels.

        In scores, the score of the corrected label and the highest one change places. So the corrected label has the
        highest score, and a row of probabilities still sums to one.

        Args:
            reply: the model's answer.
            answers: what it says.
            labels: ``int64 (N,)``, what it is to say.

        Returns:
            The outputs that change, by name.
        """
        changed: dict[str, NDArray[Any]] = {}
        rows = np.flatnonzero(labels != answers.labels)
        for name, output in decode(reply.body, "outputs", reply.headers.get(JSON_LENGTH)).items():
            better = np.array(output)
            if output.dtype.kind in "iu" and output.shape[:1] == labels.shape and output.size == len(labels):
                same = output.reshape(-1)[rows] == answers.labels[rows]
                better.reshape(-1)[rows[same]] = labels[rows[same]]
            elif answers.scores is not None and output.shape == answers.scores.shape and output.dtype.kind == "f":
                exchange = rows[output[rows].argmax(axis=1) == answers.labels[rows]]
                old, new = answers.labels[exchange], labels[exchange]
                better[exchange, old], better[exchange, new] = output[exchange, new], output[exchange, old]
            changed[name] = better
        return changed


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object in which no field is there twice.

    Raises:
        AmbiguousError: one is; some readers take its first value, others its last.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise AmbiguousError("a field is there twice")
    return fields


def decompressed(request: Request, most: int) -> Request:
    """Return a request whose body may be compressed, as some clients send it, with the body as it is.

    Model servers differ in what they make of a compressed body; so what is screened is what goes on.

    Raises:
        CompressionError: the encoding is not known, the data is damaged, or there are more than ``most`` bytes.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    headers = httpx.Headers([pair for pair in request.headers.multi_items() if pair[0] != "content-encoding"])
    if encoding in ("", "identity"):
        return replace(request, headers=headers)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise CompressionError("its content-encoding is not gzip or deflate")
    stream = zlib.decompressobj(zlib.MAX_WBITS | (0 if encoding == "deflate" else 16))
    try:
        whole = stream.decompress(request.body, most)
    except zlib.error:
        raise CompressionError(f"it is no {encoding}, or is damaged") from None
    if not stream.eof or stream.unused_data:
        raise CompressionError(f"it is damaged, or holds more than {most} bytes")
    return replace(request, body=whole, headers=headers)


def rewritten(reply: Reply, outputs: Mapping[str, NDArray[Any]], parameters: Mapping[str, str | float]) -> Reply:
    """Return an answer with other values in some outputs, and with further parameters; all else stays as it is.

    Args:
        reply: a model's answer that ``decode`` reads.
        outputs: arrays of the outputs that change, of the shape and type that they have.
        parameters: what is added to the ``parameters`` of the answer.
    """
    length = reply.headers.get(JSON_LENGTH)
    split = len(reply.body) if length is None else int(length)
    answer = json.loads(reply.body[:split])
    pieces: list[bytes] = []
    rest = reply.body[split:]
    for output in answer["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is not None:
            piece, rest = rest[:size], rest[size:]
        changed = outputs.get(output["name"])
        if changed is not None and size is not None:
            piece = changed.astype(DATATYPES[output["datatype"]]).tobytes()
        elif changed is not None:
            output["data"] = changed.ravel().tolist()
        if size is not None:
            pieces.append(piece)
    answer["parameters"] = {**(answer.get("parameters") or {}), **parameters}
    text = json.dumps(answer, separators=(",", ":")).encode()
    headers = httpx.Headers(reply.headers)
    if length is not None:
        headers[JSON_LENGTH] = str(len(text))
    return Reply(reply.status, headers, b"".join([text, *pieces]))


def refusal(status: int, message: str) -> Reply:
    """Return an error as the protocol has it."""
    return Reply(
        status,
        httpx.Headers({"content-type": "application/json"}),
        json.dumps({"error": message}).encode(),
    )
