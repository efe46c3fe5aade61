"""The tables of the records; ``migrations`` makes them."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

metadata = MetaData()

inputs = Table(
    "inputs",
    metadata,
    Column("request", String(32), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("label", Integer, nullable=False),
    Column("corrected", Integer, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("score", Float(53), nullable=True),
    Column("trigger", String(12), nullable=False),
    Column("action", String(16), nullable=False),
    Column("revised", Float(53), nullable=True),
    Column("review", String(16), nullable=False, server_default=text("''")),
    Index("inputs_time", "time"),
    Index("inputs_verdict_time", "verdict", "time"),
    Index("inputs_trigger", "trigger"),
    Index("inputs_review", "review"),
)
"""One row per screened input.

``verdict`` is a value of ``Verdict``, ``action`` one of ``Action``, ``review`` "", "confirmed" or "released"; ``time``
and ``revised`` are seconds since 1970, ``revised`` when the verdict was changed after the answer.
"""

pictures = Table(
    "pictures",
    metadata,
    Column("request", String(32), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("png", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    ForeignKeyConstraint(["request", "position"], ["inputs.request", "inputs.position"], ondelete="CASCADE"),
)
"""The inputs that are kept, as PNG; ``size`` is in bytes."""

triggers = Table(
    "triggers",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("patch", LargeBinary, nullable=False),
    Column("mask", LargeBinary, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("channels", Integer, nullable=False),
    Column("top", Integer, nullable=False),
    Column("left", Integer, nullable=False),
    Column("anywhere", Boolean, nullable=False),
    Column("target", Integer, nullable=True),
    Column("flip_rate", Float(53), nullable=False),
    Column("n_confirmed", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("successor", String(12), nullable=False),
    Column("found", Float(53), nullable=False),
    Index("triggers_status", "status"),
)
"""The triggers; ``status`` is "active", "released" or "replaced", by the better picture that ``successor`` names.

``patch`` holds the pixels and ``mask`` one byte per pixel, both in row order; ``source`` is "search", "rule" or "file".
"""

registry_version = Table(
    "registry_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
)
"""One row; its version rises when a trigger changes or a person decides something, so that all workers see it."""
