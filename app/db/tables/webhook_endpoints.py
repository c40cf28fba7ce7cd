"""Webhook endpoints: where a team wants to be told of the ends of all its jobs. A deleted one stays, for the record."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text

from app.db.tables.metadata import METADATA, where
from app.db.types import Instant, JsonColumn, now

webhook_endpoints = Table(
    "webhook_endpoints",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("url", Text, nullable=False),
    # The types of events that are sent there, such as `["job.failed"]`.
    Column("events", JsonColumn, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    # From then on every job's end is told; a little after the endpoint was switched on, so that no transaction that
    # began before is blamed.
    Column("owed_from", Instant, nullable=False),
    # Of the first failure since the last success; NULL while it works.
    Column("failing_since", Instant),
    Column("disabled_at", Instant),
    # Why: `gone` (it answered 410) or `failing` (for days).
    Column("disabled_reason", Text),
    Column("deleted_at", Instant),
    CheckConstraint("disabled_reason IN ('gone', 'failing')", name="disabled_reason_known"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_for_a_reason"),
    # Looked into at the end of every job.
    Index("webhook_endpoints_in_use", "team_id", **where("disabled_at IS NULL AND deleted_at IS NULL")),
    Index("webhook_endpoints_by_time", "created_at", "id"),
)
