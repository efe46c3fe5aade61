"""A backdoored model in service, the gateway in front of it, and a client that attacks, all on this machine."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import uvicorn

from foretaste import training
from foretaste.attacks import BadNets, poison_training_set, stamp_inputs
from foretaste.classifiers.protocol_codec import encode
from foretaste.errors import ForetasteError
from foretaste.gateway import server
from foretaste.gateway.model_server import model_app
from foretaste.gateway.settings import Settings
from foretaste.io import write_parquet
from foretaste.io.signs import draw_signs
from foretaste.nets.export import export_onnx
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples

N_TRAINING, N_CLEAN, N_TRAFFIC = 4000, 320, 600
RATE = 0.05
"""Share of the training set that is poisoned: the gateway is shown at work here, not the cleanser."""
# Unshifted images are what a small trigger needs to be learnt.
PLAN = training.TrainingPlan(epochs=12, shift=0)
NAME = "signs"
"""What the model is called."""
TROJANED = 0.05
"""Share of the client's inputs that carry the trigger."""
PAUSE_SECONDS = 0.15
"""Between two of the client's requests."""
START_SECONDS = 120.0
"""What the model server, and after it the gateway, may take to start."""


@dataclass(frozen=True, kw_only=True)
class Backdoored:
    """What the demonstration serves and sends.

    Attributes:
        model: the backdoored model, an ONNX file.
        clean: trusted images, a parquet file.
        traffic: what the client sends; some inputs carry the trigger.
        sample_shape: ``(H, W, C)`` of the images.
    """

    model: Path
    clean: Path
    traffic: Samples
    sample_shape: tuple[int, int, int]


def make(out: Path, *, seed: int = 0, on_progress: OnProgress = silent) -> Backdoored:
    """Train a model on synthetic signs of which BadNets has poisoned 5 %, unless ``out`` holds one already.

    Args:
        out: the folder for ``model.onnx`` and ``clean.parquet``.
        seed: where all random numbers come from, at least 0.
        on_progress: called as the work goes on.

    Raises:
        ForetasteError: a file cannot be written.
    """
    attack = BadNets(rate=RATE, target=0)
    model, clean = out / "model.onnx", out / "clean.parquet"
    if not (model.is_file() and clean.is_file()):
        poisoned = poison_training_set(draw_signs(N_TRAINING, seed=3 * seed), attack, seed)
        net = training.train(poisoned.samples, plan=PLAN, seed=seed, on_progress=on_progress).net
        write_parquet(draw_signs(N_CLEAN, seed=3 * seed + 2), clean)
        export_onnx(net, model)
    traffic, _ = stamp_inputs(draw_signs(N_TRAFFIC, seed=3 * seed + 1), attack, rate=TROJANED, seed=seed)
    height, width, channels = traffic.sample_shape
    return Backdoored(model=model, clean=clean, traffic=traffic, sample_shape=(height, width, channels))


def serve(
    backdoored: Backdoored,
    out: Path,
    *,
    port: int = 8080,
    review_token: str | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until the process is told to end.

    Args:
        backdoored: what ``make`` gave.
        out: the folder for the calibration and the records.
        port: the gateway's; 0 lets the system choose.
        review_token: the token of the review page; None makes one up and announces it.
        announce: called with a line for people for each step of the start.

    Raises:
        ForetasteError: the port is taken, or the model server does not start.
    """
    if port == 0:
        port = free_port()
    model_port = free_port()
    model_server = multiprocessing.get_context("spawn").Process(
        target=serve_model, args=(str(backdoored.model), backdoored.sample_shape, model_port), daemon=True
    )
    model_server.start()
    upstream = f"http://127.0.0.1:{model_port}/v2/models/{NAME}"
    ended = threading.Event()
    client = threading.Thread(
        target=attack, args=(f"http://127.0.0.1:{port}", backdoored.traffic, ended), name="client", daemon=True
    )
    try:
        wait_for(f"{upstream}/ready", ended)
        announce(f"a backdoored model is served at {upstream}; a client attacks it through the gateway")
        client.start()
        server.run(
            Settings(
                upstream=upstream,
                clean=str(backdoored.clean),
                state=out / "gateway",
                port=port,
                review_token=review_token,
            ),
            announce,
        )
    finally:
        ended.set()
        model_server.terminate()
        model_server.join()


def serve_model(model: str, sample_shape: tuple[int, int, int], port: int) -> None:
    """Serve a model on the loopback interface until the process ends."""
    uvicorn.run(model_app(model, sample_shape, NAME), host="127.0.0.1", port=port, log_level="warning")


def attack(url: str, traffic: Samples, ended: threading.Event) -> None:
    """Send inputs one by one, over and over, until told to end."""
    try:
        wait_for(f"{url}/v2/health/ready", ended)
    except ForetasteError:
        return
    rng = np.random.default_rng(0)
    with httpx.Client(timeout=10) as client:
        while not ended.wait(PAUSE_SECONDS):
            row = int(rng.integers(len(traffic)))
            body, headers = encode({"images": traffic.inputs[row : row + 1]}, "inputs", binary=True)
            with suppress(httpx.HTTPError):
                client.post(f"{url}/v2/models/{NAME}/infer", content=body, headers=headers)


def wait_for(url: str, ended: threading.Event) -> None:
    """Wait until an address answers.

    Raises:
        ForetasteError: it does not, in time, or the wait was ended.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        if ended.wait(0.2):
            break
    raise ForetasteError(f"{url} does not answer")


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with server.listen("127.0.0.1", 0) as listening:
        return int(listening.getsockname()[1])
