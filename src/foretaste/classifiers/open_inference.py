"""An HTTP endpoint that speaks the Open Inference Protocol v2 as a classifier (KServe, Triton, MLServer and others).

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, unquote

import httpx
from pydantic import BaseModel, Field, RootModel, StrictInt

from foretaste.classifiers.answers import read_answers
from foretaste.classifiers.batches import batch_size, in_batches
from foretaste.classifiers.classifier import Answers
from foretaste.classifiers.http_retry import TOKEN, Reply, RetryingClient
from foretaste.classifiers.layout import Declared, Layout, choose_output
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.classifiers.protocol_codec import DATATYPES, JSON_LENGTH, CodecError, Model, decode, encode, parse
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images
from foretaste.sanitising import shown

BINARY = "binary_tensor_data"
"""The extension that a server names which takes and sends tensors as binary data."""

PATH = re.compile(r"(?P<root>.*?)(/v2(/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?)?)?/?")


class ServerMetadata(BaseModel):
    """What a server says of itself, as far as it matters here."""

    extensions: tuple[str, ...] = ()


class TensorMetadata(BaseModel):
    """What a server says of an input or output; a size of -1 is free."""

    name: str
    datatype: str
    shape: tuple[Annotated[StrictInt, Field(ge=-1)], ...]

    def declared(self) -> Declared:
        """Return it in the terms that all models share."""
        shape = tuple(None if size == -1 else size for size in self.shape)
        return Declared(self.name, DATATYPES.get(self.datatype), shape)


class ModelMetadata(BaseModel):
    """What a server says of a model, as far as it matters here."""

    inputs: tuple[TensorMetadata, ...] | None = None
    outputs: tuple[TensorMetadata, ...] | None = None


class Entry(BaseModel):
    """A model in a server's list (model repository extension)."""

    name: str
    state: str | None = None


class Index(RootModel[tuple[Entry, ...]]):
    """A server's list of models."""


@dataclass(frozen=True)
class Address:
    """A model's address taken apart.

    Attributes:
        root: the server's address, without a slash at its end.
        name: the model's name, or None if the address does not say.
        version: its version, or None for the server's choice.
    """

    root: str
    name: str | None = None
    version: str | None = None

    @classmethod
    def of(cls, url: str) -> Address:
        """Take ``http(s)://host[/prefix][/v2[/models/NAME[/versions/VERSION]]]`` apart.

        Raises:
            UsageError: it is of another form.
        """
        try:
            whole = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"{shown(url)} is no address: {error}") from None
        if whole.userinfo:
            raise UsageError(f"an address must not hold a password; put a bearer token into {TOKEN}")
        parts = PATH.fullmatch(whole.raw_path.decode())
        if (
            whole.scheme not in ("http", "https")
            or not whole.host
            or not 0 < (whole.port or 80) < 2**16
            or whole.query
            or whole.fragment
            or parts is None
            or "/v2/" in f"{parts['root']}/"
        ):
            raise UsageError(f"{shown(url)} is not of the form http(s)://host/v2/models/NAME[/versions/VERSION]")
        origin = f"{whole.scheme}://{whole.netloc.decode()}"
        name, version = parts["name"], parts["version"]
        return cls(origin + parts["root"], name and unquote(name), version and unquote(version))

    def of_model(self, name: str) -> Address:
        """Return the address of a model on this server."""
        return Address(self.root, name)

    @property
    def path(self) -> str:
        """What goes after the root for the model."""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/v2/models/{quote(self.name or '', safe='')}{version}"

    def __str__(self) -> str:
        return self.root + (self.path if self.name else "")


class OpenInference:
    """Asks a model server over HTTP; safe to use from several threads.

    Opening it asks the server what the model takes. Images go as the model's declared input has them (see ``Layout``),
    as binary data where the server says that it knows that, else as JSON.

    Args:
        url: ``http(s)://host/v2/models/NAME[/versions/VERSION]``, or ``http(s)://host`` of a server that lists exactly
            one model.
        token: a bearer token; None takes ``$FORETASTE_TOKEN``, if that is set. Never shown or logged.
        timeout: seconds for a whole answer, > 0.
        attempts: how often a request is sent at most, ≥ 1.
        queries_per_second: the most images to ask about, on average, > 0; None for no limit.
        batch_size: the most images in a request, ≥ 1; a server that finds that too many bytes (413) gets fewer.
        preprocessing: what is to be done to the pixels; None is 0 … 1 for a model that takes floats.
        classes: the K class names, which the protocol has none of.

    Raises:
        UsageError: an argument is out of range, the address is no such address or names no model where it must, or the
            token would travel unencrypted.
        ForetasteError: the server cannot be reached, or has no such model, or the model does not take images.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        queries_per_second: float | None = None,
        batch_size: int = 32,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"a request needs 1 image or more, not {batch_size}")
        self._address = Address.of(url)
        self._http = RetryingClient(
            self._address.root, token=token, timeout=timeout, attempts=attempts, queries_per_second=queries_per_second
        )
        server = self._server()
        if self._address.name is None:
            self._address = self._address.of_model(self._only_model())
        self._source = str(self._address)
        self._binary = BINARY in server.extensions
        model = self._model()
        layout = Layout.of([one.declared() for one in model.inputs or ()], self._source)
        self._layout = layout.preprocessed(preprocessing)
        self._classes = classes
        outputs = [one.declared() for one in model.outputs or ()]
        self._output = choose_output(outputs, self._source).name if outputs else None
        # No more at a time than the limit lets through in a second.
        self._most = min(batch_size, max(1, int(queries_per_second or batch_size)))

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The K class names that were given; the protocol has none."""
        return self._classes

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """``(H, W, C)`` of the images it takes if the model states it, or None."""
        return self._layout.sample_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to the pixels."""
        return self._layout.preprocessing

    def preprocessed(self, preprocessing: Preprocessing) -> OpenInference:
        """Return the same model with other preprocessing.

        Raises:
            UsageError: the model takes the pixels as they are.
        """
        other = copy.copy(self)
        other._layout = self._layout.preprocessed(preprocessing)
        return other

    @property
    def address(self) -> Address:
        """Where the model is."""
        return self._address

    @property
    def layout(self) -> Layout:
        """The form in which it takes images."""
        return self._layout

    @property
    def output(self) -> str | None:
        """The name of the output that answers; None if the server names no outputs, and there is only one."""
        return self._output

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the server cannot be reached, refuses, or answers with what is no answer.
        """
        self._layout.check(images)
        return in_batches(images, self._layout.batch or batch_size(images, self._most), self._ask)

    def _ask(self, images: Images) -> Answers:
        packed = self._layout.pack(images)
        fields: dict[str, object] = {}
        if self._binary:
            fields["parameters"] = {"binary_data_output": True}
        if self._output is not None:
            fields["outputs"] = [{"name": self._output}]
        body, headers = encode({self._layout.name: packed}, "inputs", binary=self._binary, fields=fields)
        reply = self._http.request("POST", f"{self._address.path}/infer", body, headers, queries=len(packed))
        if reply.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE and len(images) > 1 and self._layout.batch is None:
            self._most = min(self._most, len(images) // 2)
            return in_batches(images, len(images) // 2, self._ask)
        self._check(reply)
        try:
            outputs = decode(reply.body, "outputs", reply.headers.get(JSON_LENGTH))
        except CodecError as error:
            raise ForetasteError(f"an answer of {self._source} {error}") from None
        output = outputs.get(self._output) if self._output is not None else None
        if self._output is None and len(outputs) == 1:
            [output] = outputs.values()
        if output is None:
            names, needed = ", ".join(map(shown, outputs)) or "none", shown(self._output or "one")
            raise ForetasteError(f"{self._source} answers with outputs {names} where {needed} is needed")
        answers = read_answers(output, len(packed), self._source, self._classes)
        n = len(images)
        return Answers(answers.labels[:n], None if answers.scores is None else answers.scores[:n])

    def _server(self) -> ServerMetadata:
        """Return what the server says of itself.

        It is nothing where a gateway lets only models through and answers with an error or a page for people: whether
        the model can be asked, its own address says.
        """
        reply = self._http.request("GET", "/v2")
        if 300 <= reply.status < 400:
            self._check(reply)
        try:
            return parse(ServerMetadata, reply.body) if reply.status == httpx.codes.OK else ServerMetadata()
        except CodecError:
            return ServerMetadata()

    def _model(self) -> ModelMetadata:
        reply = self._http.request("GET", self._address.path)
        if reply.status == httpx.codes.NOT_FOUND:
            raise ForetasteError(f"{self._address.root} has no model {shown(self._address.path.split('/', 3)[3])}")
        self._check(reply)
        return self._parse(ModelMetadata, reply)

    def _only_model(self) -> str:
        """Return the name of the one model on the server.

        Raises:
            UsageError: the server does not list its models, or has none or several.
        """
        root = self._address.root
        body, headers = json.dumps({"ready": True}).encode(), {"Content-Type": "application/json"}
        reply = self._http.request("POST", "/v2/repository/index", body, headers)
        if reply.status in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.NOT_IMPLEMENTED):
            raise UsageError(f"{root} does not list its models; give its address as {root}/v2/models/NAME")
        self._check(reply)
        entries = self._parse(Index, reply).root
        names = sorted({entry.name for entry in entries if entry.state in (None, "READY")})
        if len(names) != 1:
            listing = ", ".join(map(shown, names[:10])) or "none"
            raise UsageError(f"{root} must have one model, or its address say which; it has {listing}")
        return names[0]

    def _check(self, reply: Reply) -> None:
        """Refuse an answer that is no success."""
        if reply.status == httpx.codes.OK:
            return
        place = str(self._address)
        if reply.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ForetasteError(f"{place} answers {reply.status}: put a bearer token that it takes into {TOKEN}")
        if 300 <= reply.status < 400:
            where = shown(reply.headers.get("Location", "nowhere"))
            raise ForetasteError(
                f"{place} redirects to {where}, which is not followed; give that address if you trust it"
            )
        raise ForetasteError(f"{place} answers {reply.status}: {complaint(reply.body)}")

    def _parse(self, model: type[Model], reply: Reply) -> Model:
        try:
            return parse(model, reply.body)
        except CodecError as error:
            raise ForetasteError(f"an answer of {self._address} {error}") from None


def complaint(body: bytes) -> str:
    """Return what a server says is wrong, in one short line."""
    try:
        said = json.loads(body)
        text = said["error"] if isinstance(said, dict) and isinstance(said.get("error"), str) else json.dumps(said)
    except (ValueError, RecursionError):
        text = body[:1000].decode(errors="replace")
    return shown(text) or "it does not say why"
