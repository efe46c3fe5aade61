import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa

from foretaste.gateway.records.tables import inputs
from foretaste.gateway.review.session import Sessions
from foretaste.samples import Images

if TYPE_CHECKING:
    from tests.gateway.conftest import Draw, Running, Serve

Stamp = Callable[[Images], Images]

PAGES = ("/review", "/review/triggers", "/review/quarantine")


def attack(running: "Running", draw: "Draw", stamped: Stamp) -> None:
    """Let the gateway find the trigger, and stop it."""
    running.infer(stamped(draw(4, 2)[0])).raise_for_status()
    running.settle()
    running.infer(stamped(draw(2, 3)[0])).raise_for_status()


def trojaned(running: "Running") -> Any:
    """Return a trojaned input that is on record."""
    with running.gateway.store.transaction() as connection:
        return connection.execute(sa.select(inputs).where(inputs.c.verdict == "trojaned")).first()


@pytest.fixture
def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_nothing_is_shown_without_the_token(serve: "Serve", token: str) -> None:
    running = serve()
    for page in PAGES:
        answer = running.client.get(running.url + page)
        assert (answer.status_code, answer.headers["location"]) == (303, "/review/login")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "foretaste_session=1.2.3"}):
        for method, path in (
            ("GET", "/review/triggers/0123456789ab.png"),
            ("POST", "/review/triggers/0123456789ab/release"),
            ("POST", f"/review/inputs/{'0' * 32}/0/confirm"),
        ):
            assert running.client.request(method, running.url + path, headers=headers).status_code == 401
    wrong = running.client.post(f"{running.url}/review/login", data={"token": "wrong"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = running.client.post(f"{running.url}/review/login", data={"token": token})
    assert right.headers["location"] == "/review"
    assert {"HttpOnly", "SameSite=strict", "Path=/review"} <= set(right.headers["set-cookie"].split("; "))
    assert running.client.get(f"{running.url}/review").status_code == 200


def test_sessions_end_and_cannot_be_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions("a token of some length")
    cookie = sessions.begin()
    session = sessions.find("", cookie)
    assert session is not None
    assert sessions.allows(session, session.csrf)
    assert not sessions.allows(session, "")
    assert Sessions("another token, as long").find("", cookie) is None
    assert sessions.find("", cookie[:-1] + ("0" if cookie[-1] != "0" else "1")) is None
    monkeypatch.setattr("time.time", lambda: 1e11)
    assert sessions.find("", cookie) is None


def test_the_browser_is_told_to_be_strict(serve: "Serve", bearer: dict[str, str]) -> None:
    running = serve()
    for page in (*PAGES, "/review/login", "/review/style.css"):
        answer = running.client.get(running.url + page, headers=bearer)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "<script" not in answer.text
        assert "style=" not in answer.text


def test_a_released_trigger_stops_firing_at_once_for_all(
    serve: "Serve", draw: "Draw", stamped: Stamp, bearer: dict[str, str], tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    running, other = serve(database=database), serve(database=database, state=tmp_path / "other")
    attack(running, draw, stamped)
    images, labels = draw(2, 5)
    for one in (running, other):
        assert one.answers(stamped(images)) == (labels.tolist(), ["trojaned"] * 2)
    [trigger] = running.gateway.registry.active
    page = f"{running.url}/review/triggers"
    assert trigger.id in running.client.get(page, headers=bearer).text
    assert running.client.get(f"{page}/{trigger.id}.png", headers=bearer).content.startswith(b"\x89PNG")
    assert running.client.post(f"{page}/{trigger.id}/release", headers=bearer).status_code == 303
    for one in (other, running):
        assert one.answers(stamped(images)) == ([4, 4], ["pending"] * 2)
        one.settle()  # found again, and still released
        assert one.answers(stamped(images)) == ([4, 4], ["pending"] * 2)
    assert running.client.post(f"{page}/{trigger.id}/restore", headers=bearer).status_code == 303
    assert other.answers(stamped(images))[1] == ["trojaned"] * 2


def test_a_released_input_passes(serve: "Serve", draw: "Draw", stamped: Stamp, bearer: dict[str, str]) -> None:
    running = serve()
    attack(running, draw, stamped)
    images = stamped(draw(2, 3)[0])
    assert running.answers(images)[1] == ["trojaned"] * 2
    with running.gateway.store.transaction() as connection:
        row = connection.execute(sa.select(inputs).where(inputs.c.action == "corrected")).first()
    assert row is not None
    place = f"{running.url}/review/inputs/{row.request}/{row.position}"
    assert running.client.post(f"{place}/release", headers=bearer).status_code == 303
    verdicts = running.answers(images)[1]
    assert sorted(verdicts) == ["clean", "trojaned"]
    assert "released" in running.client.get(place, headers=bearer).text


def test_a_rule_makes_a_trigger(serve: "Serve", draw: "Draw", stamped: Stamp, bearer: dict[str, str]) -> None:
    running = serve(hyperparameters={"search_budget": 0.0}, keep=1.0)
    running.infer(stamped(draw(1, 2)[0]))
    running.settle()
    with running.gateway.store.transaction() as connection:
        row = connection.execute(sa.select(inputs)).one()
    place = f"{running.url}/review/inputs/{row.request}/{row.position}"
    rule = {"top": "12", "left": "12", "height": "4", "width": "4", "target": "4"}
    for bad in ({"top": "27"}, {"height": "0"}, {"left": "x"}, {"target": "-1"}):
        assert running.client.post(f"{place}/rule", headers=bearer, data={**rule, **bad}).status_code == 422
    assert running.client.post(f"{place}/rule", headers=bearer, data=rule).status_code == 303
    images, labels = draw(3, 1)
    assert running.answers(stamped(images)) == (labels.tolist(), ["trojaned"] * 3)
    assert "from a rule" in running.client.get(f"{running.url}/review/triggers", headers=bearer).text


def test_forms_of_other_sites_are_refused(serve: "Serve", draw: "Draw", stamped: Stamp, token: str) -> None:
    running = serve()
    attack(running, draw, stamped)
    [trigger] = running.gateway.registry.active
    running.client.post(f"{running.url}/review/login", data={"token": token})
    for fields in ({}, {"csrf": "0" * 64}):
        answer = running.client.post(f"{running.url}/review/triggers/{trigger.id}/release", data=fields)
        assert (answer.status_code, answer.json()["error"]) == (403, "the form is not from this session")
    running.gateway.registry.refresh()
    assert len(running.gateway.registry.active) == 1


def test_what_is_not_there(serve: "Serve", bearer: dict[str, str]) -> None:
    running = serve()
    for path in (
        "/review/triggers/nothing.png",
        f"/review/inputs/{'0' * 32}/0",
        f"/review/inputs/{'0' * 32}/0/input.png",
        f"/review/inputs/{'0' * 32}/0/other.png",
    ):
        assert running.client.get(running.url + path, headers=bearer).status_code == 404
    assert running.client.get(f"{running.url}/review/quarantine?page_number=x", headers=bearer).status_code == 200


def test_everything_is_escaped(serve: "Serve", bearer: dict[str, str]) -> None:
    running = serve()
    page = running.client.get(f"{running.url}/review/quarantine?trigger=<script>alert(1)</script>", headers=bearer)
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


@pytest.fixture
def browser() -> Iterator[Any]:
    """Return a real browser."""
    from playwright.sync_api import Error, sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        except Error as error:
            pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


def test_a_person_reviews_with_the_keyboard(
    serve: "Serve", draw: "Draw", stamped: Stamp, token: str, browser: Any, tmp_path: Path
) -> None:
    running = serve()
    attack(running, draw, stamped)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{running.url}/review")
    page.wait_for_selector("#token:focus")
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{running.url}/review")
    assert "Trojaned" in page.inner_text("main")
    page.goto(f"{running.url}/review/quarantine")
    broken = "images => images.filter(image => !image.complete || !image.naturalWidth).length"
    assert page.eval_on_selector_all("img", "images => images.length") > 0
    assert page.eval_on_selector_all("img", broken) == 0
    before = page.locator("button", has_text="Confirm").count()
    page.locator("button", has_text="Confirm").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".badge")
    assert page.url == f"{running.url}/review/quarantine"
    assert page.locator("button", has_text="Confirm").count() == before - 1
    page.goto(f"{running.url}/review/triggers")
    page.locator("button", has_text="Release").first.press("Enter")
    page.wait_for_selector(".badge")
    running.gateway.registry.refresh()
    assert len(running.gateway.registry.active) == 0
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone(
    scheme: str, serve: "Serve", draw: "Draw", stamped: Stamp, token: str, browser: Any
) -> None:
    running = serve()
    attack(running, draw, stamped)
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{running.url}/review/login")
    page.fill("#token", token)
    page.click("text=Log in >> nth=-1")
    row = trojaned(running)
    for path in (*PAGES, f"/review/inputs/{row.request}/{row.position}"):
        page.goto(running.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        style = page.evaluate_handle("getComputedStyle(document.body)")
        colours = [style.evaluate(f"style => style.{name}") for name in ("color", "backgroundColor")]
        light = [sum(map(int, colour.strip("rgb()").split(","))) for colour in colours]
        assert (light[0] < light[1]) == (scheme == "light")
        assert abs(light[0] - light[1]) > 400
    assert httpx.get(f"{running.url}/review/login").is_success
