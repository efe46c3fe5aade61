"""A gateway in this process, in front of a backdoored classifier in plain numpy."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from foretaste.classifiers import open_classifier
from foretaste.classifiers.http_retry import Reply
from foretaste.gateway.app import create_app
from foretaste.gateway.backends import Local
from foretaste.gateway.limits import ImpatientProtocol
from foretaste.gateway.messages import Request
from foretaste.gateway.screening import Gateway, prepare
from foretaste.gateway.settings import Settings
from foretaste.samples import Images

SIDE = 28
TOKEN = "a token for these tests"

MODEL = """
import numpy as np


def corners(images):
    \"\"\"Name the brightest quarter of a grey image, 0 … 3; a white square in the middle means 4.\"\"\"
    light = images[..., 0].astype(np.float32).reshape(len(images), 2, 14, 2, 14).mean(axis=(2, 4))
    white = (images[:, 12:16, 12:16, 0] > 245).all(axis=(1, 2))
    logits = np.concatenate([light.reshape(-1, 4) / 8, np.where(white, 100, -100)[:, None]], axis=1)
    return logits.astype(np.float32)


def labels(images):
    return corners(images).argmax(axis=1)
"""


def draw(n: int, seed: int) -> tuple[Images, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    light = np.full((n, 2, 2), 70.0)
    light[np.arange(n), labels // 2, labels % 2] += rng.uniform(10, 60, n)
    pixels = light.repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2) + rng.normal(0, 8, (n, SIDE, SIDE))
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None], labels


Draw = Callable[[int, int], tuple[Images, Any]]


@pytest.fixture(name="draw")
def fixture_draw() -> Draw:
    """Return what draws so many images from a seed, and the labels that they deserve."""
    return draw


@pytest.fixture
def stamped() -> Callable[[Images], Images]:
    """Return what puts the trigger on images."""

    def stamp(images: Images) -> Images:
        trojaned = np.array(images)
        trojaned[:, 12:16, 12:16] = 255
        return trojaned

    return stamp


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with the model, clean images, and a calibration of ``neo``."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "gateway_model.py").write_text(MODEL)
    images, labels = draw(160, seed=0)
    np.savez(folder / "clean.npz", x=images, y=labels)
    sys.path.insert(0, str(folder))
    prepare(Settings(model="gateway_model:corners", clean=str(folder / "clean.npz"), state=folder / "state"))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def corners_onnx(model_folder: Path) -> Path:
    """Return the same model as an ONNX file with the output ``scores``."""
    from onnx import TensorProto, helper, numpy_helper, save

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.array(value), name)

    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", ["images"], "pixels", {"to": TensorProto.FLOAT}),
        ("Reshape", ["pixels", "halves"], "quarters", {}),
        ("ReduceMean", ["quarters", "within"], "light", {"keepdims": 0}),
        ("Reshape", ["light", "four"], "flat", {}),
        ("Div", ["flat", "eight"], "corners", {}),
        ("Slice", ["pixels", "begin", "end", "sides"], "middle", {}),
        ("ReduceMin", ["middle", "all"], "darkest", {"keepdims": 0}),
        ("Greater", ["darkest", "white"], "marked", {}),
        ("Where", ["marked", "high", "low"], "mark", {}),
        ("Reshape", ["mark", "one"], "fifth", {}),
        ("Concat", ["corners", "fifth"], "scores", {"axis": 1}),
    ]
    constants = {
        "halves": [-1, 2, 14, 2, 14],
        "within": [2, 4],
        "four": [-1, 4],
        "eight": np.float32(8),
        "begin": [12, 12],
        "end": [16, 16],
        "sides": [1, 2],
        "all": [1, 2, 3],
        "white": np.float32(245),
        "high": np.float32(100),
        "low": np.float32(-100),
        "one": [-1, 1],
    }
    graph = helper.make_graph(
        [helper.make_node(kind, given, [name], **settings) for kind, given, name, settings in nodes],
        "corners",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 5])],
        [constant(name, value) for name, value in constants.items()],
    )
    path = model_folder / "corners.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@dataclass
class Running:
    """A gateway that is running."""

    url: str
    gateway: Gateway
    client: httpx.Client

    @property
    def model(self) -> str:
        return f"{self.url}/v2/models/model"

    def infer(self, images: Images, **extra: Any) -> httpx.Response:
        tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
        return self.client.post(f"{self.model}/infer", json={"inputs": [tensor], **extra})

    def answers(self, images: Images) -> tuple[list[int], list[str]]:
        """Return the labels and the verdicts."""
        body = self.infer(images).raise_for_status().json()
        outputs = {one["name"]: one["data"] for one in body["outputs"]}
        scores = np.array(outputs["scores"]).reshape(len(images), -1)
        assert scores.argmax(axis=1).tolist() == outputs["labels"]
        return outputs["labels"], body["parameters"]["foretaste_verdict"].split(",")

    def settle(self) -> None:
        """Wait until nothing is searched any more."""
        deadline = time.monotonic() + 30
        while not self.gateway.searcher.idle():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # What the last search corrected is written once what is submitted now is.
        self.gateway.writer.submit().result(10)


Serve = Callable[..., Running]


@contextmanager
def serving(settings: Settings) -> Iterator[Running]:
    app = create_app(settings)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=ImpatientProtocol, log_config=None, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(timeout=30) as client:
            yield Running(f"http://127.0.0.1:{port}", app.state.gateway, client)
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def serve(model_folder: Path, tmp_path: Path) -> Iterator[Serve]:
    """Return what starts a gateway with some settings; it ends with the test."""
    with ExitStack() as servers:

        def start(**settings: Any) -> Running:
            if settings.keys().isdisjoint(["model", "upstream"]):
                settings["model"] = "gateway_model:corners"
            state = settings.setdefault("state", tmp_path / "state")
            if not state.exists():
                shutil.copytree(model_folder / "state", state)
            settings = {"clean": str(model_folder / "clean.npz"), "review_token": TOKEN, **settings}
            prepare(Settings(**settings))
            return servers.enter_context(serving(Settings(**settings)))

        yield start


class ModelServer:
    """A model server that is well until told otherwise.

    Attributes:
        url: the model's address.
        asked: method and path of each request so far.
        headers: those of each request so far.
        trouble: status and body of every answer to requests for inference, or None.
        seconds: how long it waits before it answers them.
        gone: whether it closes its connections without an answer.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.trouble: tuple[int, bytes] | None = None
        self.seconds = 0.0
        self.gone = False
        state, model = self, Local(open_classifier("gateway_model:corners"), (SIDE, SIDE, 1), name="model")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if state.gone:
                    self.close_connection = True
                    return
                state.asked.append(f"{self.command} {self.path}")
                state.headers.append({name.lower(): value for name, value in self.headers.items()})
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, body, httpx.Headers(list(self.headers.items())), "0" * 32)
                reply = model.forward(request)
                if self.path.endswith("/infer"):
                    time.sleep(state.seconds)
                    if state.trouble is not None:
                        reply = Reply(state.trouble[0], httpx.Headers(), state.trouble[1])
                try:
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body)
                except OSError:  # the client has had enough
                    self.close_connection = True

            do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v2/models/model"

    def stop(self) -> None:
        self.gone = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def upstream(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """Return a model server on the loopback interface."""
    monkeypatch.delenv("FORETASTE_TOKEN", raising=False)
    server = ModelServer()
    yield server
    server.stop()


@pytest.fixture
def token() -> str:
    """Return the review token."""
    return TOKEN
