"""Budgets: what a team or a key may spend in one day or month, and how much of it is held and spent.

A row is made by the first job that a limit applies to in its period. `jobs.budgets` names the rows of a job, so what
it costs is booked where it was held, however long it takes.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

budgets = Table(
    "budgets",
    METADATA,
    # `team:ID:2027-01` or `key:ID:2027-01-31`; rows are locked in the order of their ids.
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("owner_id", Text, nullable=False),
    # A day or a month in UTC, as the id has it.
    Column("period", Text, nullable=False),
    # The limit that was in force when the last job asked.
    Column("limit_micros", BigInteger, nullable=False),
    # What the period had cost, and still held, when the row was made; a part of `spent_micros`.
    Column("opening_micros", BigInteger, nullable=False),
    # The holds of its jobs' open attempts and of what they may still buy.
    Column("reserved_micros", BigInteger, nullable=False),
    Column("spent_micros", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    CheckConstraint("scope IN ('team', 'key')", name="scope_known"),
)
