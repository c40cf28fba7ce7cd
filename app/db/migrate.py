"""Brings a database's schema up to date with Alembic, and tells whether it is."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from asyncpg import PostgresError
from sqlalchemy import Column, MetaData, String, Table, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.db.connection import Connection

MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "migrations"
_VERSIONS: Final = Table("alembic_version", MetaData(), Column("version_num", String(32)))


def upgrade(url: str) -> None:
    """Bring the schema at `url` (`postgresql://…` or `sqlite:///…`) to the newest revision. Blocks."""
    command.upgrade(_config(url), "head")


def newest_revision() -> str:
    """The revision that this release of Darkroom expects."""
    return ScriptDirectory.from_config(_config("sqlite://")).get_current_head() or ""


def is_known_revision(revision: str) -> bool:
    """Whether this release of Darkroom has the revision; if not, a newer release has migrated the database."""
    script = ScriptDirectory.from_config(_config("sqlite://"))
    return any(known.revision == revision for known in script.walk_revisions())


async def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None when it has never been migrated."""
    try:
        return (await connection.execute(select(_VERSIONS.c.version_num))).scalar_one_or_none()
    except (DBAPIError, PostgresError):
        return None


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    # Alembic runs on the same drivers as the service, so no second one is needed.
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    rendered = make_url(url).set(drivername=driver).render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", rendered.replace("%", "%%"))
    return config
