"""Runs migrations on the service's own drivers. Lock and statement timeouts keep a running release alive."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.db.tables.registry import TABLES


def _run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET statement_timeout = '5min'"))
        # Several processes may start at once; one migrates, the others wait and then find nothing to do. The wait for
        # one's turn may outlast the one for a table.
        connection.execute(text("SELECT pg_advisory_lock(7239417)"))
        # A migration that cannot get its lock gives way; it is tried again rather than blocking every query behind it.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
    context.configure(connection=connection, target_metadata=TABLES[0].metadata, render_as_batch=False)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


async def _main() -> None:
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url") or "", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


asyncio.run(_main())
