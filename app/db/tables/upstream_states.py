"""Upstream states: what all workers know together about an upstream's health, and what operators decided."""

from sqlalchemy import CheckConstraint, Column, Integer, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

upstream_states = Table(
    "upstream_states",
    METADATA,
    Column("upstream", Text, primary_key=True),
    # Empty: the whole upstream; else the upstream's model name (a pair set aside, or one model's health).
    Column("model", Text, primary_key=True),
    # An operator's word: on, off or draining.
    Column("switch", Text, nullable=False, default="on"),
    # Not asked before this; why, in a failure kind.
    Column("away_until", Instant),
    Column("away_for", Text),
    # Failures in a row that count (house style 6), and how often that led to being ejected.
    Column("failures", Integer, nullable=False, default=0),
    Column("ejections", Integer, nullable=False, default=0),
    Column("updated_at", Instant, nullable=False, default=now()),
    CheckConstraint("switch IN ('on', 'off', 'draining')", name="switch_known"),
)
