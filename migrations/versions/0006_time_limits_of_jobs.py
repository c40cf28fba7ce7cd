"""When a job is cancelled by itself, as its client asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("cancel_at", sa.DateTime(timezone=True), nullable=True))
    where = sa.text("status IN ('queued', 'in_progress') AND cancel_at IS NOT NULL")
    op.create_index("jobs_time_limit", "jobs", ["cancel_at"], postgresql_where=where, sqlite_where=where)
