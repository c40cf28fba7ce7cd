"""Audit entries: what operators did, written in the transaction of the act and never changed."""

from sqlalchemy import Column, Index, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, JsonColumn, now

audit_entries = Table(
    "audit_entries",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("at", Instant, nullable=False, default=now()),
    # Who: the key, and its name as it was then.
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text),
    # What, in the past tense (`key.revoked`), and to whom: an id or a name.
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("before", JsonColumn),
    Column("after", JsonColumn),
    Column("request_id", Text),
    Index("audit_entries_by_time", "at", "id"),
    Index("audit_entries_by_object", "object", "at", "id"),
)
