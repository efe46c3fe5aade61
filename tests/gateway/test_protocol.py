import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton

from foretaste.classifiers.protocol_codec import JSON_LENGTH, decode, encode

if TYPE_CHECKING:
    from tests.conftest import ServeOnnx
    from tests.gateway.conftest import Draw, ModelServer, Running, Serve


def triton_client(running: "Running") -> Any:
    return triton.InferenceServerClient(running.url.removeprefix("http://"))


def ask_with_triton(client: Any, images: Any, *, binary: bool, name: str = "images", model: str = "model") -> Any:
    given = triton.InferInput(name, list(images.shape), "UINT8")
    given.set_data_from_numpy(images, binary_data=binary)
    wanted = [triton.InferRequestedOutput("labels", binary_data=binary)]
    return client.infer(model, [given], outputs=wanted)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("behind", ["model", "upstream"])
def test_tritonclient(binary: bool, behind: str, serve: "Serve", upstream: "ModelServer", draw: "Draw") -> None:
    running = serve() if behind == "model" else serve(upstream=upstream.url)
    images, labels = draw(5, 1)
    with triton_client(running) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("model")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("model")["inputs"][0]["shape"] == [-1, 28, 28, 1]
        result = ask_with_triton(client, images, binary=binary)
    np.testing.assert_array_equal(result.as_numpy("labels"), labels)
    assert result.get_response()["parameters"]["foretaste_verdict"] == ",".join(["pending"] * 5)


@pytest.mark.mlserver
def test_mlserver_behind(
    serve: "Serve", serve_onnx: "ServeOnnx", tmp_path: Path, corners_onnx: Path, draw: "Draw"
) -> None:
    running = serve(upstream=serve_onnx(corners_onnx), state=tmp_path / "mlserver")
    images, labels = draw(4, 1)
    with triton_client(running) as client:
        given = triton.InferInput("images", list(images.shape), "UINT8")
        given.set_data_from_numpy(images, binary_data=False)  # MLServer knows JSON alone
        wanted = [triton.InferRequestedOutput("scores", binary_data=False)]
        result = client.infer("model", [given], outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("scores").argmax(axis=1), labels)
    assert result.get_response()["parameters"]["foretaste_verdict"] == ",".join(["pending"] * 4)


def test_what_cannot_be_screened_goes_through_untouched_and_is_counted(
    serve: "Serve", upstream: "ModelServer", draw: "Draw"
) -> None:
    running = serve(upstream=upstream.url)
    direct = upstream.url.removesuffix("/v2/models/model")
    images = draw(2, 1)[0]
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 28, 28, 1], "data": images.ravel().tolist()}
    cases = {
        "model": ("/v2/models/other/infer", {"inputs": [tensor]}),
        "inputs": ("/v2/models/model/infer", {"inputs": [tensor, {**tensor, "name": "more"}]}),
        "shape": ("/v2/models/model/infer", {"inputs": [{**tensor, "shape": [2, 14, 56, 1]}]}),
        "format": ("/v2/models/model/infer", {"inputs": "none"}),
        "other": ("/v2/models/model/generate", {"x": 1}),
    }
    for path, message in cases.values():
        body = json.dumps(message).encode()
        through = running.client.post(running.url + path, content=body, headers={"content-type": "application/json"})
        itself = running.client.post(direct + path, content=body, headers={"content-type": "application/json"})
        assert (through.status_code, through.content) == (itself.status_code, itself.content)
    counted = running.gateway.metrics.exposition().decode()
    for reason in cases:
        assert f'foretaste_unscreened_total{{reason="{reason}"}} 1.0' in counted


def test_unknown_fields_and_headers_reach_the_server(serve: "Serve", upstream: "ModelServer", draw: "Draw") -> None:
    running = serve(upstream=upstream.url)
    images = draw(1, 1)[0]
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    answer = running.client.post(
        f"{running.model}/infer?x=1",
        json={"inputs": [tensor], "id": "mine", "parameters": {"priority": 3}, "extra": {"deep": [1]}},
        headers={"traceparent": trace, "tracestate": "a=b", "authorization": "Bearer client", "connection": "close"},
    )
    assert answer.json()["id"] == "mine"
    assert "POST /v2/models/model/infer?x=1" in upstream.asked
    [headers] = [one for one in upstream.headers if one.get("x-request-id") == answer.headers["x-request-id"]]
    assert headers["traceparent"] == trace
    assert headers["tracestate"] == "a=b"
    assert headers["authorization"] == "Bearer client"
    assert headers.get("connection") != "close"


def test_binary_answers_are_rewritten_whole(serve: "Serve", draw: "Draw") -> None:
    running = serve()
    images, labels = draw(3, 1)
    fields = {"parameters": {"binary_data_output": True}}
    body, headers = encode({"images": images}, "inputs", binary=True, fields=fields)
    answer = running.client.post(f"{running.model}/infer", content=body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = answer.headers[JSON_LENGTH]
    outputs = decode(answer.content, "outputs", length)
    np.testing.assert_array_equal(outputs["labels"], labels)
    assert json.loads(answer.content[: int(length)])["parameters"]["foretaste_trigger"] == ",,"


def test_compressed_requests_are_screened(serve: "Serve", upstream: "ModelServer", draw: "Draw") -> None:
    images = draw(1, 1)[0]
    body, headers = encode({"images": images}, "inputs", binary=False)
    packed = gzip.compress(body)
    # Neither of these models decompresses: what they are given is what was screened.
    for running in (serve(upstream=upstream.url), serve()):
        for encoding in ("gzip", "GZIP", "x-gzip"):
            sent = running.client.post(
                f"{running.model}/infer", content=packed, headers={**headers, "Content-Encoding": encoding}
            )
            assert sent.status_code == 200
            assert "foretaste_verdict" in sent.json()["parameters"]


def test_a_body_that_is_not_as_compressed_as_its_header_says_reaches_no_model(
    serve: "Serve", upstream: "ModelServer", draw: "Draw"
) -> None:
    body, headers = encode({"images": draw(1, 1)[0]}, "inputs", binary=False)
    bomb = gzip.compress(bytes(64 * 2**20))
    for running in (serve(upstream=upstream.url), serve()):
        asked = len(upstream.asked)
        for content, encoding in (
            (body, "gzip"),
            (body, "br"),
            (gzip.compress(body), "gzip, gzip"),
            (gzip.compress(body)[:-9], "gzip"),
            (gzip.compress(body) + body, "gzip"),
            (bomb, "gzip"),
        ):
            sent = running.client.post(
                f"{running.model}/infer", content=content, headers={**headers, "Content-Encoding": encoding}
            )
            assert sent.status_code == 415
            assert "the body cannot be read" in sent.json()["error"]
        assert len(upstream.asked) == asked


def test_requests_that_can_be_read_in_two_ways_are_refused(
    serve: "Serve", upstream: "ModelServer", draw: "Draw"
) -> None:
    running = serve(upstream=upstream.url)
    images = draw(1, 1)[0]
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    twice = f'{{"inputs": [{json.dumps(tensor)}], "inputs": [{json.dumps(tensor)}]}}'
    refused = running.client.post(f"{running.model}/infer", content=twice)
    assert (refused.status_code, refused.json()) == (400, {"error": "the request is ambiguous: a field is there twice"})
    for path in ("/v2/models/model//infer", "/v2/models/model/infer/", "/v2/models/x/%2e%2e/model/infer"):
        refused = running.client.post(running.url + path, json={"inputs": [tensor]})
        assert (refused.status_code, refused.json()) == (400, {"error": "the path has empty or dotted parts"})
    assert not any(asked.startswith("POST") and "//" in asked for asked in upstream.asked)


def test_all_versions_of_the_model_are_screened(serve: "Serve", upstream: "ModelServer", draw: "Draw") -> None:
    running = serve(upstream=upstream.url)
    images = draw(1, 1)[0]
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    running.client.post(f"{running.model}/versions/7/infer", json={"inputs": [tensor]})
    # This server has no such version, and says so; else the answer would have been screened.
    assert 'foretaste_unscreened_total{reason="status"} 1.0' in running.gateway.metrics.exposition().decode()


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"inputs": []}, "the model has one input, images"),
        ({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [1]}]}, "has one input, images"),
        ({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1], "data": [1]}]}, "of rank 4"),
        ({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1], "data": [256]}]}, "outside the range"),
    ],
)
def test_a_local_model_says_what_is_wrong(message: Any, complaint: str, serve: "Serve") -> None:
    running = serve()
    refused = running.client.post(f"{running.model}/infer", json=message)
    assert refused.status_code == 400
    assert complaint in refused.json()["error"]
    assert "gateway_model" not in refused.text
    unknown = running.client.get(f"{running.url}/v2/models/other")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "there is no such model"})
