"""API keys: hashed, shown once, belonging to a team or to an operator."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, LargeBinary, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, JsonColumn, now

api_keys = Table(
    "api_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("name", Text, nullable=False),
    # `team` keys use the public API; `admin` and `admin_read` keys the operators'.
    Column("role", Text, nullable=False),
    # What the key is looked up by: a random part that is no secret, or a digest for bootstrap keys of any text.
    Column("lookup", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    # Which secret of the process the digest was made with, by a name derived from it; null: nobody has looked yet.
    Column("digested_by", Text),
    # The first characters, to recognise a key in a list.
    Column("hint", Text, nullable=False),
    Column("limits", JsonColumn, nullable=False),
    Column("created_at", Instant, nullable=False, default=now()),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    # The first of the keys that rotations put in each other's place: its budgets and rates are those of all. Null: the
    # key itself.
    Column("line_id", Text),
    # The key that a rotation put in its place.
    Column("replaced_by", Text),
    CheckConstraint("role IN ('team', 'admin', 'admin_read')", name="role_known"),
    Index("api_keys_team", "team_id", "created_at", "id"),
)
