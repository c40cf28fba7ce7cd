"""Catalogs: each one that was ever in force, by version, so that every process can follow and running jobs keep theirs.

The one with the highest generation is in force.
"""

from sqlalchemy import BigInteger, Column, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant, now

catalogs = Table(
    "catalogs",
    METADATA,
    # The digest of the content, as jobs record it.
    Column("version", Text, primary_key=True),
    # YAML without secrets, as it was loaded.
    Column("content", Text, nullable=False),
    # Grows with every catalog put in force; one that comes back gets a new number.
    Column("generation", BigInteger, nullable=False, unique=True),
    Column("loaded_at", Instant, nullable=False, default=now()),
)
