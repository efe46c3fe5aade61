import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers.protocol_codec import JSON_LENGTH, decode, encode
from foretaste.samples import Images

if TYPE_CHECKING:  # most tests here do without torch
    from foretaste.nets import Net

SHAPE = (16, 16, 3)


def draw(n: int, shape: tuple[int, int, int] = SHAPE) -> Images:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def images() -> Images:
    """Return 20 images of ``SHAPE``."""
    return draw(20)


@pytest.fixture(scope="session")
def net() -> "Net":
    """Return a small net for images of ``SHAPE`` that gives more than one label."""
    import torch

    from foretaste.nets import build

    generator = torch.Generator().manual_seed(0)
    net = build(None, SHAPE, ("a", "b", "c"), generator=generator, width=8)
    net.preprocess.measure(draw(50))
    with torch.no_grad():
        net.train()
        for _ in range(10):  # so that the batch-norm statistics are those of the images
            net(torch.from_numpy(draw(50)))
    return net.eval()


@pytest.fixture(scope="session")
def onnx_file(net: "Net", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ``net`` as an ONNX file."""
    from foretaste.nets.export import export_onnx

    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(net, path)
    return path


def brightness(images: NDArray[Any]) -> NDArray[np.float32]:
    """Return two scores: how bright an image is, and how dark."""
    bright = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
    return np.stack([bright, 255 - bright], axis=1).astype(np.float32)


@dataclass
class Trouble:
    """An answer other than the right one, to the requests that ``on`` matches.

    Attributes:
        status: HTTP status.
        body: what is sent.
        headers: further headers.
        seconds: how long the server waits before it answers.
        drip: seconds between two bytes of the body.
        hang_up: whether it closes the connection without an answer.
        times: how often, before the server is well again.
        on: the end of the paths that it is about.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    drip: float = 0.0
    hang_up: bool = False
    times: int = 10**9
    on: str = "/infer"


@dataclass
class ModelServer:
    """A model server on the loopback interface, with one model that knows bright from dark.

    Attributes:
        base: its address.
        asked: method and path of each request so far.
        headers: those of the last request.
        sizes: images in each request for inference.
        troubles: what goes wrong; the first that matches a request is its answer.
        answer: what the model says of the packed images.
        binary: whether it knows binary tensors.
        most_bytes: the longest request body that it takes.
    """

    base: str = ""
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    answer: Callable[[NDArray[Any]], NDArray[Any]] = brightness
    binary: bool = False
    most_bytes: int = 10**9
    models: list[dict[str, str]] = field(default_factory=lambda: [{"name": "tone", "state": "READY"}])
    inputs: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": "images", "datatype": "UINT8", "shape": [-1, *SHAPE]}]
    )
    outputs: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]
    )

    @property
    def url(self) -> str:
        return f"{self.base}/v2/models/tone"

    def reply(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if len(body) > self.most_bytes:
            return 413, b"<html>too large</html>", {}
        if (method, path) == ("GET", "/v2"):
            extensions = ["binary_tensor_data"] if self.binary else []
            return 200, json.dumps({"name": "test", "version": "1", "extensions": extensions}).encode(), {}
        if (method, path) == ("POST", "/v2/repository/index"):
            return 200, json.dumps(self.models).encode(), {}
        if (method, path) in (("GET", "/v2/models/tone"), ("GET", "/v2/models/tone/versions/7")):
            about = {"name": "tone", "platform": "test", "inputs": self.inputs, "outputs": self.outputs}
            return 200, json.dumps(about).encode(), {}
        if method == "POST" and path in ("/v2/models/tone/infer", "/v2/models/tone/versions/7/infer"):
            assert (JSON_LENGTH in headers) == self.binary
            [given] = decode(body, "inputs", headers.get(JSON_LENGTH)).values()
            self.sizes.append(len(given))
            content, extra = encode({"scores": self.answer(given)}, "outputs", binary=self.binary)
            return 200, content, extra
        return 404, json.dumps({"error": "no such thing"}).encode(), {}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """Return a model server that is well until its ``troubles`` say otherwise."""
    monkeypatch.delenv("FORETASTE_TOKEN", raising=False)
    state = ModelServer()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked.append(f"{self.command} {self.path}")
            state.headers = dict(self.headers)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            trouble = next((one for one in state.troubles if self.path.endswith(one.on) and one.times > 0), None)
            if trouble is None:
                self.send(*state.reply(self.command, self.path, body, dict(self.headers)))
                return
            trouble.times -= 1
            ended.wait(trouble.seconds)
            if trouble.hang_up:
                self.close_connection = True
                return
            self.send(trouble.status, trouble.body, trouble.headers, trouble.drip)

        do_POST = do_GET  # noqa: N815

        def send(self, status: int, body: bytes, headers: dict[str, str], drip: float = 0.0) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in [body] if not drip else [body[i : i + 1] for i in range(len(body))]:
                    if ended.wait(drip):
                        return
                    self.wfile.write(piece)
            except OSError:  # the client has had enough
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        state.base = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield state
        ended.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def trouble() -> type[Trouble]:
    """Return what makes troubles for ``server``."""
    return Trouble


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that were slept so far; nobody really sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept
