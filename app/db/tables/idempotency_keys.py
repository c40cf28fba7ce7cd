"""Idempotency keys: which job a client's key stands for, per team."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    Column("team_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    Column("expires_at", Instant, nullable=False),
    Index("idempotency_keys_expiry", "expires_at"),
)
