"""Attempts: one row per paid call, written before a byte is sent and never overwritten.

`intent` is the promise that a call may be sent; found after a crash, it means "may have been sent".
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, SmallInteger, Table, Text

from app.db.tables.metadata import METADATA, where
from app.db.types import Instant, JsonColumn, now

_OPEN = "state IN ('intent', 'accepted')"

attempts = Table(
    "attempts",
    METADATA,
    # Made by the worker before the transaction; also the upstream's Idempotency-Key.
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    # Attempts opened together, each for a part of the pictures, share a round; `max_attempts` counts rounds.
    Column("round", SmallInteger, nullable=False),
    Column("upstream", Text, nullable=False),
    # Everything needed to ask after the order when the catalog has changed; no secrets.
    Column("target", JsonColumn, nullable=False),
    Column("pictures", SmallInteger, nullable=False),
    # The lease token of its sender; only that sender may say that nothing was bought.
    Column("owner_token", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("ticket", Text),
    Column("failure", Text),
    Column("detail", Text),
    Column("param", Text),
    Column("opened_at", Instant, nullable=False, default=now()),
    # Until then the sender may be alive and cut off from us, so nobody else may judge the outcome.
    Column("outcome_due", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("usage", JsonColumn),
    # What the vendor said it made: size, quality, background, output_format.
    Column("resolved", JsonColumn),
    Column("hold_micros", BigInteger),
    Column("cost_micros", BigInteger),
    Column("certainty", Text),
    # What its pictures would have cost at the dearest route, for the savings in reports.
    Column("dearest_micros", BigInteger),
    Column("settled", Text),
    CheckConstraint("state IN ('intent', 'accepted', 'succeeded', 'unpaid', 'unknown')", name="state_known"),
    CheckConstraint("settled IN ('spent', 'released')", name="settled_known"),
    CheckConstraint("certainty IN ('actual', 'estimated', 'possible', 'unpriced')", name="certainty_known"),
    CheckConstraint("state <> 'accepted' OR ticket IS NOT NULL", name="accepted_has_ticket"),
    CheckConstraint(f"({_OPEN}) = (finished_at IS NULL)", name="ended_is_dated"),
    CheckConstraint(f"({_OPEN}) = (settled IS NULL)", name="ended_is_settled"),
    CheckConstraint("pictures >= 1", name="covers_something"),
    CheckConstraint("failure IS NULL OR state IN ('unpaid', 'unknown')", name="failure_has_no_picture"),
    Index("attempts_by_job", "job_id", "number", unique=True),
    # The same order at a vendor never answers two attempts.
    Index(
        "attempts_ticket",
        "upstream",
        "ticket",
        unique=True,
        **where("ticket IS NOT NULL"),
    ),
    Index("attempts_open", "upstream", "job_id", **where(_OPEN)),
    # The rate of an upstream over all workers is counted here.
    Index("attempts_rate", "upstream", "opened_at"),
    # Reports on spend are made for a span of time.
    Index("attempts_by_time", "opened_at"),
)
