"""Job metadata: one row per pair that a client gave a job, in the order in which jobs are listed.

`jobs.metadata` is the record; this is what makes `?metadata[k]=v` a walk along one index, whether a million jobs carry
the pair or one does. An inverted index on the document cannot give an order, and sorting a million rows takes seconds.
"""

from sqlalchemy import Column, ForeignKey, LargeBinary, Table, Text

from app.db.tables.metadata import METADATA
from app.db.types import Instant

job_metadata = Table(
    "job_metadata",
    METADATA,
    Column("team_id", Text, primary_key=True),
    # SHA-256 over key and value: short, however long both are.
    Column("pair", LargeBinary, primary_key=True),
    # Those of the job.
    Column("created_at", Instant, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
)
