"""The one MetaData that every table belongs to, how its constraints are named, and how partial indexes are written."""

from typing import Any

from sqlalchemy import MetaData, text

METADATA = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


def where(condition: str) -> dict[str, Any]:
    """The arguments that make an Index partial, on Postgres and on SQLite alike."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}
