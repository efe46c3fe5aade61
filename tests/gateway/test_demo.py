import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from foretaste.classifiers.protocol_codec import decode, encode
from foretaste.errors import ForetasteError
from foretaste.gateway import demo
from foretaste.gateway.model_server import model_app
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.gateway.conftest import Draw, Serve


def test_the_bare_model_server(model_folder: Path, draw: "Draw") -> None:
    images, labels = draw(3, 1)
    body, headers = encode({"images": images}, "inputs", binary=False)
    with TestClient(model_app("gateway_model:corners", (28, 28, 1), "corners")) as client:
        answer = client.post("/v2/models/corners/infer", content=body, headers=headers)
        assert client.get("/v2/models/corners/ready").json() == {"name": "corners", "ready": True}
        assert client.get("/v2/models/other").status_code == 404
    np.testing.assert_array_equal(decode(answer.content, "outputs")["labels"], labels)
    assert "parameters" not in answer.json()


def test_the_client_attacks_until_told_to_end(serve: "Serve", draw: "Draw", monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve(name=demo.NAME)
    monkeypatch.setattr(demo, "PAUSE_SECONDS", 0.001)
    images, labels = draw(10, 1)
    ended = threading.Event()
    client = threading.Thread(target=demo.attack, args=(running.url, Samples.from_arrays(images, labels), ended))
    client.start()
    while running.gateway.metrics.registry.get_sample_value("foretaste_inputs_total", {"verdict": "pending"}) in (
        None,
        0.0,
    ):
        ended.wait(0.01)
    ended.set()
    client.join(10)
    assert not client.is_alive()


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "START_SECONDS", 0.1)
    with pytest.raises(ForetasteError, match="does not answer"):
        demo.wait_for(f"http://127.0.0.1:{demo.free_port()}", threading.Event())


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from foretaste.cli import main

    asked: list[Any] = []

    def make(out: Path, on_progress: Any) -> str:
        asked.append(out)
        return "made"

    monkeypatch.setattr(demo, "make", make)
    monkeypatch.setattr(demo, "serve", lambda made, out, port, announce: asked.append((made, out, port)))
    assert main(["demo", "--serve", "--port", "1234", "--out", str(tmp_path)]) == 0
    assert asked == [tmp_path / "served", ("made", tmp_path / "served", 1234)]
