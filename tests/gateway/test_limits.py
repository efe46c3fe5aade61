import socket
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from foretaste.gateway import limits

if TYPE_CHECKING:
    from tests.gateway.conftest import Draw, Running, Serve


def connect(running: "Running") -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_bodies_that_are_too_large(serve: "Serve") -> None:
    running = serve(max_body_mb=0.01)
    refused = running.client.post(f"{running.model}/infer", content=bytes(20_000))
    assert refused.status_code == 413
    assert refused.json() == {"error": "the body may have 10485 bytes"}
    pieces = (bytes(1000) for _ in range(20))  # chunked: nobody says how long it is
    assert running.client.post(f"{running.model}/infer", content=pieces).status_code == 413


def test_bodies_that_do_not_come(serve: "Serve") -> None:
    running = serve(timeout=0.3)
    with connect(running) as client:
        client.sendall(b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_headers_that_do_not_come(serve: "Serve", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.3)
    running = serve()
    start = time.monotonic()
    for beginning in (b"", b"GET /v2 HTTP/1.1\r\nHo", b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\nGET /v2"):
        with connect(running) as client:
            client.sendall(beginning)
            answer = b""
            try:
                while piece := client.recv(4096):
                    answer += piece
            except ConnectionResetError:
                pass
            assert answer.count(b"HTTP/1.1 200") == beginning.count(b"\r\n\r\n")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"inputs":' + b'[{"name":"images","datatype":"UINT8","shape":[' * 2000,
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,1,1,1,1,1,1,1,1,1],"data":[0]}]}',
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[9000000000,9000000000,9,1],"data":[0]}]}',
        b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1,28,28,1],"data":[1e999]}]}',
    ],
)
def test_hostile_bodies(content: bytes, serve: "Serve") -> None:
    running = serve()
    refused = running.client.post(f"{running.model}/infer", content=content)
    assert refused.status_code == 400
    assert "Traceback" not in refused.text
    assert "/" not in refused.json()["error"]


def test_errors_say_nothing_of_the_inside(serve: "Serve", draw: "Draw", monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()

    def fail(*_: Any) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(running.gateway, "handle", fail)
    failed = running.infer(draw(1, 1)[0])
    assert (failed.status_code, failed.json()) == (500, {"error": "internal error"})
    missing = running.client.get(f"{running.url}/nothing")
    assert (missing.status_code, missing.json()) == (404, {"error": "not found"})
    wrong = running.client.delete(f"{running.url}/v2/health/live")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    for answer in (failed, missing, wrong):
        assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"


def test_no_request_makes_the_server_fetch(serve: "Serve") -> None:
    running = serve()
    for target in (b"http://127.0.0.1:1/v2", b"/v2/models/http%3A%2F%2F127.0.0.1%3A1/infer"):
        with connect(running) as client:
            client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n")
            assert client.recv(20).startswith((b"HTTP/1.1 200", b"HTTP/1.1 40"))
    assert httpx.get(f"{running.url}/v2/health/live").is_success
