"""Every query on stored catalogs. Each function takes the caller's connection and commits nothing."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite

from app.db.connection import Connection
from app.db.tables.catalogs import catalogs
from app.db.types import now
from app.jobs.repository import serialise


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCatalog:
    """One row of `catalogs`, without its content."""

    version: str
    generation: int
    loaded_at: datetime


async def in_force(connection: Connection) -> StoredCatalog | None:
    """The catalog in force; None before the first one."""
    query = (
        select(catalogs.c.version, catalogs.c.generation, catalogs.c.loaded_at)
        .order_by(catalogs.c.generation.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return StoredCatalog(version=row.version, generation=row.generation, loaded_at=row.loaded_at)


async def content_of(connection: Connection, version: str) -> str | None:
    """The YAML of a version; None when it was never stored."""
    query = select(catalogs.c.content).where(catalogs.c.version == version)
    return (await connection.execute(query)).scalar_one_or_none()


async def put_in_force(
    connection: Connection, version: str, content: str
) -> tuple[StoredCatalog | None, StoredCatalog]:
    """Make a version the one in force: what was, and what is. Nothing is written when it is in force already."""
    await serialise(connection, "catalog")
    before = await in_force(connection)
    if before is not None and before.version == version:
        return before, before
    newest = (
        await connection.execute(select(func.coalesce(func.max(catalogs.c.generation), 0)))
    ).scalar_one()
    values = {"generation": newest + 1, "loaded_at": now()}
    upsert = upsert_on_sqlite if connection.dialect.name == "sqlite" else upsert_on_postgres
    statement = upsert(catalogs).values(version=version, content=content, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["version"], set_=values))
    after = await in_force(connection)
    if after is None:
        raise RuntimeError("a catalog that has just been stored is not there")
    return before, after
