"""Webhook secrets: what a team's deliveries are signed with, sealed. The one without an end is the current one."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text

from app.db.tables.metadata import METADATA, where
from app.db.types import Instant, now

webhook_secrets = Table(
    "webhook_secrets",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    # By app.kit.sealing, for `webhook_secrets|ID|sealed`.
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    # When an operator saw it; null while nobody has.
    Column("shown_at", Instant),
    # Of a secret that was rotated: signs beside the current one until then.
    Column("expires_at", Instant),
    Index("webhook_secrets_current", "team_id", unique=True, **where("expires_at IS NULL")),
    Index("webhook_secrets_by_team", "team_id", "created_at"),
)
