"""Jobs: one row per request, the queue, the lease and the final record in one.

`to_buy` is the lock against buying twice: how many of the job's pictures may still be bought. It is lowered in the
transaction that opens an attempt, and raised only when an attempt ends without having been paid.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
)

from app.db.tables.metadata import METADATA, where
from app.db.types import Instant, JsonColumn, now

_FINAL = "status IN ('succeeded', 'failed', 'cancelled', 'expired')"

jobs = Table(
    "jobs",
    METADATA,
    # Made by the API process before the transaction, so that a COMMIT whose answer is lost can be repeated.
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("operation", Text, nullable=False),
    # The dialect that the client spoke, so that `GET /v1/jobs/{id}` answers in it.
    Column("dialect", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("catalog_version", Text, nullable=False),
    Column("request", JsonColumn, nullable=False),
    Column("n", SmallInteger, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("metadata", JsonColumn, nullable=False),
    Column("webhook_url", Text),
    # 0 high, 1 normal, 2 low.
    Column("priority", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),
    # The fence: grows with every claim and every loss of a lease, and never goes back.
    Column("lease_token", BigInteger, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", Instant),
    # Claims that did not end in an orderly way; a job that kills its workers is stopped by this count.
    Column("claims", Integer, nullable=False, default=0),
    Column("available_at", Instant, nullable=False, default=now()),
    Column("deadline_at", Instant, nullable=False),
    # When it is cancelled by itself, before its deadline; NULL when its client set no such limit.
    Column("cancel_at", Instant),
    Column("to_buy", SmallInteger, nullable=False),
    # How many attempts with an unknown outcome may be bought again: 1 under `on_unknown_outcome: failover`.
    Column("spare", SmallInteger, nullable=False),
    # The hold for each picture in `to_buy`; NULL when no price is known.
    Column("picture_hold_micros", BigInteger),
    # The ids of the budgets that it counts towards, in their order; NULL when no limit was in force.
    Column("budgets", JsonColumn),
    Column("error", JsonColumn),
    Column("result", JsonColumn),
    Column("created_at", Instant, nullable=False, default=now()),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("expires_at", Instant, nullable=False),
    # Set by retention once the pictures are gone; the record and its cost stay.
    Column("purged_at", Instant),
    # While a caller is held for the answer, its process renews this; lapsed and not delivered, the caller was cut
    # off, and the SDK's retry may take its place (reliability 3.5).
    Column("waited_until", Instant),
    Column("delivered_at", Instant),
    # The SDK's retry count of the call that waits for this job; only a higher one may adopt it.
    Column("caller_retry", Integer, nullable=False, default=0),
    Column("requeued_from", Text),
    # The span that the job was handed in under, as a W3C `traceparent`; NULL when nothing was traced.
    Column("trace_parent", Text),
    # Grows with every change that a client can see; the id of the job's events.
    Column("revision", Integer, nullable=False, default=0),
    CheckConstraint(
        "status IN ('queued', 'in_progress', 'succeeded', 'failed', 'cancelled', 'expired')",
        name="status_known",
    ),
    CheckConstraint("status <> 'queued' OR lease_until IS NULL", name="queued_has_no_lease"),
    CheckConstraint("status <> 'in_progress' OR lease_until IS NOT NULL", name="in_progress_has_lease"),
    CheckConstraint(f"({_FINAL}) = (finished_at IS NOT NULL)", name="final_is_dated"),
    CheckConstraint("status <> 'succeeded' OR result IS NOT NULL", name="succeeded_has_result"),
    CheckConstraint("to_buy BETWEEN 0 AND n", name="to_buy_within_n"),
    CheckConstraint("spare BETWEEN 0 AND 1", name="spare_at_most_one"),
    CheckConstraint("n BETWEEN 1 AND 100", name="n_sane"),
    # The queue: teams in turn, then priority, then age.
    Index(
        "jobs_queue",
        "team_id",
        "priority",
        "created_at",
        "id",
        **where("status = 'queued'"),
    ),
    Index(
        "jobs_in_progress",
        "team_id",
        **where("status = 'in_progress'"),
    ),
    Index(
        "jobs_lease",
        "lease_until",
        **where("lease_until IS NOT NULL"),
    ),
    Index("jobs_deadline", "deadline_at", **where("status = 'queued'")),
    Index(
        "jobs_time_limit",
        "cancel_at",
        **where("status IN ('queued', 'in_progress') AND cancel_at IS NOT NULL"),
    ),
    # Waiting jobs that a worker took and did not give back in order; those with too many claims are ended.
    Index("jobs_claimed", "claims", **where("status = 'queued' AND claims > 0")),
    # Lists, newest first: everybody's for operators, and each team's.
    Index("jobs_by_time", "created_at", "id"),
    Index("jobs_by_team", "team_id", "created_at", "id"),
    Index("jobs_by_team_status", "team_id", "status", "created_at", "id"),
    Index("jobs_by_team_model", "team_id", "model", "created_at", "id"),
    Index("jobs_expiry", "expires_at", **where("purged_at IS NULL")),
    # Adoption looks only at jobs whose caller was cut off or is still waiting.
    Index(
        "jobs_undelivered",
        "api_key_id",
        "fingerprint",
        "created_at",
        **where("delivered_at IS NULL"),
    ),
)
