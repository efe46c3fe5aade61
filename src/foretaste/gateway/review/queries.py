"""What the review page asks the records."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from foretaste.gateway.records.store import Store, Verdict, from_png, trigger_of
from foretaste.gateway.records.tables import inputs, pictures, triggers
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images

PER_PAGE = 24
"""Inputs on a page of the quarantine."""


@dataclass(frozen=True)
class TriggerRow:
    """A trigger on the page.

    Attributes:
        trigger: the trigger.
        status: "active" or "released".
        source: "search", "rule" or "file".
        found: when it became known, seconds since 1970.
        count: inputs on record that carry it.
        first: the time of the first of them, None if there is none.
        latest: the time of the latest, None if there is none.
    """

    trigger: Trigger
    status: str
    source: str
    found: float
    count: int
    first: float | None
    latest: float | None


@dataclass(frozen=True)
class InputRow:
    """An input on the page; the fields are the columns of ``inputs``."""

    request: str
    position: int
    time: float
    label: int
    corrected: int
    verdict: str
    score: float | None
    trigger: str
    action: str
    revised: float | None
    review: str
    pictured: bool


def counts(store: Store, seconds: float) -> dict[str, int]:
    """Return how many inputs of the last seconds have which verdict."""
    counted = (
        sa.select(inputs.c.verdict, sa.func.count())
        .where(inputs.c.time >= time.time() - seconds)
        .group_by(inputs.c.verdict)
    )
    with store.transaction() as connection:
        found = {str(verdict): int(n) for verdict, n in connection.execute(counted)}
    return {verdict.value: found.get(verdict, 0) for verdict in Verdict}


def n_requests(store: Store, seconds: float) -> int:
    """Return how many screened requests there were in the last seconds."""
    counted = sa.select(sa.func.count(sa.distinct(inputs.c.request))).where(inputs.c.time >= time.time() - seconds)
    with store.transaction() as connection:
        return int(connection.execute(counted).scalar_one())


def trigger_rows(store: Store) -> list[TriggerRow]:
    """Return the triggers with what is on record of each, those in use latest first.

    What was recorded under a picture that a better one stands for now is counted with that.
    """
    seen = sa.select(
        inputs.c.trigger, sa.func.count(), sa.func.min(inputs.c.time), sa.func.max(inputs.c.time)
    ).group_by(inputs.c.trigger)
    with store.transaction() as connection:
        rows = connection.execute(sa.select(triggers)).all()
        tallies = connection.execute(seen.where(inputs.c.trigger != "")).all()
    successors = {row.id: row.successor for row in rows if row.status == "replaced"}
    together: dict[str, list[Any]] = {}
    for trigger_id, n, first, latest in tallies:
        together.setdefault(latest_id(trigger_id, successors), []).append((n, first, latest))
    found = []
    for row in rows:
        if row.status == "replaced":
            continue
        tally = together.get(row.id, [])
        found.append(
            TriggerRow(
                trigger_of(row),
                row.status,
                row.source,
                row.found,
                sum(n for n, _, _ in tally),
                min((first for _, first, _ in tally), default=None),
                max((latest for _, _, latest in tally), default=None),
            )
        )
    return sorted(found, key=lambda row: (row.status != "active", -(row.latest or row.found)))


def latest_id(trigger_id: str, successors: dict[str, str]) -> str:
    """Return the id that a trigger has now."""
    visited = set()
    while successors.get(trigger_id) and trigger_id not in visited:
        visited.add(trigger_id)
        trigger_id = successors[trigger_id]
    return trigger_id


def find_trigger(store: Store, trigger_id: str) -> Trigger | None:
    """Return a trigger, in force or not."""
    with store.transaction() as connection:
        row = connection.execute(sa.select(triggers).where(triggers.c.id == trigger_id)).one_or_none()
    return None if row is None else trigger_of(row)


def quarantine(store: Store, *, page: int, trigger: str = "") -> tuple[list[InputRow], bool]:
    """Return a page of the trojaned inputs, latest first, and whether there is another one.

    Args:
        store: the records.
        page: from 0.
        trigger: only those with this trigger, or "" for all.
    """
    chosen = columns().where(inputs.c.verdict == Verdict.TROJANED)
    if trigger:
        chosen = chosen.where(inputs.c.trigger == trigger)
    chosen = chosen.order_by(inputs.c.time.desc(), inputs.c.request, inputs.c.position)
    with store.transaction() as connection:
        rows = connection.execute(chosen.offset(page * PER_PAGE).limit(PER_PAGE + 1)).all()
    return [InputRow(*row) for row in rows[:PER_PAGE]], len(rows) > PER_PAGE


def find_input(store: Store, request: str, position: int) -> InputRow | None:
    """Return one input."""
    with store.transaction() as connection:
        row = connection.execute(
            columns().where(inputs.c.request == request, inputs.c.position == position)
        ).one_or_none()
    return None if row is None else InputRow(*row)


def find_image(store: Store, request: str, position: int) -> Images | None:
    """Return the pixels ``uint8 (H, W, C)`` of an input, if they are kept."""
    with store.transaction() as connection:
        png = connection.execute(
            sa.select(pictures.c.png).where(pictures.c.request == request, pictures.c.position == position)
        ).scalar_one_or_none()
    return None if png is None else from_png(png)


def columns() -> sa.Select[Any]:
    """Return the query for the columns of ``InputRow``."""
    return sa.select(
        inputs.c.request,
        inputs.c.position,
        inputs.c.time,
        inputs.c.label,
        inputs.c.corrected,
        inputs.c.verdict,
        inputs.c.score,
        inputs.c.trigger,
        inputs.c.action,
        inputs.c.revised,
        inputs.c.review,
        pictures.c.request.is_not(None),
    ).join_from(
        inputs,
        pictures,
        sa.and_(inputs.c.request == pictures.c.request, inputs.c.position == pictures.c.position),
        isouter=True,
    )


def rule(image: Images, *, box: tuple[int, int, int, int], anywhere: bool, target: int) -> Trigger:
    """Return the trigger that a part of an input makes.

    Args:
        image: ``uint8 (H, W, C)``.
        box: top, left, height and width of the part, in pixels, inside the image.
        anywhere: whether it is looked for in all places.
        target: the label that it forces.
    """
    top, left, height, width = box
    return Trigger(
        patch=np.ascontiguousarray(image[top : top + height, left : left + width]),
        mask=np.ones((height, width), dtype=np.bool_),
        position=(top, left),
        anywhere=anywhere,
        target=target,
        flip_rate=0.0,
        n_confirmed=0,
    )


def when(seconds: float | None) -> str:
    """Return a time for people, in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
