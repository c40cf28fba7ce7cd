"""The first tables, and the guard that keeps a final job final."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

POSTGRES_GUARD = (
    """
    CREATE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.status IN ('succeeded', 'failed', 'cancelled', 'expired') AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'a final job never changes' USING ERRCODE = 'DK001'; END IF;
      IF NEW.lease_token < OLD.lease_token THEN
        RAISE EXCEPTION 'the fence went backwards' USING ERRCODE = 'DK002'; END IF;
      RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER jobs_guard BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_guard()",
    """
    CREATE FUNCTION attempts_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.settled = 'spent' AND NEW.settled IS DISTINCT FROM 'spent' OR OLD.settled = 'released' THEN
        RAISE EXCEPTION 'an attempt is settled once' USING ERRCODE = 'DK003'; END IF;
      RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER attempts_guard BEFORE UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION attempts_guard()",
    # Rows of these tables are rewritten several times in their short life.
    "ALTER TABLE jobs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)",
    "ALTER TABLE attempts SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)",
)
SQLITE_GUARD = (
    """
    CREATE TRIGGER jobs_guard BEFORE UPDATE OF status ON jobs
    WHEN OLD.status IN ('succeeded', 'failed', 'cancelled', 'expired') AND NEW.status <> OLD.status
    BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END
    """,
    """
    CREATE TRIGGER jobs_fence BEFORE UPDATE OF lease_token ON jobs WHEN NEW.lease_token < OLD.lease_token
    BEGIN SELECT RAISE(ABORT, 'the fence went backwards'); END
    """,
    """
    CREATE TRIGGER attempts_guard BEFORE UPDATE OF settled ON attempts
    WHEN OLD.settled = 'released' OR OLD.settled = 'spent' AND NEW.settled IS NOT 'spent'
    BEGIN SELECT RAISE(ABORT, 'an attempt is settled once'); END
    """,
)


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("team_id", "key", name=op.f("idempotency_keys_pkey")),
    )
    op.create_index("idempotency_keys_expiry", "idempotency_keys", ["expires_at"], unique=False)
    op.create_table(
        "teams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("limits", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("teams_pkey")),
        sa.UniqueConstraint("name", name=op.f("teams_name_key")),
    )
    op.create_table(
        "upstream_states",
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("switch", sa.Text(), nullable=False),
        sa.Column("away_until", INSTANT, nullable=True),
        sa.Column("away_for", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("ejections", sa.Integer(), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("switch IN ('on', 'off', 'draining')", name=op.f("upstream_states_switch_known")),
        sa.PrimaryKeyConstraint("upstream", "model", name=op.f("upstream_states_pkey")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("lookup", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("limits", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("revoked_at", INSTANT, nullable=True),
        sa.CheckConstraint("role IN ('team', 'admin', 'admin_read')", name=op.f("api_keys_role_known")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("api_keys_team_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("lookup", name=op.f("api_keys_lookup_key")),
    )
    op.create_index("api_keys_team", "api_keys", ["team_id", "created_at", "id"], unique=False)
    op.create_table(
        "assets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("attempt_id", sa.Text(), nullable=True),
        sa.Column("index", sa.SmallInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "kind IN ('result', 'late', 'partial', 'upload', 'input')", name=op.f("assets_kind_known")
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("assets_team_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("assets_pkey")),
        sa.UniqueConstraint("key", name=op.f("assets_key_key")),
    )
    op.create_index(
        "assets_by_job",
        "assets",
        ["job_id", "index"],
        unique=False,
        postgresql_where=sa.text("job_id IS NOT NULL"),
        sqlite_where=sa.text("job_id IS NOT NULL"),
    )
    op.create_index("assets_by_team", "assets", ["team_id", "created_at", "id"], unique=False)
    op.create_index(
        "assets_inputs",
        "assets",
        ["job_id"],
        unique=False,
        postgresql_where=sa.text("kind = 'input'"),
        sqlite_where=sa.text("kind = 'input'"),
    )
    op.create_index("assets_expiry", "assets", ["expires_at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("catalog_version", sa.Text(), nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("n", sa.SmallInteger(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("available_at", INSTANT, nullable=False),
        sa.Column("deadline_at", INSTANT, nullable=False),
        sa.Column("to_buy", sa.SmallInteger(), nullable=False),
        sa.Column("spare", sa.SmallInteger(), nullable=False),
        sa.Column("picture_hold_micros", sa.BigInteger(), nullable=True),
        sa.Column("error", DOCUMENT, nullable=True),
        sa.Column("result", DOCUMENT, nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT, nullable=True),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("purged_at", INSTANT, nullable=True),
        sa.Column("waited_until", INSTANT, nullable=True),
        sa.Column("delivered_at", INSTANT, nullable=True),
        sa.Column("caller_retry", sa.Integer(), nullable=False),
        sa.Column("requeued_from", sa.Text(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed', 'cancelled', 'expired')) = (finished_at IS NOT NULL)",
            name=op.f("jobs_final_is_dated"),
        ),
        sa.CheckConstraint(
            "status <> 'in_progress' OR lease_until IS NOT NULL", name=op.f("jobs_in_progress_has_lease")
        ),
        sa.CheckConstraint(
            "status <> 'queued' OR lease_until IS NULL", name=op.f("jobs_queued_has_no_lease")
        ),
        sa.CheckConstraint(
            "status <> 'succeeded' OR result IS NOT NULL", name=op.f("jobs_succeeded_has_result")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'in_progress', 'succeeded', 'failed', 'cancelled', 'expired')",
            name=op.f("jobs_status_known"),
        ),
        sa.CheckConstraint("n BETWEEN 1 AND 100", name=op.f("jobs_n_sane")),
        sa.CheckConstraint("spare BETWEEN 0 AND 1", name=op.f("jobs_spare_at_most_one")),
        sa.CheckConstraint("to_buy BETWEEN 0 AND n", name=op.f("jobs_to_buy_within_n")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("jobs_team_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
    )
    op.create_index("jobs_by_time", "jobs", ["created_at", "id"], unique=False)
    op.create_index("jobs_by_team", "jobs", ["team_id", "created_at", "id"], unique=False)
    op.create_index("jobs_by_team_model", "jobs", ["team_id", "model", "created_at", "id"], unique=False)
    op.create_index("jobs_by_team_status", "jobs", ["team_id", "status", "created_at", "id"], unique=False)
    op.create_index(
        "jobs_claimed",
        "jobs",
        ["claims"],
        unique=False,
        postgresql_where=sa.text("status = 'queued' AND claims > 0"),
        sqlite_where=sa.text("status = 'queued' AND claims > 0"),
    )
    op.create_index(
        "jobs_deadline",
        "jobs",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
        sqlite_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "jobs_expiry",
        "jobs",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("purged_at IS NULL"),
        sqlite_where=sa.text("purged_at IS NULL"),
    )
    op.create_index(
        "jobs_in_progress",
        "jobs",
        ["team_id"],
        unique=False,
        postgresql_where=sa.text("status = 'in_progress'"),
        sqlite_where=sa.text("status = 'in_progress'"),
    )
    op.create_index(
        "jobs_lease",
        "jobs",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("lease_until IS NOT NULL"),
        sqlite_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index(
        "jobs_queue",
        "jobs",
        ["team_id", "priority", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
        sqlite_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "jobs_undelivered",
        "jobs",
        ["api_key_id", "fingerprint", "created_at"],
        unique=False,
        postgresql_where=sa.text("delivered_at IS NULL"),
        sqlite_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "job_metadata",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("pair", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("job_metadata_job_id_fkey")),
        sa.PrimaryKeyConstraint("team_id", "pair", "created_at", "job_id", name=op.f("job_metadata_pkey")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("round", sa.SmallInteger(), nullable=False),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("target", DOCUMENT, nullable=False),
        sa.Column("pictures", sa.SmallInteger(), nullable=False),
        sa.Column("owner_token", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ticket", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("param", sa.Text(), nullable=True),
        sa.Column("opened_at", INSTANT, nullable=False),
        sa.Column("outcome_due", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("usage", DOCUMENT, nullable=True),
        sa.Column("resolved", DOCUMENT, nullable=True),
        sa.Column("hold_micros", sa.BigInteger(), nullable=True),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("certainty", sa.Text(), nullable=True),
        sa.Column("settled", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('intent', 'accepted')) = (finished_at IS NULL)", name=op.f("attempts_ended_is_dated")
        ),
        sa.CheckConstraint(
            "(state IN ('intent', 'accepted')) = (settled IS NULL)", name=op.f("attempts_ended_is_settled")
        ),
        sa.CheckConstraint(
            "certainty IN ('actual', 'estimated', 'possible', 'unpriced')",
            name=op.f("attempts_certainty_known"),
        ),
        sa.CheckConstraint(
            "failure IS NULL OR state IN ('unpaid', 'unknown')", name=op.f("attempts_failure_has_no_picture")
        ),
        sa.CheckConstraint("settled IN ('spent', 'released')", name=op.f("attempts_settled_known")),
        sa.CheckConstraint(
            "state <> 'accepted' OR ticket IS NOT NULL", name=op.f("attempts_accepted_has_ticket")
        ),
        sa.CheckConstraint(
            "state IN ('intent', 'accepted', 'succeeded', 'unpaid', 'unknown')",
            name=op.f("attempts_state_known"),
        ),
        sa.CheckConstraint("pictures >= 1", name=op.f("attempts_covers_something")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("attempts_job_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("attempts_pkey")),
    )
    op.create_index("attempts_by_job", "attempts", ["job_id", "number"], unique=True)
    op.create_index(
        "attempts_open",
        "attempts",
        ["upstream", "job_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('intent', 'accepted')"),
        sqlite_where=sa.text("state IN ('intent', 'accepted')"),
    )
    op.create_index("attempts_rate", "attempts", ["upstream", "opened_at"], unique=False)
    op.create_index(
        "attempts_ticket",
        "attempts",
        ["upstream", "ticket"],
        unique=True,
        postgresql_where=sa.text("ticket IS NOT NULL"),
        sqlite_where=sa.text("ticket IS NOT NULL"),
    )

    guard = POSTGRES_GUARD if op.get_bind().dialect.name == "postgresql" else SQLITE_GUARD
    for statement in guard:
        op.execute(statement)
