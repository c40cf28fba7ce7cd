"""What every test may ask for: databases, a Redis, and the certainty that nothing leaves this machine."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from app.db.migrate import upgrade
from tests.harness.network_guard import NetworkGuard
from tests.harness.servers import (
    POSTGRES_URL_VARIABLE,
    REDIS_URL_VARIABLE,
    PostgresDatabases,
    RedisServer,
    ask_redis,
)
from tests.harness.session import PostgresDesk, PostgresSource, RemotePostgres, SharedPostgres

_SOURCE: Final = pytest.StashKey[PostgresSource]()
_OWNED: Final = pytest.StashKey[SharedPostgres]()
_DESK: Final = pytest.StashKey[PostgresDesk]()
_TICKET: Final = "darkroom_postgres"


def pytest_configure(config: pytest.Config) -> None:
    """Install the network guard, and say where this process finds the session's Postgres."""
    named = [os.environ.get(name) for name in (POSTGRES_URL_VARIABLE, REDIS_URL_VARIABLE)]
    NetworkGuard([urlsplit(url).hostname or "localhost" for url in named if url]).install()
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        config.stash[_SOURCE] = config.stash[_OWNED] = SharedPostgres()
    else:
        config.stash[_SOURCE] = RemotePostgres(worker[_TICKET])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a new worker of pytest-xdist whom to ask for Postgres."""
    stash = node.config.stash
    if _DESK not in stash:
        stash[_DESK] = PostgresDesk(stash[_OWNED])
    node.workerinput[_TICKET] = stash[_DESK].ticket


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the session's Postgres if this process owns it."""
    if _DESK in config.stash:
        config.stash[_DESK].close()
    if _OWNED in config.stash:
        config.stash[_OWNED].close()


@pytest.fixture
def postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The `postgresql://` URL of a migrated, empty database on a real Postgres, for this test alone."""
    lease = pytestconfig.stash[_SOURCE].lease()
    databases = PostgresDatabases(lease.url)
    url = databases.create_database(template=lease.template)
    yield url
    databases.drop_database(url)


@pytest.fixture
def empty_postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """As `postgres_url`, without any table: for tests of the migrations themselves."""
    databases = PostgresDatabases(pytestconfig.stash[_SOURCE].lease().url)
    url = databases.create_database()
    yield url
    databases.drop_database(url)


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def sqlite_url(_migrated_sqlite: Path, tmp_path: Path) -> str:
    """The `sqlite:///` URL of a migrated, empty database file, for this test alone."""
    return f"sqlite:///{shutil.copy(_migrated_sqlite, tmp_path / 'darkroom.db')}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database; the test runs once on SQLite and once on Postgres."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table; the test runs once on SQLite and once on Postgres."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture(scope="session")
def _worker_redis(pytestconfig: pytest.Config) -> Iterator[str]:
    """The address of this worker's own Redis, or of its own database in the one the environment names."""
    named = os.environ.get(REDIS_URL_VARIABLE)
    if named:
        worker: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
        # Database 0 is left alone: on a server that is not ours it may be somebody's.
        number = 1 + int(str(worker.get("workerid", "gw0")).removeprefix("gw"))
        yield urlsplit(named)._replace(path=f"/{number}").geturl()
        return
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def redis_url(_worker_redis: str) -> str:
    """The `redis://` URL of a real and empty Redis that no test running at the same time shares."""
    ask_redis(_worker_redis, "FLUSHDB")
    return _worker_redis
