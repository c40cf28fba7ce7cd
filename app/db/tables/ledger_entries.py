"""Ledger entries: each correction of a cost that had been booked, written once and never changed.

What an attempt costs stands on the attempt; its entries tell what was booked there before, and who knew better.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

ledger_entries = Table(
    "ledger_entries",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("attempt_id", Text, ForeignKey("attempts.id"), nullable=False),
    Column("at", Instant, nullable=False, default=now()),
    # delivered: pictures came after all; reconciled: a vendor's usage export said so.
    Column("reason", Text, nullable=False),
    # The counter-entry: what it adds to the booked cost, mostly below zero.
    Column("amount_micros", BigInteger, nullable=False),
    # The attempt's cost from then on, and what it was taken for before.
    Column("cost_micros", BigInteger, nullable=False),
    Column("was", Text, nullable=False),
    CheckConstraint("reason IN ('delivered', 'reconciled')", name="reason_known"),
    Index("ledger_entries_by_attempt", "attempt_id", "at"),
)
