"""The tables as they were first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "inputs",
        sa.Column("request", sa.String(32), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("corrected", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("score", sa.Float(53), nullable=True),
        sa.Column("trigger", sa.String(12), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("revised", sa.Float(53), nullable=True),
        sa.Column("review", sa.String(16), nullable=False, server_default=sa.text("''")),
    )
    op.create_index("inputs_time", "inputs", ["time"])
    op.create_index("inputs_verdict_time", "inputs", ["verdict", "time"])
    op.create_index("inputs_trigger", "inputs", ["trigger"])
    op.create_index("inputs_review", "inputs", ["review"])
    op.create_table(
        "pictures",
        sa.Column("request", sa.String(32), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("png", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["request", "position"], ["inputs.request", "inputs.position"], ondelete="CASCADE"),
    )
    op.create_table(
        "triggers",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("patch", sa.LargeBinary, nullable=False),
        sa.Column("mask", sa.LargeBinary, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("top", sa.Integer, nullable=False),
        sa.Column("left", sa.Integer, nullable=False),
        sa.Column("anywhere", sa.Boolean, nullable=False),
        sa.Column("target", sa.Integer, nullable=True),
        sa.Column("flip_rate", sa.Float(53), nullable=False),
        sa.Column("n_confirmed", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("successor", sa.String(12), nullable=False),
        sa.Column("found", sa.Float(53), nullable=False),
    )
    op.create_index("triggers_status", "triggers", ["status"])
    version = op.create_table(
        "registry_version",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.bulk_insert(version, [{"id": 1, "version": 0}])
