import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy as sa

from foretaste.errors import ForetasteError
from foretaste.gateway.records.store import StoreError, fingerprint, from_png
from foretaste.gateway.records.tables import inputs, pictures, triggers
from foretaste.gateway.review.queries import rule
from foretaste.gateway.screening import prepare
from foretaste.gateway.settings import Settings
from foretaste.samples import Images

if TYPE_CHECKING:
    from tests.gateway.conftest import Draw, ModelServer, Running, Serve

Stamp = Callable[[Images], Images]


def rows(running: "Running", table: sa.Table = inputs) -> list[Any]:
    with running.gateway.store.transaction() as connection:
        return list(connection.execute(sa.select(table)).all())


def learn(running: "Running", draw: "Draw", stamped: Stamp) -> None:
    """Let the gateway find the trigger."""
    running.infer(stamped(draw(6, 2)[0])).raise_for_status()
    running.settle()
    assert len(running.gateway.registry.active) == 1


def test_a_trigger_found_once_protects_the_next_request(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve()
    images, labels = draw(8, 1)
    trojaned = stamped(images)
    assert running.answers(images) == (labels.tolist(), ["pending"] * 8)
    assert running.answers(trojaned)[0] == [4] * 8  # nobody knows the trigger yet
    running.settle()
    assert running.answers(trojaned) == (labels.tolist(), ["trojaned"] * 8)
    assert running.answers(images) == (labels.tolist(), ["pending"] * 8)


def test_a_look_that_turns_some_clean_images_is_not_put_in_force(
    serve: "Serve", draw: "Draw", stamped: Stamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.guards.trigger.LEAST_FLIP_RATE", 1.01)
    running = serve()
    trojaned = stamped(draw(6, 1)[0])
    running.answers(trojaned)
    running.settle()
    # Each is flagged for itself; none stops another.
    assert {(row.verdict, row.trigger) for row in rows(running)} == {("trojaned", "")}
    assert len(running.gateway.registry.active) == 0
    assert not rows(running, triggers)


def test_earlier_records_are_corrected(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve()
    images, labels = draw(6, 1)
    running.answers(images)
    running.answers(stamped(images))
    running.settle()
    written = {(row.sha256): row for row in rows(running)}
    for image, label in zip(images, labels.tolist(), strict=True):
        row = written[fingerprint(image)]
        assert (row.verdict, row.label, row.corrected, row.trigger) == ("clean", label, label, "")
    [trigger] = [row for row in rows(running, triggers) if row.status == "active"]
    kept = {(row.request, row.position): from_png(row.png) for row in rows(running, pictures)}
    for image, label in zip(stamped(images), labels.tolist(), strict=True):
        row = written[fingerprint(image)]
        assert (row.verdict, row.label, row.corrected, row.action) == ("trojaned", 4, label, "passed")
        assert row.revised is not None
        np.testing.assert_array_equal(kept[row.request, row.position], image)
    assert len(kept) == 6
    assert trigger.target == 4


def test_what_one_worker_finds_all_know(serve: "Serve", draw: "Draw", stamped: Stamp, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    # It searches nothing itself, so that only the look back can find anything.
    running = serve(hyperparameters={"search_budget": 0.0}, state=tmp_path / "shared", database=database)
    images, labels = draw(4, 1)
    running.answers(stamped(images))
    running.settle()
    assert {row.verdict for row in rows(running)} == {"unsearched"}
    learn(serve(database=database), draw, stamped)
    running.answers(images)  # takes up what the other found
    running.settle()
    seen = {row.sha256: (row.verdict, row.corrected) for row in rows(running)}
    for image, label in zip(stamped(images), labels.tolist(), strict=True):
        assert seen[fingerprint(image)] == ("trojaned", label)


def test_block_refuses_trojaned_inputs(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve(mode="block")
    learn(running, draw, stamped)
    images, _ = draw(3, 1)
    images[1] = stamped(images)[1]
    refused = running.infer(images)
    assert (refused.status_code, refused.json()) == (422, {"error": "trojaned: input 1"})
    assert {row.action for row in rows(running)[-3:]} == {"blocked"}
    assert running.infer(images[[0, 2]]).status_code == 200


def test_observe_leaves_answers_untouched(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve(mode="observe")
    learn(running, draw, stamped)
    answer = running.infer(stamped(draw(2, 1)[0])).json()
    assert answer["outputs"][0]["data"] == [4, 4]
    assert "parameters" not in answer
    assert [(row.verdict, row.action) for row in rows(running)[-2:]] == [("trojaned", "passed")] * 2


def test_answers_that_cannot_be_corrected_are_not_given(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve()
    learn(running, draw, stamped)
    trojaned = stamped(draw(2, 1)[0])
    scores = running.infer(trojaned, outputs=[{"name": "scores"}]).json()
    assert 4 not in np.array(scores["outputs"][0]["data"]).reshape(2, 5).argmax(axis=1)
    labels = running.infer(trojaned, outputs=[{"name": "labels"}]).json()
    assert 4 not in labels["outputs"][0]["data"]


def test_probabilities_stay_probabilities(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve()
    learn(running, draw, stamped)
    trojaned = stamped(draw(2, 1)[0])
    [given] = (one["data"] for one in running.infer(trojaned).json()["outputs"] if one["name"] == "scores")
    raw = running.gateway.classifier.classify(trojaned).scores
    assert raw is not None
    np.testing.assert_allclose(np.sort(np.array(given).reshape(2, 5)), np.sort(raw), rtol=1e-6)


def test_a_budget_waits_for_the_search(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve(budget_ms=20_000)
    images, labels = draw(3, 1)
    assert running.answers(stamped(images)) == (labels.tolist(), ["trojaned"] * 3)
    assert running.answers(images) == (labels.tolist(), ["clean"] * 3)
    assert {row.revised for row in rows(running)} == {None}


def test_other_guards_screen_within_the_budget(serve: "Serve", draw: "Draw", tmp_path: Path) -> None:
    running = serve(method="scale-up", state=tmp_path / "scale-up", budget_ms=20_000)
    images, labels = draw(4, 1)
    given, verdicts = running.answers(images)
    assert given == labels.tolist()
    assert set(verdicts) <= {"clean", "trojaned"}
    assert all(row.score is not None for row in rows(running))


def test_inputs_that_no_request_waits_for_are_searched_together(serve: "Serve", draw: "Draw") -> None:
    running = serve()
    images = draw(3, 1)[0]
    before = searches(running)
    for row in range(3):
        search = running.gateway.searcher.submit([("a request", row)], images[row : row + 1])
        assert search is not None
        search.recorded.set()
    running.settle()
    assert searches(running) == before + 1


def searches(running: "Running") -> int:
    """Return how often the gateway has searched, whatever number of inputs at a time."""
    counted = running.gateway.metrics.exposition().decode()
    return int(float(counted.split("\nforetaste_search_seconds_count ")[1].split("\n")[0]))


def test_a_full_queue_is_said(serve: "Serve", draw: "Draw", monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve(queue=1)
    held = threading.Event()
    screener = running.gateway.searcher._screener
    monkeypatch.setattr(running.gateway.searcher, "_screener", Held(screener, held))
    try:
        assert running.answers(draw(2, 1)[0])[1] == ["pending"] * 2
        verdicts = [running.answers(draw(1, seed)[0])[1] for seed in range(2, 5)]
        assert ["unsearched"] in verdicts
    finally:
        held.set()
    running.settle()
    assert "foretaste_not_searched_total" in running.gateway.metrics.exposition().decode()


class Held:
    """A screener that waits until it may go on."""

    def __init__(self, screener: Any, may: threading.Event) -> None:
        self.screener, self.may = screener, may

    def screen(self, images: Images) -> Any:
        assert self.may.wait(20)
        return self.screener.screen(images)


def test_the_calibration_is_taken_up_again(model_folder: Path, tmp_path: Path) -> None:
    settings = Settings(
        model="gateway_model:corners", clean=str(model_folder / "clean.npz"), state=model_folder / "state"
    )
    state = model_folder / "state" / "calibration" / "state.json"
    before = state.stat().st_mtime_ns
    prepare(settings)
    assert state.stat().st_mtime_ns == before


@pytest.mark.parametrize(("policy", "status"), [("pass", 200), ("block", 503)])
def test_the_policy_when_screening_fails(
    policy: Any, status: int, serve: "Serve", draw: "Draw", monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(on_error=policy)

    def fail() -> None:
        raise StoreError("the disk is full")

    images, labels = draw(2, 1)
    monkeypatch.setattr(running.gateway.store, "write", lambda *_: fail())
    given = running.infer(images)
    assert given.status_code == status
    if policy == "pass":
        assert given.json()["outputs"][0]["data"] == labels.tolist()
        assert "parameters" not in given.json()  # no verdict that is not on record
    else:
        assert given.json() == {"error": "the input could not be screened"}
    counted = running.gateway.metrics.exposition().decode()
    assert 'foretaste_errors_total{part="records"} 1.0' in counted
    assert rows(running) == []


@pytest.mark.parametrize(("policy", "status", "action"), [("pass", 200, "passed"), ("block", 503, "blocked")])
def test_a_failed_screening_is_on_record(
    policy: Any, status: int, action: str, serve: "Serve", draw: "Draw", monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(on_error=policy)

    def fail(*_: Any) -> None:
        raise ForetasteError("no")

    monkeypatch.setattr("foretaste.gateway.screening.recognise", fail)
    given = running.infer(draw(2, 1)[0])
    assert given.status_code == status
    if policy == "pass":
        assert given.json()["parameters"]["foretaste_verdict"] == "error,error"
    assert [(row.verdict, row.action) for row in rows(running)] == [("error", action)] * 2
    assert 'foretaste_errors_total{part="screening"} 1.0' in running.gateway.metrics.exposition().decode()


def test_triggers_are_bounded(serve: "Serve", draw: "Draw", stamped: Stamp) -> None:
    running = serve(most_triggers=1)
    learn(running, draw, stamped)
    [known] = running.gateway.registry.active
    other = np.array(draw(1, 3)[0][0])
    running.gateway.registry.publish([rule(other, box=(0, 0, 6, 6), anywhere=False, target=1)], {}, "rule")
    running.gateway.registry.refresh()
    assert [trigger.id for trigger in running.gateway.registry.active] == [known.id]
    assert running.gateway.registry.dropped == 1


def test_sampled_inputs_are_kept(serve: "Serve", draw: "Draw") -> None:
    running = serve(keep=1.0)
    images, _ = draw(3, 1)
    running.answers(images)
    assert len(rows(running, pictures)) == 3


def test_a_model_that_gives_labels_alone(serve: "Serve", draw: "Draw", stamped: Stamp, tmp_path: Path) -> None:
    running = serve(model="gateway_model:labels", state=tmp_path / "labels", budget_ms=20_000)
    images, labels = draw(3, 1)
    answer = running.infer(stamped(images)).json()
    assert [(one["name"], one["data"]) for one in answer["outputs"]] == [("labels", labels.tolist())]


def test_a_model_server_behind(serve: "Serve", upstream: "ModelServer", draw: "Draw", stamped: Stamp) -> None:
    running = serve(upstream=upstream.url)
    learn(running, draw, stamped)
    images, labels = draw(3, 1)
    assert running.answers(stamped(images)) == (labels.tolist(), ["trojaned"] * 3)
    before = len(upstream.asked)
    images, _ = draw(3, 2)
    images[0] = stamped(images)[0]
    assert running.answers(images)[1] == ["trojaned", "pending", "pending"]
    # One request of the client's, and one question with the trigger covered.
    assert len(upstream.asked) - before >= 2


@pytest.mark.parametrize("body", [b"garbage", b"{}", b'{"outputs": []}', b'{"outputs": [{"name": "labels"}]}'])
def test_an_upstream_that_answers_garbage(body: bytes, serve: "Serve", upstream: "ModelServer", draw: "Draw") -> None:
    running = serve(upstream=upstream.url)
    upstream.trouble = (200, body)
    given = running.infer(draw(2, 1)[0])
    assert (given.status_code, given.content) == (200, body)
    assert 'foretaste_errors_total{part="screening"} 1.0' in running.gateway.metrics.exposition().decode()
    upstream.trouble = (500, b'{"error": "mine"}')
    given = running.infer(draw(2, 1)[0])
    assert (given.status_code, given.json()) == (500, {"error": "mine"})


def test_an_upstream_that_is_slow_or_gone(serve: "Serve", upstream: "ModelServer", draw: "Draw") -> None:
    running = serve(upstream=upstream.url, timeout=0.5)
    upstream.seconds = 2.0
    assert running.infer(draw(2, 1)[0]).status_code == 504
    upstream.seconds = 0.0
    assert running.infer(draw(2, 1)[0]).status_code == 200
    upstream.stop()
    gone = running.infer(draw(2, 1)[0])
    assert (gone.status_code, gone.json()) == (502, {"error": "the model server cannot be reached"})
    assert running.client.get(f"{running.url}/v2/health/ready").status_code == 503
    assert running.client.get(f"{running.url}/v2/health/live").status_code == 200
