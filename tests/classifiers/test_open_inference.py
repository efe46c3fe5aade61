import gzip
import json
import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from foretaste.classifiers import Classifier, http_retry, open_classifier
from foretaste.classifiers.open_inference import Address, OpenInference
from foretaste.classifiers.protocol_codec import encode
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images

if TYPE_CHECKING:
    from tests.classifiers.conftest import ModelServer, Trouble

MakeTrouble = Callable[..., "Trouble"]


def expected(images: Images) -> list[int]:
    labels: list[int] = (images.mean(axis=(1, 2, 3)) < 127.5).astype(int).tolist()
    return labels


@pytest.mark.parametrize("binary", [False, True])
def test_scores(binary: bool, server: "ModelServer", images: Images) -> None:
    server.binary = binary
    classifier = OpenInference(server.url, batch_size=8)
    assert isinstance(classifier, Classifier)
    assert (classifier.classes, classifier.sample_shape) == (None, (16, 16, 3))
    answers = classifier.classify(images)
    assert answers.labels.tolist() == expected(images)
    assert len(set(expected(images))) == 2
    assert answers.scores is not None
    np.testing.assert_allclose(answers.scores[:, 0], images.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert server.sizes == [8, 8, 4]
    assert len(classifier.classify(images[:0])) == 0


@pytest.mark.parametrize("answer", [lambda x: np.arange(len(x)), lambda x: np.arange(len(x))[:, None]])
def test_labels_alone(answer: Any, server: "ModelServer", images: Images) -> None:
    server.answer = answer
    answers = OpenInference(server.url).classify(images)
    assert answers.labels.tolist() == list(range(20))
    assert answers.scores is None


def test_the_form_of_the_images_is_the_servers(server: "ModelServer", images: Images) -> None:
    seen: list[Any] = []

    def look(given: Any) -> Any:
        seen.append(given)
        return np.zeros((len(given), 2), dtype=np.float32)

    server.answer = look
    server.inputs = [{"name": "x", "datatype": "FP32", "shape": [6, 3, -1, -1]}]
    assert len(OpenInference(server.url).classify(images[:2])) == 2
    [given] = seen
    assert (given.dtype, given.shape) == (np.float32, (6, 3, 16, 16))
    np.testing.assert_allclose(given[:2].transpose(0, 2, 3, 1), images[:2] / np.float32(255), rtol=1e-6)


def test_a_server_that_declares_no_outputs(server: "ModelServer", images: Images) -> None:
    server.outputs = []
    assert OpenInference(server.url).classify(images).labels.tolist() == expected(images)


def test_a_version(server: "ModelServer", images: Images) -> None:
    OpenInference(f"{server.url}/versions/7").classify(images)
    assert server.asked[-1] == "POST /v2/models/tone/versions/7/infer"


def test_a_server_with_one_model(server: "ModelServer", images: Images) -> None:
    server.models.append({"name": "asleep", "state": "UNAVAILABLE"})
    for address in (server.base, f"{server.base}/", f"{server.base}/v2"):
        assert open_classifier(address).classify(images).labels.tolist() == expected(images)


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        ([], "it has none"),
        ([{"name": "a"}, {"name": "b"}], "must have one model, or its address say which; it has a, b"),
    ],
)
def test_a_server_without_just_one_model(models: Any, complaint: str, server: "ModelServer") -> None:
    server.models = models
    with pytest.raises(UsageError, match=complaint):
        OpenInference(server.base)


def test_a_server_that_lists_no_models(server: "ModelServer", trouble: MakeTrouble) -> None:
    server.troubles = [trouble(status=404, on="/index")]
    with pytest.raises(UsageError, match=r"does not list its models; give its address as .*/v2/models/NAME"):
        OpenInference(server.base)


@pytest.mark.parametrize(
    ("status", "body"), [(404, b""), (401, b""), (403, b"no"), (405, b""), (200, b"<html>welcome</html>"), (200, b"[]")]
)
def test_a_gateway_that_lets_only_the_model_through(
    status: int, body: bytes, server: "ModelServer", trouble: MakeTrouble, images: Images
) -> None:
    server.troubles = [trouble(status=status, body=body, on="/v2")]
    assert len(OpenInference(server.url).classify(images)) == 20


def test_addresses() -> None:
    assert Address.of("http://h:80/v2/models/a%2Fb/versions/1") == Address("http://h", "a/b", "1")
    assert Address.of("https://h:8000/some/prefix/v2/models/m/") == Address("https://h:8000/some/prefix", "m")
    assert Address.of("https://h/prefix") == Address("https://h/prefix")
    assert Address.of("http://[::1]:8080/v2") == Address("http://[::1]:8080")
    assert Address("http://h", "a/b", "1").path == "/v2/models/a%2Fb/versions/1"
    for url in (
        "http://",
        "http://h/v2/models",
        "http://h/v2/models/a/infer",
        "http://h/v2/models/a/versions",
        "http://h/v2/models/a?x=1",
        "http://h/v2/models/a#x",
        "http://h:99999999/v2",
        "http://h\n/v2",
        "ftp://h/v2",
    ):
        with pytest.raises(UsageError) as raised:
            Address.of(url)
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="password") as raised:
        Address.of("http://me:secret@h/v2/models/a")
    assert "secret" not in str(raised.value)


# What a server may do wrong.


def test_a_server_that_is_down(server: "ModelServer", pauses: list[float]) -> None:
    with pytest.raises(ForetasteError, match=r"cannot be used now: ConnectError: .*\(tried 5 times\)"):
        OpenInference("http://127.0.0.1:1/v2/models/tone")
    assert len(pauses) == 4
    for longest, pause in zip((0.5, 1, 2, 4), pauses, strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_recovers(
    status: int, server: "ModelServer", trouble: MakeTrouble, images: Images, pauses: list[float]
) -> None:
    server.troubles = [trouble(status=status, times=3), trouble(hang_up=True, times=1)]
    assert OpenInference(server.url).classify(images).labels.tolist() == expected(images)
    assert len(pauses) == 4


def test_a_server_that_stays_rate_limited(
    server: "ModelServer", trouble: MakeTrouble, images: Images, pauses: list[float]
) -> None:
    classifier = OpenInference(server.url, attempts=3)
    server.troubles = [trouble(status=429)]
    with pytest.raises(ForetasteError, match=r"cannot be used now: it answers 429 Too Many Requests \(tried 3 times\)"):
        classifier.classify(images)


@pytest.mark.parametrize(
    ("after", "low", "high"),
    [("7", 7, 7), ("0", 0, 1), ("soon", 0, 1), ("-5", 0, 1), ("", 0, 1), ("in 100 s", 50, 101)],
)
def test_retry_after(
    after: str,
    low: float,
    high: float,
    server: "ModelServer",
    trouble: MakeTrouble,
    images: Images,
    pauses: list[float],
) -> None:
    if after == "in 100 s":
        after = formatdate(time.time() + 100)
    server.troubles = [trouble(status=429, headers={"Retry-After": after}, times=1)]
    OpenInference(server.url).classify(images)
    assert len(pauses) == 1
    assert low <= pauses[0] <= high


def test_a_server_that_asks_for_too_long_a_wait(
    server: "ModelServer", trouble: MakeTrouble, images: Images, pauses: list[float]
) -> None:
    server.troubles = [trouble(status=503, headers={"Retry-After": "86400"})]
    with pytest.raises(ForetasteError, match="asks to wait 86400 seconds; try later"):
        OpenInference(server.url).classify(images)
    assert pauses == []


def test_a_slow_server(server: "ModelServer", trouble: MakeTrouble, images: Images) -> None:
    for slow in (trouble(seconds=30), trouble(body=bytes(1000), drip=0.1)):
        classifier = OpenInference(server.url, timeout=5, attempts=1)
        classifier._http._timeout = 0.3
        classifier._http._client.timeout = 0.3
        server.troubles = [slow]
        start = time.monotonic()
        with pytest.raises(ForetasteError, match=r"no whole answer within 0\.3 seconds \(tried once\)"):
            classifier.classify(images)
        assert time.monotonic() - start < 25
        server.troubles = []


SCORES = {"name": "scores", "datatype": "FP32", "shape": [20, 2], "data": [0.5] * 40}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "is not JSON"),
        (b"<html>busy</html>", "is not JSON"),
        (b'{"outputs": [', "is not JSON"),
        (b"[]", "is not as the protocol has it"),
        (b"{}", "outputs none where scores is needed"),
        ({**SCORES, "name": "other\x1b[2J"}, r"outputs other \[2J where scores is needed"),
        ({**SCORES, "shape": [10, 4]}, r"answers 20 images with float32 \(10, 4\)"),
        ({**SCORES, "shape": [20, 3]}, "has 40 values for a tensor of 60"),
        ({**SCORES, "datatype": "INT64", "data": [1] * 40}, r"int64 \(20, 2\)"),
        ({**SCORES, "datatype": "BYTES"}, "datatype 'BYTES'"),
        ({**SCORES, "data": [float("nan")] * 40}, "NaN or infinite"),
        ({**SCORES, "data": [float("inf")] * 40}, "NaN or infinite"),
        ({**SCORES, "data": [None] * 40}, "no array of FP32"),
        ({**SCORES, "data": [1e300] * 40}, "NaN or infinite"),
        ({**SCORES, "shape": [20], "datatype": "INT64", "data": [-1] * 20}, "label -1, which is outside"),
    ],
)
def test_garbage_is_one_sentence(
    body: Any, complaint: str, server: "ModelServer", trouble: MakeTrouble, images: Images
) -> None:
    classifier = OpenInference(server.url)
    assert len(classifier.classify(images)) == 20
    server.troubles = [trouble(body=body if isinstance(body, bytes) else json.dumps({"outputs": [body]}).encode())]
    with pytest.raises(ForetasteError, match=complaint) as raised:
        classifier.classify(images)
    assert server.url in str(raised.value)
    assert str(raised.value).isprintable()
    server.troubles = []
    assert len(classifier.classify(images)) == 20


def test_binary_garbage(server: "ModelServer", trouble: MakeTrouble, images: Images) -> None:
    server.binary = True
    classifier = OpenInference(server.url)
    body, headers = encode({"scores": np.zeros((20, 2), dtype=np.float32)}, "outputs", binary=True)
    server.troubles = [trouble(body=body[:-1], headers=headers)]
    with pytest.raises(ForetasteError, match="has 159 bytes for 40 FP32 values"):
        classifier.classify(images)


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (400, b'{"error": "batch-size must be <= 8"}', "answers 400: batch-size must be <= 8$"),
        (500, b"\x1b[31mTraceback\n" + b"x" * 10_000, r"answers 500: \[31mTraceback x+…x+$"),
        (500, b"", "answers 500: it does not say why"),
        (422, b'{"detail": [1]}', r'answers 422: {"detail": \[1\]}'),
        (401, b"", "put a bearer token that it takes into FORETASTE_TOKEN"),
        (403, b"", "put a bearer token that it takes into FORETASTE_TOKEN"),
    ],
)
def test_refusals(
    status: int, body: bytes, complaint: str, server: "ModelServer", trouble: MakeTrouble, images: Images
) -> None:
    classifier = OpenInference(server.url)
    server.troubles = [trouble(status=status, body=body)]
    with pytest.raises(ForetasteError, match=complaint) as raised:
        classifier.classify(images)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


def test_redirects_are_not_followed(server: "ModelServer", trouble: MakeTrouble, images: Images) -> None:
    server.troubles = [trouble(status=307, headers={"Location": "http://example.invalid/"}, on="/v2")]
    with pytest.raises(ForetasteError, match=r"redirects to http://example\.invalid/, which is not followed"):
        OpenInference(server.url)


def test_answers_that_do_not_end(
    server: "ModelServer", trouble: MakeTrouble, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_retry, "MOST_BYTES", 2**20)
    classifier = OpenInference(server.url)
    server.troubles = [trouble(body=bytes(2**21))]
    with pytest.raises(ForetasteError, match="sends an answer of more than 1 MiB"):
        classifier.classify(images)
    bomb = gzip.compress(gzip.compress(bytes(2**24)))
    server.troubles = [trouble(body=bomb, headers={"Content-Encoding": "gzip, gzip"})]
    with pytest.raises(ForetasteError, match=r"compresses its answers \(gzip, gzip\), unasked"):
        classifier.classify(images)


def test_models_that_take_no_images(server: "ModelServer", trouble: MakeTrouble) -> None:
    with pytest.raises(ForetasteError, match=r"http://127\.0\.0\.1:\d+ has no model other/versions/1$"):
        OpenInference(f"{server.base}/v2/models/other/versions/1")
    for inputs, complaint in (
        ([], "none that it declares"),
        ([{"name": "x", "datatype": "BYTES", "shape": [-1]}], "must take uint8 or float32 images"),
        ([{"name": "x", "datatype": "UINT8", "shape": [-1, 32, 32]}], "rank 4"),
        ([{"name": "x", "datatype": "UINT8", "shape": [-1, 32, 32, -7]}], "not as the protocol has it"),
        ([{"name": "x"}], "not as the protocol has it"),
    ):
        server.inputs = inputs
        with pytest.raises(ForetasteError, match=complaint):
            OpenInference(server.url)


def test_images_of_another_shape(server: "ModelServer", images: Images) -> None:
    classifier = OpenInference(server.url)
    n = len(server.asked)
    with pytest.raises(UsageError, match=r"tone takes images of 16×16×3 .*, not 16×16×1"):
        classifier.classify(images[..., :1])
    assert len(server.asked) == n


def test_a_server_that_takes_few_bytes(server: "ModelServer", images: Images) -> None:
    classifier = OpenInference(server.url)
    server.most_bytes = 20_000
    for _ in range(2):
        assert classifier.classify(images).labels.tolist() == expected(images)
    assert max(server.sizes) <= 7
    server.most_bytes = 100
    with pytest.raises(ForetasteError, match="answers 413"):
        classifier.classify(images)


def test_the_rate_limit(server: "ModelServer", images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    classifier = OpenInference(server.url, queries_per_second=4, timeout=100)
    classifier.classify(images)
    assert server.sizes == [4] * 5
    assert now == pytest.approx(1000 + 16 / 4)  # the first four go at once


# The token.


def test_the_token_is_sent_and_never_shown(
    server: "ModelServer",
    trouble: MakeTrouble,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pauses: list[float],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("FORETASTE_TOKEN", "from-the-environment")
    classifier = OpenInference(server.url)
    classifier.classify(images)
    assert server.headers["Authorization"] == "Bearer from-the-environment"
    classifier = OpenInference(server.url, token="s3cret")
    classifier.classify(images)
    assert server.headers["Authorization"] == "Bearer s3cret"
    for wrong in (trouble(status=401), trouble(status=503), trouble(hang_up=True), trouble(body=b"garbage")):
        server.troubles = [wrong]
        with pytest.raises(ForetasteError) as raised:
            classifier.classify(images)
        assert "s3cret" not in str(raised.value)
    assert "s3cret" not in caplog.text + repr(classifier) + repr(vars(classifier))
    assert caplog.text != ""


def test_no_token_no_header(server: "ModelServer") -> None:
    OpenInference(server.url)
    assert "Authorization" not in server.headers


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", "nul\0"])
def test_a_token_that_cannot_be_sent(token: str, server: "ModelServer") -> None:
    with pytest.raises(UsageError, match="the bearer token has characters") as raised:
        OpenInference(server.url, token=token)
    assert token not in str(raised.value)


def test_a_token_goes_nowhere_unencrypted() -> None:
    with pytest.raises(UsageError, match=r"would travel unencrypted to http://example\.invalid"):
        OpenInference("http://example.invalid/v2/models/a", token="s3cret")


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"attempts": 0},
        {"queries_per_second": 0},
        {"queries_per_second": float("nan")},
        {"batch_size": 0},
    ],
)
def test_settings_out_of_range(settings: Any, server: "ModelServer") -> None:
    with pytest.raises(UsageError):
        OpenInference(server.url, **settings)
    assert server.asked == []
