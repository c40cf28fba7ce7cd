"""The outbox of job ends, their deliveries, and who receives them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "type IN ('job.succeeded', 'job.failed', 'job.cancelled', 'job.expired')",
            name=op.f("webhook_events_type_known"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("webhook_events_job_id_fkey")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("webhook_events_team_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_events_pkey")),
        sa.UniqueConstraint("job_id", name=op.f("webhook_events_job_id_key")),
    )
    op.create_index("webhook_events_by_time", "webhook_events", ["created_at", "id"])
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("owed_from", INSTANT, nullable=False),
        sa.Column("failing_since", INSTANT, nullable=True),
        sa.Column("disabled_at", INSTANT, nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("deleted_at", INSTANT, nullable=True),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)",
            name=op.f("webhook_endpoints_disabled_for_a_reason"),
        ),
        sa.CheckConstraint(
            "disabled_reason IN ('gone', 'failing')", name=op.f("webhook_endpoints_disabled_reason_known")
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("webhook_endpoints_team_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_endpoints_pkey")),
    )
    op.create_index("webhook_endpoints_by_time", "webhook_endpoints", ["created_at", "id"])
    _index(
        "webhook_endpoints_in_use",
        "webhook_endpoints",
        ["team_id"],
        "disabled_at IS NULL AND deleted_at IS NULL",
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("webhook_secrets_team_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_secrets_pkey")),
    )
    op.create_index("webhook_secrets_by_team", "webhook_secrets", ["team_id", "created_at"])
    _index("webhook_secrets_current", "webhook_secrets", ["team_id"], "expires_at IS NULL", unique=True)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("resent_from", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("next_at", INSTANT, nullable=False),
        sa.Column("ends_at", INSTANT, nullable=False),
        sa.Column("claims", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("history", DOCUMENT, nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.CheckConstraint(
            "(status = 'pending') = (finished_at IS NULL)", name=op.f("webhook_deliveries_ended_is_dated")
        ),
        sa.CheckConstraint(
            "status = 'pending' OR lease_until IS NULL", name=op.f("webhook_deliveries_ended_has_no_lease")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'succeeded', 'failed')", name=op.f("webhook_deliveries_status_known")
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name=op.f("webhook_deliveries_endpoint_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["webhook_events.id"], name=op.f("webhook_deliveries_event_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_deliveries_pkey")),
    )
    for name, first in (("time", []), ("team", ["team_id"]), ("job", ["job_id"]), ("event", ["event_id"])):
        op.create_index(f"webhook_deliveries_by_{name}", "webhook_deliveries", [*first, "created_at", "id"])
    _index("webhook_deliveries_due", "webhook_deliveries", ["next_at"], "status = 'pending'")
    _index("webhook_deliveries_to_endpoint", "webhook_deliveries", ["endpoint_id"], "status = 'pending'")
    _index(
        "webhook_deliveries_under_way",
        "webhook_deliveries",
        ["receiver", "lease_until"],
        "lease_until IS NOT NULL",
    )
    _index(
        "webhook_deliveries_once",
        "webhook_deliveries",
        ["event_id", "receiver", "url"],
        "resent_from IS NULL",
        unique=True,
    )


def _index(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, postgresql_where=where, sqlite_where=where)
