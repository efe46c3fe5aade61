"""The records in a database: SQLite, or anything else that SQLAlchemy has a driver for."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from PIL import Image as Picture
from sqlalchemy.engine import make_url

from foretaste.errors import ForetasteError, UsageError
from foretaste.gateway.records.tables import inputs, pictures, registry_version, triggers
from foretaste.guards.neo.registry import same
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images

BUSY_SECONDS = 5
"""How long a statement waits for another process's lock on the database."""
ROW_BYTES = 512
"""What a record without a picture is taken to need, indexes included."""
REVISED = ("corrected", "verdict", "score", "trigger", "revised")
"""The columns that change when an input is seen with other eyes."""
VERSION = str(sa.select(registry_version.c.version).compile())
"""What asks for the registry's version."""
MOST_RELEASED = 100_000
"""Released inputs that are remembered; a person has released each of them."""


class Verdict(StrEnum):
    """What is said of an input."""

    PENDING = "pending"
    """It carries no known trigger, and its search is still to come."""
    CLEAN = "clean"
    """The search found nothing, or a person released this very input."""
    TROJANED = "trojaned"
    """It carries a trigger."""
    UNSEARCHED = "unsearched"
    """It carries no known trigger, and was not searched: too many were waiting, or the budget was used up."""
    ERROR = "error"
    """It could not be screened."""


class Action(StrEnum):
    """What was done with the model's answer."""

    PASSED = "passed"
    CORRECTED = "corrected"
    BLOCKED = "blocked"


class StoreError(ForetasteError):
    """The database cannot be read or written now: it is locked, full, or not there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """What is written of one input.

    Attributes:
        request: the request's id.
        position: which input of the request, ≥ 0.
        time: seconds since 1970.
        sha256: of the pixels, see ``fingerprint``.
        label: the model's answer.
        corrected: the label to give instead; equal to ``label`` where nothing better is known.
        verdict: what is said of it.
        score: the guard's score, higher is more suspicious; None before it has one.
        trigger: the id of the trigger that it carries, or "".
        action: what was done with the answer.
        picture: the input as PNG, or None if it is not kept.
    """

    request: str
    position: int
    time: float
    sha256: str
    label: int
    corrected: int
    verdict: Verdict
    score: float | None
    trigger: str
    action: Action
    picture: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Revision:
    """Another verdict on an input that has been answered.

    Attributes:
        request: the request's id.
        position: which input of the request.
        corrected: the label that should have been given; None leaves what is there.
        verdict: what is said of it now.
        score: the guard's score; None leaves what is there.
        trigger: the id of the trigger that it carries, or "".
        picture: the input as PNG, or None if it is not kept.
    """

    request: str
    position: int
    corrected: int | None
    verdict: Verdict
    score: float | None
    trigger: str
    picture: bytes | None = None


class Store:
    """A database with the records; safe to use from several threads, and from several processes at a time.

    Args:
        url: an SQLAlchemy URL. SQLite writes in WAL mode with synchronous=FULL, so that what was committed survives a
            power cut; other databases as they are configured.

    Raises:
        UsageError: the URL is none, or its driver is not installed.
        StoreError: the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite:
                if parsed.database in (None, "", ":memory:"):
                    raise UsageError("records need a database that lasts; give SQLite a file")
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(parsed, pool_pre_ping=not self._sqlite, pool_size=8, max_overflow=32)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(f"the database URL cannot be used: {error}") from None
        except OSError as error:
            raise StoreError(f"the folder of the records cannot be made: {error.strerror}") from None
        if self._sqlite:
            sa.event.listen(self.engine, "connect", set_up_sqlite)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Give a connection whose work is on disk when the block ends, or undone if it fails.

        Raises:
            StoreError: the database cannot be read or written.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise unusable(error) from error

    def migrate(self) -> None:
        """Bring the tables to the present version.

        Raises:
            StoreError: the database cannot be written.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        config.set_main_option("path_separator", "os")
        try:
            with self.engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except sa.exc.SQLAlchemyError as error:
            raise unusable(error, "set up") from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    # Inputs.

    def write(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        """Add records."""
        connection.execute(
            sa.insert(inputs),
            [
                {
                    "request": record.request,
                    "position": record.position,
                    "time": record.time,
                    "sha256": record.sha256,
                    "label": record.label,
                    "corrected": record.corrected,
                    "verdict": record.verdict,
                    "score": record.score,
                    "trigger": record.trigger,
                    "action": record.action,
                }
                for record in records
            ],
        )
        self._keep(connection, [(one.request, one.position, one.picture) for one in records])

    def revise(self, connection: sa.Connection, revisions: Sequence[Revision]) -> None:
        """Change the verdicts on inputs that have been answered."""
        new = {name: sa.bindparam(f"new_{name}", type_=inputs.c[name].type) for name in REVISED}
        change = (
            sa.update(inputs)
            .where(inputs.c.request == sa.bindparam("of_request"), inputs.c.position == sa.bindparam("of_position"))
            .values({name: sa.func.coalesce(value, inputs.c[name]) for name, value in new.items()})
        )
        now = time.time()
        connection.execute(
            change,
            [
                {
                    "of_request": one.request,
                    "of_position": one.position,
                    "new_corrected": one.corrected,
                    "new_verdict": one.verdict,
                    "new_score": one.score,
                    "new_trigger": one.trigger,
                    "new_revised": now,
                }
                for one in revisions
            ],
        )
        self._keep(connection, [(one.request, one.position, one.picture) for one in revisions])

    def _keep(self, connection: sa.Connection, kept: Sequence[tuple[str, int, bytes | None]]) -> None:
        rows = [
            {"request": request, "position": position, "png": png, "size": len(png)}
            for request, position, png in kept
            if png is not None
        ]
        if rows:
            places = sa.tuple_(pictures.c.request, pictures.c.position)
            connection.execute(
                sa.delete(pictures).where(places.in_([(row["request"], row["position"]) for row in rows]))
            )
            connection.execute(sa.insert(pictures), rows)

    # Triggers.

    def version(self) -> int:
        """Return the version of the triggers and of what people decided.

        Raises:
            StoreError: the database cannot be read.
        """
        try:
            # By the driver alone, for every request asks: SQLAlchemy's own part takes several times as long.
            with closing(self.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(VERSION)
                row = cursor.fetchone()
        except (sa.exc.SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            raise unusable(error) from error
        if row is None:
            raise StoreError("the records cannot be used: they hold no version")
        return int(row[0])

    def snapshot(self) -> Snapshot:
        """Return the triggers and the released inputs, with their version.

        Raises:
            StoreError: the database cannot be read.
        """
        with self.transaction() as connection:
            version = int(connection.execute(sa.select(registry_version.c.version)).scalar_one())
            rows = connection.execute(sa.select(triggers).order_by(triggers.c.found, triggers.c.id)).all()
            hashes = connection.execute(
                sa.select(inputs.c.sha256).where(inputs.c.review == "released").limit(MOST_RELEASED)
            ).scalars()
            return Snapshot(
                version,
                tuple(trigger_of(row) for row in rows if row.status == "active"),
                tuple(trigger_of(row) for row in rows if row.status == "released"),
                frozenset(hashes),
            )

    def publish(self, found: Sequence[Trigger], replaced: Mapping[str, str], source: str, most: int) -> Published:
        """Add triggers, and note which of those that are here a better picture stands for now.

        Args:
            found: triggers to add, unless they are here in another reconstruction.
            replaced: the id of the better picture's trigger by the id of the replaced one.
            source: where they come from: "search", "rule" or "file".
            most: triggers that may be active; those beyond are not added, so that the oldest stay.

        Raises:
            StoreError: the database cannot be written.
        """
        with self.transaction() as connection:
            # First, so that two processes that publish come one after the other.
            bump(connection)
            for old, better in replaced.items():
                connection.execute(
                    sa.update(triggers)
                    .where(triggers.c.id == old, triggers.c.status == "active")
                    .values(status="replaced", successor=better)
                )
            rows = connection.execute(sa.select(triggers)).all()
            known = {row.id for row in rows}
            active = [trigger_of(row) for row in rows if row.status == "active"]
            stands_for: dict[str, str] = {}
            dropped = 0
            for trigger in found:
                standing = next((other for other in active if same(other, trigger)), None)
                if standing is not None:
                    stands_for[trigger.id] = standing.id
                elif len(active) >= most:
                    dropped += 1
                elif trigger.id in known:  # a picture that was replaced is the best one again
                    connection.execute(
                        sa.update(triggers)
                        .where(triggers.c.id == trigger.id, triggers.c.status == "replaced")
                        .values(status="active", successor="")
                    )
                    active.append(trigger)
                else:
                    connection.execute(sa.insert(triggers).values(row_of(trigger, source)))
                    active.append(trigger)
            return Published(stands_for, dropped)

    def set_status(self, trigger_id: str, status: str) -> bool:
        """Release a trigger ("released"), or let it fire again ("active"); return whether there is such a trigger.

        Raises:
            StoreError: the database cannot be written.
        """
        with self.transaction() as connection:
            bump(connection)
            changed = connection.execute(
                sa.update(triggers)
                .where(triggers.c.id == trigger_id, triggers.c.status != "replaced")
                .values(status=status)
            )
            return changed.rowcount == 1

    def review(self, request: str, position: int, review: str) -> bool:
        """Note what a person decided of an input, "confirmed" or "released"; return whether there is such an input.

        Raises:
            StoreError: the database cannot be written.
        """
        with self.transaction() as connection:
            bump(connection)
            changed = connection.execute(
                sa.update(inputs)
                .where(inputs.c.request == request, inputs.c.position == position)
                .values(review=review)
            )
            return changed.rowcount == 1

    # Retention.

    def size(self) -> int:
        """Return about how many bytes records and pictures take.

        Raises:
            StoreError: the database cannot be read.
        """
        with self.transaction() as connection:
            n_rows = connection.execute(sa.select(sa.func.count()).select_from(inputs)).scalar_one()
            n_bytes = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(pictures.c.size), 0))).scalar_one()
        return int(n_rows) * ROW_BYTES + int(n_bytes)

    def expire(self, *, before: float, most_bytes: int, pending_before: float) -> int:
        """Delete what is too old or too much, and return how many records went.

        What a person confirmed or released stays. Where there is too much, the oldest inputs without a trigger go
        first, then the latest with one: the oldest evidence of a trigger is what says since when it has been used.
        Inputs whose search never came, because their worker died, are marked as not searched.

        Args:
            before: records of an earlier time go, seconds since 1970.
            most_bytes: what ``size`` may be.
            pending_before: pending records of an earlier time have lost their search.

        Raises:
            StoreError: the database cannot be written.
        """
        free = inputs.c.review == ""
        with self.transaction() as connection:
            connection.execute(
                sa.update(inputs)
                .where(inputs.c.verdict == Verdict.PENDING, inputs.c.time < pending_before)
                .values(verdict=Verdict.UNSEARCHED)
            )
            gone = delete(connection, sa.and_(free, inputs.c.time < before))
        excess = self.size() - most_bytes
        for which, order in (
            (inputs.c.verdict != Verdict.TROJANED, inputs.c.time.asc()),
            (inputs.c.verdict == Verdict.TROJANED, inputs.c.time.desc()),
        ):
            while excess > 0:
                some = (
                    sa.select(inputs.c.request, inputs.c.position)
                    .where(free, which)
                    .order_by(order)
                    .limit(max(min(-(-excess // ROW_BYTES), 10_000), 1))
                ).subquery()
                with self.transaction() as connection:
                    n = delete(connection, sa.tuple_(inputs.c.request, inputs.c.position).in_(sa.select(some)))
                if not n:
                    break
                gone += n
                excess = self.size() - most_bytes
        return gone


@dataclass(frozen=True)
class Published:
    """What became of triggers that were found.

    Attributes:
        stands_for: by the id of a trigger that was here in another reconstruction, the id of that.
        dropped: triggers that were one too many.
    """

    stands_for: dict[str, str]
    dropped: int


@dataclass(frozen=True)
class Snapshot:
    """What all workers agree on.

    Attributes:
        version: rises with every change.
        active: the triggers that fire, oldest first.
        released: those that must not.
        passed: fingerprints of the inputs that a person released.
    """

    version: int
    active: tuple[Trigger, ...]
    released: tuple[Trigger, ...]
    passed: frozenset[str]


def unusable(error: Exception, done: str = "used") -> StoreError:
    """Return what an error of the database or its driver comes to; ``done`` is what the records cannot be."""
    cause = getattr(error, "orig", None) or error
    return StoreError(f"the records cannot be {done}: {str(cause).splitlines()[0]}")


def set_up_sqlite(connection: Any, _: Any) -> None:
    """Set a new SQLite connection up: what is committed is on disk, and readers do not wait for writers."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def bump(connection: sa.Connection) -> int:
    """Raise the registry's version and return it."""
    connection.execute(sa.update(registry_version).values(version=registry_version.c.version + 1))
    return int(connection.execute(sa.select(registry_version.c.version)).scalar_one())


def delete(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    """Delete records and their pictures, and return how many."""
    return connection.execute(sa.delete(inputs).where(condition)).rowcount


def row_of(trigger: Trigger, source: str) -> dict[str, Any]:
    """Return a new trigger as a row of its table."""
    height, width = trigger.mask.shape
    return {
        "id": trigger.id,
        "patch": trigger.patch.tobytes(),
        "mask": trigger.mask.astype(np.uint8).tobytes(),
        "height": height,
        "width": width,
        "channels": trigger.patch.shape[2],
        "top": trigger.position[0],
        "left": trigger.position[1],
        "anywhere": trigger.anywhere,
        "target": trigger.target,
        "flip_rate": trigger.flip_rate,
        "n_confirmed": trigger.n_confirmed,
        "status": "active",
        "source": source,
        "successor": "",
        "found": time.time(),
    }


def trigger_of(row: Any) -> Trigger:
    """Return the trigger in a row of its table.

    Raises:
        StoreError: the row is damaged.
    """
    try:
        trigger = Trigger(
            patch=np.frombuffer(row.patch, np.uint8).reshape(row.height, row.width, row.channels),
            mask=np.frombuffer(row.mask, np.uint8).reshape(row.height, row.width) > 0,
            position=(row.top, row.left),
            anywhere=row.anywhere,
            target=row.target,
            flip_rate=row.flip_rate,
            n_confirmed=row.n_confirmed,
        )
    except ValueError:
        raise StoreError(f"the record of the trigger {row.id} is damaged") from None
    if trigger.id != row.id:
        raise StoreError(f"the record of the trigger {row.id} is damaged")
    return trigger


def fingerprint(image: Images) -> str:
    """Return the SHA-256 of an image's shape and pixels, ``uint8 (H, W, C)``."""
    return hashlib.sha256(np.array(image.shape, dtype="<u4").tobytes() + image.tobytes()).hexdigest()


def as_png(image: Images) -> bytes:
    """Return an image ``uint8 (H, W, C)`` as PNG."""
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[2] == 1 else image
    Picture.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def from_png(png: bytes) -> Images:
    """Return the image ``uint8 (H, W, C)`` in a PNG of ours."""
    with Picture.open(io.BytesIO(png), formats=["PNG"]) as opened:
        pixels = np.array(opened, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
