"""Switches: what operators turn on and off for all processes together."""

from sqlalchemy import Boolean, Column, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

switches = Table(
    "switches",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("is_on", Boolean, nullable=False),
    Column("changed_at", Instant, nullable=False, default=now()),
)
