"""What stands behind the gateway: a model server, or a model that the gateway runs itself."""

from __future__ import annotations

import json
import os
import re
import time
import weakref
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np

from foretaste.classifiers import open_classifier
from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.http_retry import MOST_BYTES, TOKEN, Reply
from foretaste.classifiers.layout import Layout
from foretaste.classifiers.open_inference import OpenInference
from foretaste.classifiers.protocol_codec import JSON_LENGTH, CodecError, decode, encode
from foretaste.errors import ForetasteError
from foretaste.gateway.messages import INFER, GuardedModel, Request, refusal
from foretaste.gateway.settings import Settings

HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "accept-encoding",
        "expect",
    ]
)
"""Headers that are about one connection (RFC 9110, section 7.6.1), or that the HTTP client writes itself."""

IMAGES, SCORES, LABELS = "images", "scores", "labels"
"""The tensors of a local model."""

ATTEMPTS = 2
"""How often the guard's own questions are sent at most: no caller waits longer than for two."""


class Backend(Protocol):
    """Answers requests of the protocol."""

    @property
    def guarded(self) -> GuardedModel:
        """How the guarded model's messages are read."""
        ...

    def forward(self, request: Request) -> Reply:
        """Return the answer to a request whose path begins with ``/v2``; safe to use from several threads."""
        ...


def open_model(settings: Settings) -> Classifier:
    """Open the model that the settings name.

    Raises:
        UsageError: the model or the address is none.
        ForetasteError: it cannot be read or reached, or takes no images.
    """
    if settings.upstream is not None:
        return OpenInference(settings.upstream, timeout=settings.timeout, attempts=ATTEMPTS)
    assert settings.model is not None
    return open_classifier(settings.model, preprocessing=settings.preprocessing, classes=settings.classes)


def backend_of(settings: Settings, classifier: Classifier, sample_shape: tuple[int, ...]) -> Backend:
    """Return what answers requests.

    Args:
        settings: what the gateway is told.
        classifier: what ``open_model`` gave.
        sample_shape: ``(H, W, C)`` of the clean images.
    """
    if isinstance(classifier, OpenInference):
        return Upstream(classifier, sample_shape, timeout=settings.timeout)
    return Local(classifier, sample_shape, name=settings.name)


class Upstream:
    """A model server; requests go to it as they came, and its answers back.

    No redirect is followed, and no address but the server's own is ever asked.

    Args:
        classifier: the guarded model on it.
        sample_shape: ``(H, W, C)`` of the images that are guarded.
        timeout: seconds for a whole answer, > 0.
    """

    def __init__(self, classifier: OpenInference, sample_shape: tuple[int, ...], *, timeout: float) -> None:
        address = classifier.address
        assert address.name is not None
        self.guarded = GuardedModel(address.name, address.version, classifier.layout, classifier.output, sample_shape)
        self._root, self._timeout = address.root, timeout
        token = os.environ.get(TOKEN)
        self._authorization = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            timeout=timeout, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64)
        )
        # httpx's own would be added to each request, and the client's are to arrive as they were.
        self._client.headers.clear()
        weakref.finalize(self, self._client.close)

    def forward(self, request: Request) -> Reply:
        """Return the server's answer, or an error of the protocol if there is none."""
        headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
        headers = {**self._authorization, **headers, "accept-encoding": "identity", "x-request-id": request.id}
        for attempt in range(ATTEMPTS):
            try:
                return self._send(request, headers)
            except httpx.TimeoutException:
                return refusal(504, "the model server does not answer in time")
            except httpx.TransportError:
                # A kept connection may have been closed by the server just now; a new one is tried once.
                if attempt + 1 == ATTEMPTS:
                    return refusal(502, "the model server cannot be reached")
            except (httpx.HTTPError, ForetasteError):
                return refusal(502, "the model server's answer cannot be read")
        raise AssertionError("unreachable")

    def _send(self, request: Request, headers: dict[str, str]) -> Reply:
        # httpx times single reads; this bounds their sum over the body, for servers that send a byte now and then.
        deadline = time.monotonic() + self._timeout
        body = bytearray()
        url = self._root + request.path
        with self._client.stream(request.method, url, content=request.body, headers=headers) as answer:
            for piece in answer.iter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise ForetasteError("the answer is too long")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow", request=answer.request)
        kept = [(name, value) for name, value in answer.headers.multi_items() if name not in HOP_BY_HOP]
        return Reply(answer.status_code, httpx.Headers(kept), bytes(body))


class Local:
    """A model that the gateway runs itself, and serves as a model server would.

    Its input is ``images``, UINT8 ``[-1, H, W, C]``; its outputs are ``labels``, INT64 ``[-1]``, and, if it gives them,
    ``scores``, FP32 ``[-1, K]``. Both know binary tensors.

    Args:
        classifier: the model.
        sample_shape: ``(H, W, C)`` of its images.
        name: what it is called.
    """

    def __init__(self, classifier: Classifier, sample_shape: tuple[int, ...], *, name: str) -> None:
        self._classifier, self._name = classifier, name
        height, width, channels = sample_shape
        layout = Layout(name, IMAGES, np.dtype(np.uint8), False, (height, width, channels), None)
        self.guarded = GuardedModel(name, None, layout, SCORES, sample_shape)

    def forward(self, request: Request) -> Reply:
        """Answer a request as a model server with this one model would."""
        path = unquote(urlsplit(request.path).path)
        if path == "/v2":
            return said({"name": "foretaste", "version": "2", "extensions": ["binary_tensor_data"]})
        if path in ("/v2/health/live", "/v2/health/ready"):
            return said({})
        named = re.fullmatch(r"/v2/models/(?P<model>[^/]+)(?P<rest>/ready|/infer)?", path)
        if named is None or named["model"] != self._name:
            return refusal(404, "there is no such model" if INFER.fullmatch(path) or named else "there is no such page")
        if named["rest"] == "/ready":
            return said({"name": self._name, "ready": True})
        if named["rest"] is None:
            return said(self._metadata())
        return self._infer(request)

    def _metadata(self) -> dict[str, Any]:
        classes = -1 if self._classifier.classes is None else len(self._classifier.classes)
        return {
            "name": self._name,
            "platform": "foretaste",
            "versions": [],
            "inputs": [{"name": IMAGES, "datatype": "UINT8", "shape": [-1, *self.guarded.sample_shape]}],
            "outputs": [
                {"name": LABELS, "datatype": "INT64", "shape": [-1]},
                {"name": SCORES, "datatype": "FP32", "shape": [-1, classes]},
            ],
        }

    def _infer(self, request: Request) -> Reply:
        length = request.headers.get(JSON_LENGTH)
        try:
            tensors = decode(request.body, "inputs", length)
        except CodecError as error:
            return refusal(400, f"the request {error}")
        if list(tensors) != [IMAGES]:
            return refusal(400, f"the model has one input, {IMAGES}")
        try:
            images = self.guarded.layout.unpack(tensors[IMAGES])
        except ForetasteError as error:
            return refusal(400, str(error))
        try:
            answers = self._classifier.classify(images)
        except ForetasteError:
            return refusal(500, "the model fails on these images")
        outputs: dict[str, Any] = {LABELS: answers.labels}
        if answers.scores is not None:
            outputs[SCORES] = answers.scores
        # It was decoded, so it is an object; what it says beside its inputs has not been checked.
        message = json.loads(request.body if length is None else request.body[: int(length)])
        wanted = message.get("outputs")
        listed = wanted if isinstance(wanted, list) else []
        names = [str(one.get("name")) for one in listed if isinstance(one, dict)]
        if any(name not in outputs for name in names):
            return refusal(400, f"the model has the outputs {', '.join(outputs)}")
        fields: dict[str, Any] = {"model_name": self._name, "model_version": ""}
        if isinstance(message.get("id"), str):
            fields["id"] = message["id"]
        body, headers = encode(
            {name: outputs[name] for name in names or outputs},
            "outputs",
            binary=wants_binary(message),
            fields=fields,
        )
        return Reply(200, httpx.Headers(headers), body)


def wants_binary(message: dict[str, Any]) -> bool:
    """Return whether a request asks for its outputs as binary data: for all at once, or for each by itself."""
    parameters, outputs = message.get("parameters"), message.get("outputs")
    if isinstance(parameters, dict) and parameters.get("binary_data_output") is True:
        return True
    own = [one.get("parameters") for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    return bool(own) and all(isinstance(one, dict) and one.get("binary_data") is True for one in own)


def said(fields: dict[str, Any]) -> Reply:
    """Return an object as an answer."""
    return Reply(200, httpx.Headers({"content-type": "application/json"}), json.dumps(fields).encode())
