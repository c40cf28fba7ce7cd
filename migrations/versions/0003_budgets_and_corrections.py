"""Budgets, corrections of booked costs, and what reports on spend need."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

POSTGRES_GUARD = (
    """
    CREATE FUNCTION ledger_entries_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'a ledger entry never changes' USING ERRCODE = 'DK005';
    END $$
    """,
    """
    CREATE TRIGGER ledger_entries_guard BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_entries_guard()
    """,
    # A team's row is rewritten by each of its jobs, several times.
    "ALTER TABLE budgets SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)",
)
SQLITE_GUARD = (
    """
    CREATE TRIGGER ledger_entries_keep BEFORE UPDATE ON ledger_entries
    BEGIN SELECT RAISE(ABORT, 'a ledger entry never changes'); END
    """,
    """
    CREATE TRIGGER ledger_entries_stay BEFORE DELETE ON ledger_entries
    BEGIN SELECT RAISE(ABORT, 'a ledger entry never changes'); END
    """,
)


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("limit_micros", sa.BigInteger(), nullable=False),
        sa.Column("opening_micros", sa.BigInteger(), nullable=False),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False),
        sa.Column("spent_micros", sa.BigInteger(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("scope IN ('team', 'key')", name=op.f("budgets_scope_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("budgets_pkey")),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("was", sa.Text(), nullable=False),
        sa.CheckConstraint("reason IN ('delivered', 'reconciled')", name=op.f("ledger_entries_reason_known")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("ledger_entries_attempt_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("ledger_entries_pkey")),
    )
    op.create_index("ledger_entries_by_attempt", "ledger_entries", ["attempt_id", "at"])
    op.add_column("jobs", sa.Column("budgets", DOCUMENT, nullable=True))
    op.add_column("attempts", sa.Column("dearest_micros", sa.BigInteger(), nullable=True))
    op.create_index("attempts_by_time", "attempts", ["opened_at"])
    for statement in POSTGRES_GUARD if op.get_bind().dialect.name == "postgresql" else SQLITE_GUARD:
        op.execute(statement)
