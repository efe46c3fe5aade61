"""A bare model server: one model over the Open Inference Protocol v2, without a guard."""

from __future__ import annotations

import asyncio
import secrets

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foretaste.classifiers import open_classifier
from foretaste.gateway.backends import Local
from foretaste.gateway.limits import read_body
from foretaste.gateway.messages import Request as Message

MOST_BODY = 32 * 2**20
"""Bytes that a request may have."""
SECONDS = 30.0
"""Seconds that a request's body may take."""


def model_app(model: str, sample_shape: tuple[int, int, int], name: str) -> Starlette:
    """Return an ASGI application that serves a model; the demonstration and the benchmarks put a gateway before it.

    Args:
        model: whatever ``open_classifier`` takes.
        sample_shape: ``(H, W, C)`` of its images.
        name: what it is called.
    """
    served = Local(open_classifier(model), sample_shape, name=name)

    async def answer(request: Request) -> Response:
        body = await read_body(request, MOST_BODY, SECONDS)
        message = Message(
            request.method, request.url.path, body, httpx.Headers(request.headers.raw), secrets.token_hex(16)
        )
        reply = await asyncio.to_thread(served.forward, message)
        headers = {key: value for key, value in reply.headers.items() if key != "content-length"}
        return Response(reply.body, reply.status, headers)

    return Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST"])])
