"""The review page's routes: everything is rendered here, and no script runs in the browser."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from foretaste.errors import ForetasteError
from foretaste.gateway.limits import read_body
from foretaste.gateway.records.store import as_png
from foretaste.gateway.review import queries
from foretaste.gateway.review.session import COOKIE, LIFETIME, Session, Sessions
from foretaste.gateway.screening import Gateway
from foretaste.gateway.settings import Settings
from foretaste.gateway.threads import in_thread
from foretaste.guards.neo.inpainting import with_surround
from foretaste.guards.neo.registry import locate
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images

T = TypeVar("T")

TEMPLATES = Path(__file__).with_name("templates")
MOST_FORM = 4096
"""Bytes that a form may have."""
WRONG_TOKEN_SECONDS = 0.5
"""Seconds that the answer to a wrong token takes, so that guessing is slow."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What each answer tells the browser: nothing from elsewhere, no scripts, no frames, no copies."""
HOUR, DAY = 3600, 86_400
REFRESH_SECONDS = 5
"""Seconds after which the overview loads itself again."""


def review_pages(settings: Settings) -> APIRouter:
    """Return the routes under ``/review``.

    Args:
        settings: the gateway's; the review token must be set.
    """
    assert settings.review_token is not None
    sessions = Sessions(settings.review_token)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["when"] = queries.when
    router = APIRouter(prefix="/review")

    def page(template: str, status: int = 200, **values: Any) -> Response:
        text = environment.get_template(template).render(mode=settings.mode, **values)
        return Response(text, status, HEADERS, "text/html")

    def session_of(request: Request) -> Session | None:
        return sessions.find(request.headers.get("authorization", ""), request.cookies.get(COOKIE, ""))

    async def ask(request: Request, question: Callable[[Gateway], T]) -> T:
        """Ask the records, for a user who is logged in."""
        gateway: Gateway = request.app.state.gateway
        try:
            return await in_thread(request, lambda: question(gateway))
        except ForetasteError:
            raise HTTPException(503, "the records cannot be used now") from None

    def logged_in(request: Request) -> Session:
        session = session_of(request)
        if session is None:
            raise HTTPException(401, "log in first")
        return session

    async def form(request: Request) -> dict[str, str]:
        """Return the fields of a form that was sent from a page of this session."""
        body = await read_body(request, MOST_FORM, settings.timeout)
        fields = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if not sessions.allows(logged_in(request), fields.get("csrf", "")):
            raise HTTPException(403, "the form is not from this session")
        return fields

    @router.get("/style.css")
    async def style() -> Response:
        return Response((TEMPLATES / "review.css").read_text(encoding="utf-8"), 200, HEADERS, "text/css")

    @router.get("/icon.svg")
    async def icon() -> Response:
        return Response((TEMPLATES / "icon.svg").read_text(encoding="utf-8"), 200, HEADERS, "image/svg+xml")

    @router.get("/login")
    async def login_page() -> Response:
        return page("login.html.j2", wrong=False)

    @router.post("/login")
    async def login(request: Request) -> Response:
        body = await read_body(request, MOST_FORM, settings.timeout)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[-1]
        if not sessions.is_token(given):
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
            return page("login.html.j2", 401, wrong=True)
        response = to("/review")
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        response.set_cookie(
            COOKIE, sessions.begin(), LIFETIME, path="/review", secure=secure, httponly=True, samesite="strict"
        )
        return response

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        await form(request)
        response = to("/review/login")
        response.delete_cookie(COOKIE, path="/review")
        return response

    @router.get("")
    async def overview(request: Request) -> Response:
        session = session_of(request)
        if session is None:
            return to("/review/login")

        def look(gateway: Gateway) -> dict[str, Any]:
            hour, day = (queries.counts(gateway.store, seconds) for seconds in (HOUR, DAY))
            rows, _ = queries.quarantine(gateway.store, page=0)
            times = [1000 * seconds for seconds in gateway.latest_seconds]
            return {
                "hour": hour,
                "day": day,
                "n_hour": sum(hour.values()),
                "n_day": sum(day.values()),
                "requests": queries.n_requests(gateway.store, HOUR),
                "rows": rows[:8],
                "triggers": [row for row in queries.trigger_rows(gateway.store) if row.status == "active"],
                "median": statistics.median(times) if times else None,
                "p99": float(np.quantile(times, 0.99)) if times else None,
                "names": gateway.classes,
            }

        return page("overview.html.j2", session=session, refresh=REFRESH_SECONDS, **await ask(request, look))

    @router.get("/triggers")
    async def triggers(request: Request) -> Response:
        session = session_of(request)
        if session is None:
            return to("/review/login")
        rows, names = await ask(request, lambda gateway: (queries.trigger_rows(gateway.store), gateway.classes))
        return page("triggers.html.j2", session=session, rows=rows, names=names)

    @router.get("/triggers/{trigger_id}.png")
    async def trigger_picture(request: Request, trigger_id: str) -> Response:
        logged_in(request)
        trigger = await ask(request, lambda gateway: queries.find_trigger(gateway.store, trigger_id))
        if trigger is None:
            raise HTTPException(404, "there is no such trigger")
        return picture(with_mask(trigger))

    @router.post("/triggers/{trigger_id}/{what}")
    async def change_trigger(request: Request, trigger_id: str, what: str) -> Response:
        await form(request)
        status = {"release": "released", "restore": "active"}.get(what)
        if status is None or not await ask(request, lambda gateway: gateway.store.set_status(trigger_id, status)):
            raise HTTPException(404, "there is no such trigger")
        return to("/review/triggers")

    @router.get("/quarantine")
    async def quarantine(request: Request, page_number: str = "0", trigger: str = "") -> Response:
        session = session_of(request)
        if session is None:
            return to("/review/login")
        number = int(page_number) if page_number.isascii() and page_number.isdigit() and len(page_number) < 7 else 0
        (rows, more), names = await ask(
            request,
            lambda gateway: (queries.quarantine(gateway.store, page=number, trigger=trigger), gateway.classes),
        )
        return page(
            "quarantine.html.j2", session=session, rows=rows, more=more, number=number, trigger=trigger, names=names
        )

    @router.get("/inputs/{request_id}/{position}")
    async def input_page(request: Request, request_id: str, position: int) -> Response:
        session = session_of(request)
        if session is None:
            return to("/review/login")

        def look(gateway: Gateway) -> dict[str, Any] | None:
            row = queries.find_input(gateway.store, request_id, position)
            if row is None:
                return None
            trigger = queries.find_trigger(gateway.store, row.trigger)
            return {
                "row": row,
                "names": gateway.classes,
                "shape": gateway.guarded.sample_shape,
                "box": (0, 0, 4, 4) if trigger is None else (*trigger.position, *trigger.mask.shape),
            }

        values = await ask(request, look)
        if values is None:
            raise HTTPException(404, "there is no such input")
        return page("input.html.j2", session=session, **values)

    @router.get("/inputs/{request_id}/{position}/{which}.png")
    async def input_picture(request: Request, request_id: str, position: int, which: str) -> Response:
        logged_in(request)

        def look(gateway: Gateway) -> Images | None:
            image = queries.find_image(gateway.store, request_id, position)
            row = queries.find_input(gateway.store, request_id, position)
            if image is None or row is None or which == "input":
                return image
            trigger = queries.find_trigger(gateway.store, row.trigger)
            box = None if trigger is None else locate(trigger, image)
            return None if trigger is None or box is None else with_surround(image, box, trigger.mask)

        image = await ask(request, look) if which in ("input", "covered") else None
        if image is None:
            raise HTTPException(404, "there is no such picture")
        return picture(image)

    @router.post("/inputs/{request_id}/{position}/{what}")
    async def change_input(request: Request, request_id: str, position: int, what: str) -> Response:
        fields = await form(request)
        if what == "rule":
            await make_rule(request, request_id, position, fields)
            return to("/review/triggers")
        review = {"confirm": "confirmed", "release": "released"}.get(what)
        if review is None or not await ask(request, lambda gateway: gateway.store.review(request_id, position, review)):
            raise HTTPException(404, "there is no such input")
        return to(back(request, "/review/quarantine"))

    async def make_rule(request: Request, request_id: str, position: int, fields: dict[str, str]) -> None:
        image = await ask(request, lambda gateway: queries.find_image(gateway.store, request_id, position))
        if image is None:
            raise HTTPException(404, "there is no such picture")
        try:
            top, left, height, width, target = (
                int(fields.get(name, "")) for name in ("top", "left", "height", "width", "target")
            )
        except ValueError:
            raise HTTPException(422, "place, size and target must be whole numbers") from None
        inside = 0 <= top < top + height <= image.shape[0] and 0 <= left < left + width <= image.shape[1]
        if not inside or target < 0:
            raise HTTPException(422, "the part must lie inside the image")
        trigger = queries.rule(image, box=(top, left, height, width), anywhere="anywhere" in fields, target=target)
        await ask(request, lambda gateway: gateway.registry.publish([trigger], {}, "rule"))

    return router


def to(path: str) -> RedirectResponse:
    """Send the browser to another page of ours."""
    return RedirectResponse(path, 303, HEADERS)


def back(request: Request, otherwise: str) -> str:
    """Return the path of the page of ours that a form was on."""
    came = urlsplit(request.headers.get("referer", ""))
    if came.netloc != request.headers.get("host") or not came.path.startswith("/review/"):
        return otherwise
    return f"{came.path}?{came.query}" if came.query else came.path


def picture(image: Images) -> Response:
    """Return an image as PNG."""
    return Response(as_png(image), 200, HEADERS, "image/png")


def with_mask(trigger: Trigger) -> Images:
    """Return a trigger's pixels, mid-grey outside its mask."""
    shown = np.array(trigger.patch)
    shown[~trigger.mask] = 127
    return shown
