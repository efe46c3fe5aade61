"""What a client may take: bytes and time."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""Seconds for the headers of a request, from its first byte or, of the first one, from the connection."""


class LimitError(Exception):
    """A request takes too much; it is answered with this status and text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Return the body of a request.

    Raises:
        LimitError: it has more bytes, or takes longer.
        ClientDisconnect: the client went away.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > most:
        raise LimitError(413, f"the body may have {most} bytes")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise LimitError(413, f"the body may have {most} bytes")
                pieces.append(piece)
    except TimeoutError:
        raise LimitError(408, "the body did not arrive in time") from None
    return b"".join(pieces)


class ImpatientProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, but for clients that send their headers slowly to hold connections: they are cut off."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._have()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to wait for the headers of a request."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Wait no longer: the body has its own limit."""
        self._have()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._have()
        self._patience = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _have(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
