import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from foretaste.gateway.logs import JsonLines
from foretaste.samples import Images

if TYPE_CHECKING:
    from tests.gateway.conftest import Draw, Serve

Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(model_folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Return what starts the command and returns its process and its address."""
    with ExitStack() as processes:

        def run(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
            log = (tmp_path / f"log-{time.monotonic_ns()}").open("w+")
            processes.callback(log.close)
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "foretaste", "guard", "serve", "--model", "gateway_model:corners"),
                    *(
                        "--clean",
                        str(model_folder / "clean.npz"),
                        "--state",
                        str(model_folder / "state"),
                        "--port",
                        "0",
                    ),
                    *("--database", f"sqlite:///{tmp_path / 'records.sqlite'}", *arguments),
                ],
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": f"{model_folder}:{os.environ.get('PYTHONPATH', '')}", **environment},
            )
            processes.callback(process.wait)
            processes.callback(process.kill)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                said = Path(log.name).read_text()
                if found := re.search(r"serving on (http://\S+?),", said):
                    try:
                        if httpx.get(f"{found[1]}/v2/health/ready").is_success:
                            return process, found[1]
                    except httpx.TransportError:
                        pass
                time.sleep(0.05)
            raise RuntimeError(Path(log.name).read_text())

        yield run


def ask(url: str, images: Images) -> httpx.Response:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    return httpx.post(f"{url}/v2/models/model/infer", json={"inputs": [tensor]}, timeout=30)


def recorded(path: Path) -> dict[str, int]:
    """Return how many inputs of each request are on record."""
    connection = sqlite3.connect(path)
    found = dict(connection.execute("SELECT request, COUNT(*) FROM inputs GROUP BY request").fetchall())
    connection.close()
    return found


def test_what_was_answered_survives_kill_9(start: Start, draw: "Draw", tmp_path: Path) -> None:
    process, url = start()
    answered: list[str] = []

    def client(seed: int) -> None:
        images = draw(2, seed)[0]
        while True:
            try:
                answered.append(ask(url, images).raise_for_status().headers["x-request-id"])
            except httpx.TransportError:
                return

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    while len(answered) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    on_record = recorded(tmp_path / "records.sqlite")
    assert len(set(answered)) == len(answered) >= 20
    assert all(on_record.get(one) == 2 for one in answered)


def test_sigterm_answers_what_has_begun(start: Start, draw: "Draw", tmp_path: Path) -> None:
    process, url = start("--budget-ms", "1500")
    answers: list[httpx.Response] = []
    images = draw(16, 1)[0]
    thread = threading.Thread(target=lambda: answers.append(ask(url, images)))
    thread.start()
    deadline = time.monotonic() + 10
    while "foretaste_queries_total" not in httpx.get(f"{url}/metrics").text or not on_its_way(url):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    thread.join(30)
    assert answers[0].status_code == 200
    assert process.wait(30) == 0
    assert recorded(tmp_path / "records.sqlite")[answers[0].headers["x-request-id"]] == 16
    connection = sqlite3.connect(tmp_path / "records.sqlite")
    assert connection.execute("SELECT COUNT(*) FROM inputs WHERE verdict = 'pending'").fetchone() == (0,)
    connection.close()


def on_its_way(url: str) -> bool:
    """Return whether a model has been asked for a client."""
    return 'foretaste_request_seconds_count{part="model"} 1.0' in httpx.get(f"{url}/metrics").text


def test_workers_share_what_they_know(start: Start, draw: "Draw") -> None:
    process, url = start("--workers", "2", FORETASTE_REVIEW_TOKEN="a token of some length", FORETASTE_KEEP="1.0")
    trojaned = np.array(draw(4, 1)[0])
    trojaned[:, 12:16, 12:16] = 255
    ask(url, trojaned).raise_for_status()
    deadline = time.monotonic() + 30
    while ask(url, trojaned).json()["parameters"]["foretaste_verdict"] != ",".join(["trojaned"] * 4):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Each request is a connection of its own, so both workers are asked.
    verdicts = {ask(url, trojaned).json()["parameters"]["foretaste_verdict"] for _ in range(12)}
    assert verdicts == {",".join(["trojaned"] * 4)}
    metrics = httpx.get(f"{url}/metrics").text
    counted = re.search(r'foretaste_inputs_total\{verdict="trojaned"\} (\S+)', metrics)
    assert counted is not None
    assert float(counted[1]) >= 48
    process.terminate()
    assert process.wait(30) == 0


def test_settings_come_from_flags_the_environment_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from foretaste.cli import main
    from foretaste.gateway import server

    given: list[Any] = []
    monkeypatch.setattr(server, "run", lambda settings, announce: given.append(settings))
    config = tmp_path / "gateway.toml"
    config.write_text('clean = "from the file"\nmodel = "from the file"\nport = 1\nmode = "block"\nsearch_budget = 2\n')
    monkeypatch.setenv("FORETASTE_PORT", "2")
    monkeypatch.setenv("FORETASTE_MODEL", "from the environment")
    assert main(["guard", "serve", "--config", str(config), "--model", "m", "--set", "largest=0.2"]) == 0
    [settings] = given
    assert (settings.clean, settings.model, settings.port, settings.mode) == ("from the file", "m", 2, "block")
    assert settings.hyperparameters == {"largest": 0.2, "search_budget": 2.0}
    for text, complaint in (("colour = 1", "sets colour, which is no option"), ("=", "is no TOML file")):
        config.write_text(text)
        assert main(["guard", "serve", "--config", str(config)]) == 4
        assert complaint in capsys.readouterr().err
    monkeypatch.undo()
    for arguments, complaint in (
        (["--clean", "c"], "needs either --model or --upstream"),
        (["--clean", "c", "--model", "m", "--keep", "2"], "--keep must be at least 0 and at most 1"),
        (["--clean", "c", "--model", "m", "--review-token", "short"], "16 characters or more"),
        (["--clean", "c", "--model", "m", "--retain-mb", "0"], "--retain-mb must be above 0"),
    ):
        assert main(["guard", "serve", *arguments]) == 4
        assert complaint in capsys.readouterr().err


def test_logs_are_json_with_request_and_trace(serve: "Serve", draw: "Draw", caplog: pytest.LogCaptureFixture) -> None:
    running = serve()
    caplog.set_level(logging.INFO, "foretaste.gateway")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = running.client.get(f"{running.url}/v2", headers={"traceparent": trace, "x-request-id": "ab" * 16})
    running.client.get(f"{running.url}/v2", headers={"traceparent": "nonsense"})
    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 10
    while len(lines) < 2 and time.monotonic() < deadline:  # an answer may be there before its line is
        time.sleep(0.01)
        records = [record for record in caplog.records if record.getMessage() == "request"]
        lines = [json.loads(JsonLines().format(record)) for record in records]
    first = lines[0]
    assert first["request_id"] == answer.headers["x-request-id"]
    assert first["client_request_id"] == "ab" * 16
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (first["route"], first["status"], first["level"]) == ("/v2", 200, "info")
    assert "trace_id" not in lines[1]


def test_drift_of_the_calibration_is_measured(serve: "Serve", draw: "Draw") -> None:
    running = serve(budget_ms=20_000)
    running.answers(draw(20, 1)[0])
    said = running.gateway.metrics.exposition().decode()
    assert "foretaste_promised_share 0.01" in said
    assert "foretaste_above_threshold_share 0.0" in said


def test_a_port_that_is_taken(serve: "Serve") -> None:
    from foretaste.errors import ForetasteError
    from foretaste.gateway.server import listen

    running = serve()
    with pytest.raises(ForetasteError, match="cannot listen on"):
        listen("127.0.0.1", int(running.url.rpartition(":")[2]))
