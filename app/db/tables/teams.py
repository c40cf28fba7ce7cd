"""Teams: who pays, and owns keys, limits and jobs."""

from sqlalchemy import Column, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, JsonColumn, now

teams = Table(
    "teams",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("limits", JsonColumn, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
)
