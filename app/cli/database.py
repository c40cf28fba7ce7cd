"""The database as commands meet it: what its drivers say when it does not let us in, as sentences."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic.util.exc import CommandError
from asyncpg.exceptions import InterfaceError, PostgresError
from sqlalchemy.exc import SQLAlchemyError

from app.cli.errors import CommandFailed
from app.db.engine import Database, StoreUnavailable
from app.db.migrate import current_revision, newest_revision, upgrade
from app.settings import Settings

_CLASSES: Final = {
    "28": "The database refuses the user or the password. Check DARKROOM_DATABASE_URL.",
    "3D": "There is no database of that name on the server. Create it, or check DARKROOM_DATABASE_URL.",
    "42501": "The database user may not do that. Grant it the right to create tables in its schema.",
    "53": "The database server has no connection or space left.",
    "57": "The database server is starting up or shutting down. Try again in a moment.",
    "55P03": "Another process holds the tables. Try again in a moment.",
}


@contextmanager
def explained() -> Iterator[None]:
    """Turn what goes wrong with the database into a `CommandFailed` with a sentence; the address is never shown."""
    try:
        yield
    except CommandError as exc:
        raise CommandFailed(
            "The database is at a revision that this Darkroom does not know: a newer one has migrated it. "
            "Start that newer release."
        ) from exc
    except (StoreUnavailable, OSError, TimeoutError) as exc:
        raise CommandFailed(
            "The database does not answer. Is it running? Check DARKROOM_DATABASE_URL."
        ) from exc
    except (SQLAlchemyError, PostgresError, InterfaceError) as exc:
        raise CommandFailed(_sentence(exc)) from exc


def migrate(settings: Settings) -> str:
    """Bring the schema to the newest revision and return its name.

    Raises:
        CommandFailed: the database cannot be reached, or not be migrated.
    """
    if settings.is_embedded:
        _make_folder(settings)
    with explained():
        upgrade(settings.database_url)
        return newest_revision()


def require_tables(settings: Settings) -> None:
    """Make sure that the database answers and has been migrated at least once, before a process relies on it.

    A schema that is newer than this release is fine: migrations keep the previous release running.

    Raises:
        CommandFailed: it does not answer, or has no tables.
    """
    if asyncio.run(_revision(settings.database_url)) is None:
        raise CommandFailed(
            "The database has no tables yet. Run `darkroom migrate` first, with these settings."
        )


async def _revision(url: str) -> str | None:
    database = Database(url, pool_size=1)
    try:
        with explained():
            async with database.reading() as connection:
                return await current_revision(connection)
    finally:
        await database.close()


def _make_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise CommandFailed(
            f"The data directory {str(settings.data_dir)!r} cannot be made ({exc.strerror}). Set DARKROOM_DATA_DIR "
            "to another one."
        ) from exc


def _sentence(exc: Exception) -> str:
    cause = getattr(exc, "orig", None) or exc
    state = getattr(cause, "sqlstate", None) or ""
    for prefix, said in _CLASSES.items():
        if state.startswith(prefix):
            return said
    return f"The database refuses: {str(cause).splitlines()[0]} ({type(cause).__name__})."
