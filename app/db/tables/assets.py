"""Assets: every picture that we keep, made or uploaded. The bytes are in storage under `key`."""

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
from app.db.types import Instant, now

assets = Table(
    "assets",
    METADATA,
    # `file_…`: a file in the API.
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    # result: of a job that waited for it; late: came after its job had ended; upload: by a client, for later use;
    # input: of one job's request.
    Column("kind", Text, nullable=False),
    Column("job_id", Text),
    Column("attempt_id", Text),
    Column("index", SmallInteger, nullable=False, default=0),
    Column("key", Text, nullable=False, unique=True),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("width_px", Integer, nullable=False),
    Column("height_px", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    Column("expires_at", Instant, nullable=False),
    CheckConstraint("kind IN ('result', 'late', 'partial', 'upload', 'input')", name="kind_known"),
    Index("assets_by_team", "team_id", "created_at", "id"),
    Index("assets_by_job", "job_id", "index", **where("job_id IS NOT NULL")),
    Index("assets_inputs", "job_id", **where("kind = 'input'")),
    Index("assets_expiry", "expires_at"),
)
