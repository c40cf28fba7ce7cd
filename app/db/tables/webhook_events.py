"""The outbox: the end of a job that somebody wants to be told of, written in the transaction that ends the job.

A job's event is what its deliveries deliver, under one id however often it is sent.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

webhook_events = Table(
    "webhook_events",
    METADATA,
    # Sent as `webhook-id`.
    Column("id", Text, primary_key=True),
    # A job ends once.
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    CheckConstraint(
        "type IN ('job.succeeded', 'job.failed', 'job.cancelled', 'job.expired')", name="type_known"
    ),
    # What is sent again by a range of time.
    Index("webhook_events_by_time", "created_at", "id"),
)
