"""Measure the gateway: what it costs, what it stops, and what it survives.

    python benchmarks/gateway.py overhead|load|fuzz|protection [--n N] [--out FILE]

A backdoored model on synthetic signs, its bare model server, the gateway and the clients all run on this machine, on
the loopback interface, and share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import os
import queue
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import sqlalchemy as sa
import uvicorn
from record import RESULTS, head

from foretaste.attacks import BadNets, stamp_inputs
from foretaste.classifiers.protocol_codec import JSON_LENGTH, CodecError, decode, encode
from foretaste.gateway.demo import Backdoored, free_port, make
from foretaste.gateway.model_server import model_app
from foretaste.io.atomic import atomic_json
from foretaste.io.signs import draw_signs

DATABASE = "records.sqlite"
SERVER = (
    "import sys; sys.path.insert(0, {here!r}); import gateway; gateway.serve({model!r}, {shape}, {port}, {seconds})"
)
LONGER = 0.0, 0.02
"""Seconds that the model server's answers take longer than the small model of the benchmark: as it is, and as with a
larger model on an accelerator."""


@dataclass(frozen=True)
class Sent:
    """A request that was answered, or was not.

    Attributes:
        id: the request's id, "" without an answer.
        status: the HTTP status; 0 without an answer.
        seconds: how long it took.
        labels: the labels in the answer; none in one that cannot be read.
        row: which of the bodies was sent.
    """

    id: str
    status: int
    seconds: float
    labels: tuple[int, ...]
    row: int


@contextmanager
def process(command: Sequence[str], ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; it has answered once at ``ready`` when the block begins."""
    with log.open("ab") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        wait_for(ready, running, log)
        yield running
    finally:
        running.terminate()
        try:
            running.wait(40)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(url: str, running: subprocess.Popen[bytes], log: Path, seconds: float = 180) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and running.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).is_success:
                return
        time.sleep(0.02)
    raise SystemExit(f"a server did not start: {log.read_text()[-2000:]}")


def model_server(backdoored: Backdoored, port: int, seconds: float = 0.0) -> list[str]:
    """Return the command of the bare model server, whose answers take so many seconds longer."""
    here, shape = str(Path(__file__).parent), backdoored.sample_shape
    code = SERVER.format(here=here, model=str(backdoored.model), shape=shape, port=port, seconds=seconds)
    return [sys.executable, "-c", code]


def serve(model: str, sample_shape: tuple[int, int, int], port: int, seconds: float) -> None:
    """Serve a model until the process ends; each answer takes so many seconds longer."""
    served = model_app(model, sample_shape, "signs")

    async def slower(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/infer"):
            await asyncio.sleep(seconds)
        await served(scope, receive, send)

    uvicorn.run(slower, host="127.0.0.1", port=port, log_level="warning")


def gateway(backdoored: Backdoored, upstream: str, port: int, folder: Path, *more: str) -> list[str]:
    """Return the command of the gateway."""
    return [
        *(sys.executable, "-m", "foretaste", "guard", "serve", "--upstream", upstream),
        *("--clean", str(backdoored.clean), "--state", str(folder), "--port", str(port)),
        *("--review-token", "a token for the benchmark", *more),
    ]


def send(url: str, bodies: Sequence[tuple[bytes, dict[str, str]]], rows: Sequence[int], clients: int) -> list[Sent]:
    """Send requests from so many clients, each on a connection of its own; return them in the order of their end."""
    address = httpx.URL(url)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for row in rows:
        waiting.put(row)
    sent: list[Sent] = []

    def client() -> None:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
        while True:
            try:
                row = waiting.get_nowait()
            except queue.Empty:
                connection.close()
                return
            body, headers = bodies[row]
            start = time.perf_counter()
            try:
                connection.request("POST", f"{address.path}/infer", body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                sent.append(Sent("", 0, time.perf_counter() - start, (), row))
                connection.close()
                time.sleep(0.05)
                continue
            seconds = time.perf_counter() - start
            labels: tuple[int, ...] = ()
            if answer.status == 200:
                with suppress(CodecError):  # a model server's garbage, say
                    scores = decode(content, "outputs", answer.headers.get(JSON_LENGTH))["scores"]
                    labels = tuple(scores.argmax(axis=1).tolist())
            sent.append(Sent(answer.headers.get("x-request-id", ""), answer.status, seconds, labels, row))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


def pack(images: Any) -> tuple[bytes, dict[str, str]]:
    """Return a request for images, as binary data both ways."""
    return encode({"images": images}, "inputs", binary=True, fields={"parameters": {"binary_data_output": True}})


def traffic(n: int, batch: int, trojaned: float, seed: int) -> tuple[list[tuple[bytes, dict[str, str]]], Any, Any]:
    """Return n requests, and of each input its true label and whether it carries the trigger: ``(n, batch)``."""
    signs = draw_signs(n * batch, seed=seed)
    stamped, mask = stamp_inputs(signs, BadNets(target=0), rate=trojaned, seed=seed) if trojaned else (signs, None)
    marked = np.zeros(n * batch, dtype=np.bool_) if mask is None else mask
    bodies = [pack(stamped.inputs[start : start + batch]) for start in range(0, n * batch, batch)]
    return bodies, signs.labels.reshape(n, batch), marked.reshape(n, batch)


def figures(sent: Sequence[Sent], seconds: float) -> dict[str, float]:
    """Return requests per second and quantiles of the latency in milliseconds."""
    times = np.array([1000 * one.seconds for one in sent])
    return {
        "requests_per_second": round(len(sent) / seconds, 1),
        "p50_ms": round(float(np.quantile(times, 0.5)), 2),
        "p99_ms": round(float(np.quantile(times, 0.99)), 2),
    }


def recorded(database: str) -> set[str]:
    """Return the ids of the requests on record in the database of this URL."""
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        found = set(connection.execute(sa.text("SELECT DISTINCT request FROM inputs")).scalars())
    engine.dispose()
    return found


def learn(url: str) -> None:
    """Send the trigger until it is known."""
    bodies, truth, _ = traffic(32, 1, 1.0, seed=99)
    for _ in range(60):
        sent = send(url, bodies, range(len(bodies)), 1)
        victims = [one for one in sent if truth[one.row, 0] != 0]
        if all(one.labels[0] != 0 for one in victims):
            return
        time.sleep(1)
    raise SystemExit("the trigger was not found")


def overhead(n: int, backdoored: Backdoored, folder: Path) -> dict[str, Any]:
    """Time the model server with and without the gateway, in turns, once the trigger is known."""
    with both(backdoored, folder) as (_, guarded, _):
        learn(guarded)
    return {
        "servers": [overhead_before(n, backdoored, folder, longer) for longer in LONGER],
        "fsync_ms": fsync_ms(folder),
    }


def overhead_before(n: int, backdoored: Backdoored, folder: Path, longer: float) -> dict[str, Any]:
    """Time a model server whose answers take so many seconds longer, with and without the gateway, in turns."""
    rows = []
    # The search is given what it may cost on a busy server: a query per input.
    with both(backdoored, folder, "--search-budget", "1", longer=longer) as (direct, guarded, _):
        for batch, clients, share in itertools.product((1, 32), (1, 8), (0.0, 0.01, 0.1)):
            bodies, _, _ = traffic(max(n // batch, 24), batch, share, seed=batch + clients)
            measured: dict[str, dict[str, float]] = {}
            for name, url in (("direct", direct), ("gateway", guarded)):
                send(url, bodies, range(8), clients)
                start = time.perf_counter()
                sent = send(url, bodies, range(len(bodies)), clients)
                seconds = time.perf_counter() - start
                assert all(one.status == 200 for one in sent)
                measured[name] = figures(sent, seconds)
            before, after = measured["direct"], measured["gateway"]
            rows.append(
                {
                    "batch": batch,
                    "clients": clients,
                    "trojaned": share,
                    "requests": len(bodies),
                    **measured,
                    "p50_ratio": round(after["p50_ms"] / before["p50_ms"], 2),
                    "throughput_ratio": round(after["requests_per_second"] / before["requests_per_second"], 2),
                }
            )
            print(longer, rows[-1], flush=True)
        parts = httpx.get(httpx.URL(guarded).join("/metrics")).text
    spent = {
        part: round(
            1000
            * value(parts, f'foretaste_request_seconds_sum{{part="{part}"}}')
            / value(parts, f'foretaste_request_seconds_count{{part="{part}"}}'),
            2,
        )
        for part in ("model", "screening", "records", "all")
    }
    return {"longer_ms": round(1000 * longer), "cases": rows, "mean_ms_by_part": spent}


def value(exposition: str, name: str) -> float:
    """Return a metric's value."""
    return next(float(line.rpartition(" ")[2]) for line in exposition.splitlines() if line.startswith(name))


def fsync_ms(folder: Path) -> float:
    """Return the median time of a write that is on disk: what a verdict costs at least."""
    times = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return round(1000 * float(np.median(times)), 2)


@contextmanager
def both(
    backdoored: Backdoored, folder: Path, *more: str, longer: float = 0.0
) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """Run a model server and a gateway in front of it; give the model's address at either, and the gateway."""
    model_port, port = free_port(), free_port()
    direct, guarded = (f"http://127.0.0.1:{one}/v2/models/signs" for one in (model_port, port))
    with (
        process(model_server(backdoored, model_port, longer), f"{direct}/ready", folder / "log"),
        process(
            gateway(backdoored, direct, port, folder, *more),
            f"http://127.0.0.1:{port}/v2/health/ready",
            folder / "log",
        ) as running,
    ):
        yield direct, guarded, running


def load(n: int, backdoored: Backdoored, folder: Path) -> dict[str, Any]:
    """Send many requests from 32 clients; look at memory, errors and records."""
    bodies, _, _ = traffic(2000, 1, 0.01, seed=5)
    with both(backdoored, folder, "--search-budget", "1") as (_, url, running):
        resident, statuses, ids = [], [], []
        start = time.perf_counter()
        for part in range(10):
            sent = send(url, bodies, [row % len(bodies) for row in range(n // 10)], 32)
            statuses += [one.status for one in sent]
            ids += [one.id for one in sent]
            resident.append(psutil.Process(running.pid).memory_info().rss / 2**20)
            print(part, round(resident[-1], 1), flush=True)
        seconds = time.perf_counter() - start
    on_record = recorded(f"sqlite:///{folder / DATABASE}")
    warm = resident[4:]
    return {
        "requests": len(ids),
        "clients": 32,
        "requests_per_second": round(len(ids) / seconds, 1),
        "errors": sum(status != 200 for status in statuses),
        "records_missing": sum(one not in on_record for one in ids),
        "resident_mb": [round(one, 1) for one in resident],
        "growth_in_second_half": round(max(warm) / warm[0] - 1, 4),
    }


def fuzz(n: int, backdoored: Backdoored, folder: Path) -> dict[str, Any]:
    """Send damaged requests, byte by byte, on raw connections; look at statuses and memory."""
    rng = random.Random(0)
    image = backdoored.traffic.inputs[:1]
    body, headers = pack(image)
    text, plain = encode({"images": image}, "inputs", binary=False)
    seeds = [(body, headers), (text, plain)]
    statuses: dict[str, int] = {}
    with both(backdoored, folder, "--search-budget", "0") as (_, url, running):
        address = httpx.URL(url)

        def damaged() -> bytes:
            content, about = rng.choice(seeds)
            about = {**about, "Content-Length": str(len(content)), "Host": "x"}
            lines = [f"POST {address.path}/infer HTTP/1.1", *(f"{key}: {one}" for key, one in about.items())]
            whole = bytearray("\r\n".join([*lines, "", ""]).encode() + content)
            for _ in range(rng.choice([1, 1, 2, 8, 64])):
                place = rng.randrange(min(len(whole), 400)) if rng.random() < 0.7 else rng.randrange(len(whole))
                kind = rng.randrange(3)
                if kind == 0:
                    whole[place] = rng.randrange(256)
                elif kind == 1:
                    del whole[place : place + rng.randrange(1, 20)]
                else:
                    whole[place:place] = rng.randbytes(rng.randrange(1, 20))
            return bytes(whole)

        def ask() -> str:
            connection = socket.create_connection((address.host, address.port or 80), timeout=3)
            with connection, suppress(OSError):
                connection.sendall(damaged())
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(64).split(b"\r\n")[0].decode("latin-1")[9:12] or "closed"
            return "closed"

        resident = []
        for part in range(10):
            for _ in range(n // 10):
                status = ask()
                statuses[status] = statuses.get(status, 0) + 1
            resident.append(psutil.Process(running.pid).memory_info().rss / 2**20)
            print(part, statuses, round(resident[-1], 1), flush=True)
        alive = httpx.get(f"{url}/ready").is_success
    return {
        "requests": n // 10 * 10,
        "statuses": dict(sorted(statuses.items())),
        "server_errors": sum(count for status, count in statuses.items() if status.startswith("5")),
        "resident_mb": [round(one, 1) for one in resident],
        "alive": alive,
    }


def protection(n: int, backdoored: Backdoored, folder: Path) -> dict[str, Any]:
    """Attack with a trigger that the gateway has never seen: 5 % of the requests of one client."""
    bodies, truth, marked = traffic(n, 1, 0.05, seed=7)
    model_port = free_port()
    direct = f"http://127.0.0.1:{model_port}/v2/models/signs"
    with process(model_server(backdoored, model_port), f"{direct}/ready", folder / "log"):
        bare = {one.row: one.labels[0] for one in send(direct, bodies, range(n), 4)}
    with both(backdoored, folder) as (_, url, _):
        start = time.perf_counter()
        sent = send(url, bodies, range(n), 1)
        seconds = time.perf_counter() - start
        time.sleep(5)
    fooled = [one for one in sent if marked[one.row, 0] and bare[one.row] != truth[one.row, 0]]
    stopped = [one.labels[0] != bare[one.row] for one in fooled]
    first = stopped.index(True) if True in stopped else len(stopped)
    right = [one.labels[0] == int(truth[one.row, 0]) for one, hit in zip(fooled, stopped, strict=True) if hit]
    clean = [one for one in sent if not marked[one.row, 0]]
    connection = sqlite3.connect(folder / DATABASE)
    verdicts = dict(connection.execute("SELECT verdict, COUNT(*) FROM inputs GROUP BY verdict").fetchall())
    connection.close()
    return {
        "requests": n,
        "seconds": round(seconds, 1),
        "trojaned_that_fool_the_model": len(fooled),
        "through_before_the_first_was_stopped": first,
        "through_after": len(stopped) - first - sum(stopped),
        "stopped": sum(stopped),
        "stopped_and_answered_rightly": sum(right),
        "clean": len(clean),
        "clean_answers_changed": sum(one.labels[0] != bare[one.row] for one in clean),
        "verdicts_on_record_at_the_end": verdicts,
    }


PARTS = {"overhead": (overhead, 200), "load": (load, 100_000), "fuzz": (fuzz, 50_000),
         "protection": (protection, 2000)}  # fmt: skip
"""What is measured, and how many requests it takes in full."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--n", type=int, help="requests")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "foretaste-gateway-benchmark")
    arguments = parser.parse_args()
    measure, full = PARTS[arguments.part]
    n = arguments.n or full
    backdoored = make(arguments.model)
    with tempfile.TemporaryDirectory(prefix="foretaste-gateway-") as folder:
        result = measure(n, backdoored, Path(folder))
    out = arguments.out or RESULTS / f"gateway-{arguments.part}.json"
    atomic_json(out, {**head(), "in_full": n >= full, "load_average": os.getloadavg()[0], arguments.part: result})
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
