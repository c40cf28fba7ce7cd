"""Webhook deliveries: one event on its way to one receiver, and what became of each try."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from app.db.tables.metadata import METADATA, where
from app.db.types import Instant, JsonColumn, now

webhook_deliveries = Table(
    "webhook_deliveries",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("event_id", Text, ForeignKey("webhook_events.id"), nullable=False),
    # Those of the event, so that no query has to join.
    Column("team_id", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    # NULL: to the URL that came with the request.
    Column("endpoint_id", Text, ForeignKey("webhook_endpoints.id")),
    Column("url", Text, nullable=False),
    # What is spared: the endpoint's id, or the origin of the request's URL. A few deliveries at once go to each.
    Column("receiver", Text, nullable=False),
    # The earlier delivery that an operator sends again with this one.
    Column("resent_from", Text),
    Column("status", Text, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    Column("next_at", Instant, nullable=False),
    # A failure after this is the last one.
    Column("ends_at", Instant, nullable=False),
    # The fence: grows with every claim; a failure counts only from its current holder.
    Column("claims", BigInteger, nullable=False, default=0),
    # While a worker sends; should it die, another one sends again after this.
    Column("lease_until", Instant),
    Column("tries", Integer, nullable=False, default=0),
    # [{at, status, error, duration_ms}], oldest first.
    Column("history", JsonColumn, nullable=False),
    # The start of the last answer's body, for operators alone.
    Column("answer", Text),
    Column("finished_at", Instant),
    CheckConstraint("status IN ('pending', 'succeeded', 'failed')", name="status_known"),
    CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="ended_is_dated"),
    CheckConstraint("status = 'pending' OR lease_until IS NULL", name="ended_has_no_lease"),
    Index("webhook_deliveries_due", "next_at", **where("status = 'pending'")),
    Index("webhook_deliveries_under_way", "receiver", "lease_until", **where("lease_until IS NOT NULL")),
    Index("webhook_deliveries_to_endpoint", "endpoint_id", **where("status = 'pending'")),
    # An event goes to each receiver once, unless an operator sends it again.
    Index(
        "webhook_deliveries_once",
        "event_id",
        "receiver",
        "url",
        unique=True,
        **where("resent_from IS NULL"),
    ),
    # Lists, newest first: everybody's, a team's and a job's.
    Index("webhook_deliveries_by_time", "created_at", "id"),
    Index("webhook_deliveries_by_team", "team_id", "created_at", "id"),
    Index("webhook_deliveries_by_job", "job_id", "created_at", "id"),
    Index("webhook_deliveries_by_event", "event_id", "created_at", "id"),
)
