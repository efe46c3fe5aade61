"""The gateway as a process, or several that share a port."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import uvicorn
from uvicorn.supervisors import Multiprocess

from foretaste.errors import ForetasteError
from foretaste.gateway import logs
from foretaste.gateway.limits import ImpatientProtocol
from foretaste.gateway.metrics import SHARED
from foretaste.gateway.settings import Settings

KEEP_ALIVE_SECONDS = 30
"""Seconds that a connection without a request is kept."""
GRACE_SECONDS = 30
"""Seconds that requests may take after the gateway was told to end."""
START_SECONDS = 120
"""Seconds that a worker may be silent, as it is while it starts, before it is replaced."""
BACKLOG = 512
"""Connections that the system holds until a worker takes them."""


def run(settings: Settings, announce: Callable[[str], None] = lambda line: None) -> None:
    """Serve until the process is told to end (SIGTERM or SIGINT); what it has begun is answered and recorded.

    Args:
        settings: what the gateway is told.
        announce: called with a line for people for each step of the start.

    Raises:
        UsageError: the settings name what there is not.
        ForetasteError: the model, the clean images, the records or the port cannot be used.
    """
    if settings.review_token is None:
        settings = replace(settings, review_token=secrets.token_urlsafe(24))
        announce(f"review token, for this run only: {settings.review_token}")
    listening = listen(settings.host, settings.port)
    try:
        shared = None
        if settings.workers > 1 and SHARED not in os.environ:
            shared = tempfile.mkdtemp(prefix="foretaste-metrics-")
            os.environ[SHARED] = shared
        serve(settings, listening, announce)
    finally:
        listening.close()
        if shared is not None:
            del os.environ[SHARED]
            shutil.rmtree(shared, ignore_errors=True)


def serve(settings: Settings, listening: socket.socket, announce: Callable[[str], None]) -> None:
    """Prepare, and serve on a socket."""
    # prometheus-client reads the environment when it is imported.
    from foretaste.gateway.app import create_app
    from foretaste.gateway.screening import prepare

    prepare(settings, announce)
    host, port = listening.getsockname()[:2]
    announce(f"serving on http://{host}:{port}, review page http://{host}:{port}/review")
    config = uvicorn.Config(
        partial(start_app, create_app, settings),
        factory=True,
        http=ImpatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        workers=settings.workers,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=START_SECONDS,
        backlog=BACKLOG,
    )
    logs.set_up()
    if settings.workers == 1:
        # Uvicorn sends itself the signal once more when it has ended, which would end the process as if by force.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server = uvicorn.Server(config)
        server.run(sockets=[listening])
        if not server.started:
            raise ForetasteError("the gateway did not start; the log says why")
    else:
        Multiprocess(config, [listening]).run()


def start_app(create: Callable[[Settings], object], settings: Settings) -> object:
    """Return the application, in the worker that is to serve it."""
    logs.set_up()
    return create(settings)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that clients can connect to.

    Raises:
        ForetasteError: the address is none, or is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ForetasteError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    listening.set_inheritable(True)
    return listening
