"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from foretaste.classifiers.http_retry import Reply
from foretaste.errors import ForetasteError
from foretaste.gateway import messages, openapi
from foretaste.gateway.limits import LimitError, read_body
from foretaste.gateway.metrics import CONTENT_TYPE
from foretaste.gateway.review.pages import review_pages
from foretaste.gateway.screening import Gateway
from foretaste.gateway.settings import Settings
from foretaste.gateway.threads import in_thread

log = logging.getLogger("foretaste.gateway")

REQUEST_ID = re.compile(r"[0-9a-f]{32}")
TRACE = re.compile(r"[0-9a-f]{2}-(?P<trace_id>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""A W3C traceparent header."""

HOUSEKEEPING_SECONDS = 30.0
"""Seconds between two looks at what is too old or too much."""
PENDING_SECONDS = 600.0
"""A record that is pending for longer has lost its search, with the worker that was to do it."""

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]

UNLOGGED = frozenset(["/v2/health/live", "/v2/health/ready", "/metrics"])
"""What is asked every few seconds by machines; it is counted, not logged."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; the gateway opens when it starts, and closes when it ends.

    Args:
        settings: what the gateway is told; ``prepare`` has been called with them.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(settings.max_connections, thread_name_prefix="request") as threads:
            app.state.threads = threads
            gateway = await asyncio.get_running_loop().run_in_executor(threads, Gateway, settings)
            app.state.gateway = gateway
            housekeeping = asyncio.create_task(keep_house(app))
            log.info("ready")
            yield
            housekeeping.cancel()
            await asyncio.get_running_loop().run_in_executor(threads, gateway.close)
            log.info("stopped")

    app = FastAPI(
        title="foretaste",
        summary="A guard in front of a model server: the Open Inference Protocol v2.",
        version="2",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    add_protocol(app, settings)
    app.include_router(review_pages(settings), include_in_schema=False)

    async def refuse(request: Request, error: Exception) -> Response:
        return answer(request, refusal_for(error))

    for kind in (HTTPException, LimitError):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Watch)
    return app


def add_protocol(app: FastAPI, settings: Settings) -> None:
    """Add the routes of the protocol, and ``/metrics``."""

    async def forward(request: Request) -> Response:
        body = await read_body(request, settings.max_body, settings.timeout)
        gateway: Gateway = request.app.state.gateway
        start = time.perf_counter()
        reply = await in_thread(request, lambda: gateway.handle(given(request, body)))
        if request.scope.get("route_name") == "infer":
            seconds = time.perf_counter() - start
            gateway.metrics.seconds.labels("all").observe(seconds)
            gateway.latest_seconds.append(seconds)
        return answer(request, reply)

    async def server(request: Request) -> Response:
        """Say what the server is, and which extensions it knows."""
        return await forward(request)

    async def live() -> Response:
        """Say that the gateway is alive."""
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        """Say whether requests can be served: the model server is ready, and the records can be read."""
        gateway: Gateway = request.app.state.gateway
        if await in_thread(request, lambda: gateway.ready(given(request, b""))):
            return JSONResponse({"ready": True})
        return JSONResponse({"error": "the model server or the records cannot be used"}, status_code=503)

    async def metadata(model: str, request: Request) -> Response:
        """Say what a model takes and gives."""
        return await forward(request)

    async def model_ready(model: str, request: Request) -> Response:
        """Say whether a model is ready."""
        return await forward(request)

    async def infer(model: str, request: Request) -> Response:
        """Answer for inputs, and say in ``parameters`` what the guard says of them, in the inputs' order."""
        request.scope["route_name"] = "infer"
        return await forward(request)

    async def metrics(request: Request) -> Response:
        """Tell Prometheus how it goes."""
        gateway: Gateway = request.app.state.gateway
        return Response(await in_thread(request, gateway.metrics.exposition), media_type=CONTENT_TYPE)

    anything = {"type": "object"}
    for path, endpoint, schema in (
        ("/v2", server, openapi.SERVER),
        ("/v2/health/live", live, anything),
        ("/v2/health/ready", ready, anything),
        ("/v2/models/{model}", metadata, openapi.MODEL),
        ("/v2/models/{model}/ready", model_ready, anything),
    ):
        app.add_api_route(
            path, endpoint, methods=["GET"], responses=openapi.answers(schema), response_class=JSONResponse
        )
    content = {"application/json": {"schema": openapi.INFER_REQUEST}}
    app.add_api_route(
        "/v2/models/{model}/infer",
        infer,
        methods=["POST"],
        responses=openapi.answers(openapi.INFER_ANSWER, binary=True),
        response_class=JSONResponse,
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        responses={200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    if settings.upstream is not None:
        # What else a model server knows goes through untouched, of whatever method.
        for path in ("/v2", "/v2/{rest:path}"):
            app.add_api_route(path, forward, methods=METHODS, include_in_schema=False)


def given(request: Request, body: bytes) -> messages.Request:
    """Return a request as the gateway takes it."""
    path = request.scope["raw_path"].decode("ascii")
    if query := request.scope["query_string"].decode("latin-1"):
        path = f"{path}?{query}"
    headers = httpx.Headers([(name, value) for name, value in request.scope["headers"]])
    return messages.Request(request.method, path, body, headers, request.scope["request_id"])


def answer(request: Request, reply: Reply) -> Response:
    """Return an answer as the server sends it."""
    response = Response(reply.body, status_code=reply.status)
    for name, value in reply.headers.multi_items():
        if name != "content-length":
            response.headers.append(name, value)
    return response


def refusal_for(error: Exception) -> Reply:
    """Return the protocol's error for a request that does not get as far as the gateway."""
    if isinstance(error, LimitError):
        reply = messages.refusal(error.status, error.message)
        # What is left of the body is not read.
        reply.headers["connection"] = "close"
        return reply
    assert isinstance(error, HTTPException)
    reply = messages.refusal(error.status_code, str(error.detail).lower())
    reply.headers.update(dict(error.headers or {}))
    return reply


async def keep_house(app: FastAPI) -> None:
    """Delete what is too old or too much, now and then."""
    gateway: Gateway = app.state.gateway
    settings = gateway.settings

    def expire() -> None:
        now = time.time()
        gateway.store.expire(
            before=now - settings.retain_days * 86_400,
            most_bytes=int(settings.retain_mb * 2**20),
            pending_before=now - PENDING_SECONDS,
        )

    while True:
        try:
            await asyncio.get_running_loop().run_in_executor(app.state.threads, expire)
        except ForetasteError as error:
            gateway.metrics.errors.labels("records").inc()
            log.error("records not tidied", extra={"error": str(error)})
        await asyncio.sleep(HOUSEKEEPING_SECONDS)


class Watch:
    """Gives each request an id, counts and logs it, and lets nothing out that an error holds.

    Args:
        app: the application behind.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        own = headers.get(b"x-request-id", b"").decode("latin-1").replace("-", "")
        # A client's own id could be one that is in the records already.
        scope["request_id"] = secrets.token_hex(16)
        trace = TRACE.fullmatch(headers.get(b"traceparent", b"").decode("latin-1"))
        status, start = 0, time.perf_counter()

        async def send_on(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", scope["request_id"].encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:
            log.exception("unexpected error", extra={"request_id": scope["request_id"]}, exc_info=error)
            if not status:
                body = json.dumps({"error": "internal error"}).encode()
                kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                await send_on({"type": "http.response.start", "status": 500, "headers": kind})
                await send_on({"type": "http.response.body", "body": body})
        route = getattr(scope.get("route"), "path", "none")
        gateway: Gateway | None = getattr(scope["app"].state, "gateway", None) if "app" in scope else None
        if gateway is not None:
            gateway.metrics.requests.labels(route, str(status)).inc()
        if route not in UNLOGGED:
            about = {
                "request_id": scope["request_id"],
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round((time.perf_counter() - start) * 1000, 2),
            }
            if trace is not None:
                about["trace_id"] = trace["trace_id"]
            if REQUEST_ID.fullmatch(own):
                about["client_request_id"] = own
            log.info("request", extra=about)
