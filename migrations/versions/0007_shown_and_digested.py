"""Whether a webhook secret has been shown, and which secret of the process a key's digest was made with."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("webhook_secrets", sa.Column("shown_at", INSTANT, nullable=True))
    # Nobody knows of those that there are; none may be shown twice, and a rotation shows another one.
    op.execute("UPDATE webhook_secrets SET shown_at = created_at")
    op.add_column("api_keys", sa.Column("digested_by", sa.Text(), nullable=True))
