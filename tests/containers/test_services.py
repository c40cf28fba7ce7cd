"""What docker-compose.yml tells Postgres and Redis to do, done by a real Postgres and a real Redis."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from sqlalchemy import text

from app.accounts.service import Accounts
from app.db.engine import Database
from app.db.migrate import upgrade
from app.kit.redis import FORWARD, QUEUE, arq_redis, deserialize, serialize
from app.tasks.doorbell import forward
from tests.containers import compose
from tests.harness.servers import PostgresServer, RedisServer, find_postgres, find_redis

SERVICES = compose.services()
SECRETS = compose.made_up_secrets()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres of its own: roles belong to a whole server."""
    with PostgresServer() as server:
        _make_roles(server)
        yield server


def _make_roles(server: PostgresServer) -> None:
    roles = SERVICES["roles"]
    surroundings = {
        **roles["environment"],
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": urlsplit(server.url).password or "",
        "PATH": f"{find_postgres().folder}:/usr/bin:/bin",
    }
    done = subprocess.run(
        [*roles["entrypoint"], *roles["command"]],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr


def _url(server: PostgresServer, service: str) -> str:
    url: str = SERVICES[service]["environment"]["DARKROOM_DATABASE_URL"]
    return url.replace("@postgres/", f"@127.0.0.1:{server.port}/")


def test_one_role_migrates_and_another_can_only_change_rows(postgres: PostgresServer) -> None:
    upgrade(_url(postgres, "migrate"))

    async def use() -> None:
        database = Database(_url(postgres, "api"))
        await Accounts(database, (b"k" * 32,)).bootstrap("a" * 40, "b" * 40)
        async with database.transaction() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM teams"))).scalar_one() == 1
        await database.close()
        plain = await asyncpg.connect(_url(postgres, "api"))
        for forbidden in (
            "CREATE TABLE mine (id int)",
            "DROP TABLE jobs",
            "TRUNCATE jobs",
            "CREATE ROLE other",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await plain.execute(forbidden)
        assert await plain.fetchval("SHOW statement_timeout") == "5s"
        await plain.close()

    asyncio.run(use())


def test_the_roles_can_be_made_again_with_everything_in_place(postgres: PostgresServer) -> None:
    upgrade(_url(postgres, "migrate"))
    _make_roles(postgres)
    upgrade(_url(postgres, "migrate"))


def test_passwords_are_kept_as_scram_and_survive_any_url(postgres: PostgresServer) -> None:
    async def kept() -> list[str]:
        connection = await asyncpg.connect(postgres.url)
        rows = await connection.fetch("SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'darkroom%'")
        await connection.close()
        return [row["rolpassword"] for row in rows]

    assert [password.partition("$")[0] for password in asyncio.run(kept())] == ["SCRAM-SHA-256"] * 2
    assert all(quote(secret) == secret for secret in SECRETS.values())


class _ComposeRedis(RedisServer):
    """The Redis of docker-compose.yml, on a port of ours."""

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._programs = programs
        (programs / "valkey-server").symlink_to(find_redis())

    def _command(self, port: int) -> list[str]:
        redis = SERVICES["redis"]
        [script] = redis["command"]
        moved = f"bind 127.0.0.1\nport {port}\ndir {self.folder}\nEOF"
        return [
            "/usr/bin/env",
            f"REDISCLI_AUTH={self._password}",
            f"PATH={self._programs}:/usr/bin:/bin",
            *redis["entrypoint"],
            "EOF".join(script.split("EOF")[:-1]) + moved,
        ]


@pytest.fixture
def hardened_redis(tmp_path: Path) -> Iterator[str]:
    with _ComposeRedis(tmp_path) as server:
        yield server.url


async def test_redis_lets_arq_and_events_do_all_they_do(hardened_redis: str) -> None:
    redis = arq_redis(hardened_redis)
    await redis.enqueue_job(FORWARD, "job_1", _queue_name=QUEUE)
    async with redis.pubsub() as channel:
        await channel.subscribe("darkroom:events")
        assert await redis.publish("darkroom:events", "job_1") == 1

    rung = asyncio.Event()
    worker = Worker(
        functions=[func(forward, name=FORWARD, keep_result=0, timeout=5)],  # type: ignore[arg-type] # any arguments
        redis_pool=redis,
        queue_name=QUEUE,
        handle_signals=False,
        burst=True,
        keep_result=0,
        poll_delay=0.01,
        job_serializer=serialize,
        job_deserializer=deserialize,
        ctx={"rung": rung},
    )
    await worker.async_run()
    await redis.connection_pool.disconnect()
    assert rung.is_set()


async def test_redis_lets_nobody_empty_stop_or_reconfigure_it(hardened_redis: str) -> None:
    async with Redis.from_url(hardened_redis) as redis:
        for forbidden in ("FLUSHALL", "SHUTDOWN NOSAVE", "CONFIG GET *", "KEYS *", "SAVE"):
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*forbidden.split())
        memory = await redis.info("memory")
    assert memory["maxmemory_policy"] == "noeviction"
    assert 0 < memory["maxmemory"] < compose.size_bytes(SERVICES["redis"]["mem_limit"])


async def test_redis_wants_the_password(hardened_redis: str) -> None:
    wrong = urlsplit(hardened_redis)._replace(netloc=f":wrong@127.0.0.1:{urlsplit(hardened_redis).port}")
    async with Redis.from_url(wrong.geturl()) as redis:
        with pytest.raises(AuthenticationError):
            await redis.ping()
