"""The harness itself: its servers come up, obey, and leave nothing."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.harness.processes import ServerUnavailable, descendants, is_alive, unprivileged_account, wait_until
from tests.harness.servers import (
    POSTGRES_BIN_VARIABLE,
    REDIS_BIN_VARIABLE,
    PostgresBinaries,
    PostgresServer,
    RedisServer,
    ask_redis,
    find_postgres,
    find_redis,
)

# Both kinds keep what is written through to disk.
DURABLE: list[Callable[[], PostgresServer | RedisServer]] = [
    lambda: PostgresServer(durable=True),
    lambda: RedisServer(durable=True),
]
both = pytest.mark.parametrize("make", DURABLE, ids=["postgres", "redis"])


async def value_of(url: str, query: str) -> object:
    """The first column of the first row that a query answers."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        result: object = await connection.fetchval(query)
        return result
    finally:
        await connection.close()


@both
def test_a_server_comes_back_on_its_port_after_a_stop_and_after_a_kill(
    make: Callable[[], PostgresServer | RedisServer],
) -> None:
    with make() as server:
        first, port = server.pid, server.port
        server.restart()
        second = server.pid
        server.kill()
        assert not server.is_running()
        server.start()
        assert server.port == port
        assert len({first, second, server.pid}) == 3


@both
def test_a_discarded_server_leaves_no_process_and_no_file(
    make: Callable[[], PostgresServer | RedisServer],
) -> None:
    server = make()
    server.start()
    family, folder = [server.pid, *descendants(server.pid)], server.folder
    server.discard()
    assert not [pid for pid in family if is_alive(pid)]
    assert not folder.exists()


@both
def test_a_frozen_server_is_discarded_too(make: Callable[[], PostgresServer | RedisServer]) -> None:
    server = make()
    server.start()
    pid = server.pid
    server.pause()
    server.discard()
    assert not is_alive(pid)


def test_a_frozen_redis_answers_only_when_it_goes_on() -> None:
    with RedisServer() as server:
        server.pause()
        answered = threading.Event()

        def ask() -> None:
            ask_redis(server.url, "PING")
            answered.set()

        asking = threading.Thread(target=ask)
        asking.start()
        assert not answered.wait(0.1)
        server.resume()
        assert answered.wait(10)
        asking.join()


async def test_a_frozen_postgres_answers_only_when_it_goes_on() -> None:
    with PostgresServer() as server:
        connection = await asyncpg.connect(server.url)
        server.pause()
        with pytest.raises(TimeoutError):
            await asyncpg.connect(server.url, timeout=0.2)
        server.resume()
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_committed_rows_survive_a_kill_of_a_durable_postgres() -> None:
    with PostgresServer(durable=True) as server:
        url = server.create_database()
        await value_of(url, "CREATE TABLE kept (id int)")
        await value_of(url, "INSERT INTO kept VALUES (7)")
        server.kill()
        server.start()
        assert await value_of(url, "SELECT id FROM kept") == 7


async def test_two_postgres_servers_run_side_by_side() -> None:
    with PostgresServer() as one, PostgresServer() as other:
        assert one.port != other.port
        url = one.create_database()
        assert await value_of(url, "SELECT 1") == 1
        with pytest.raises(asyncpg.InvalidPasswordError):
            await value_of(one.url.replace(str(one.port), str(other.port)), "SELECT 1")


def test_servers_started_at_once_do_not_collide() -> None:
    servers = [RedisServer() for _ in range(4)]
    starts = [threading.Thread(target=server.start) for server in servers]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    try:
        assert len({server.port for server in servers}) == 4
        for server in servers:
            ask_redis(server.url, "PING")
    finally:
        for server in servers:
            server.discard()


async def test_a_copied_database_has_the_tables_of_its_template(postgres_url: str) -> None:
    assert await value_of(postgres_url, "SELECT to_regclass('alembic_version') IS NOT NULL") is True


async def test_a_dropped_database_is_gone_even_while_somebody_is_connected() -> None:
    with PostgresServer() as server:
        url = server.create_database()
        connection = await asyncpg.connect(url)
        server.drop_database(url)
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await value_of(url, "SELECT 1")
        await connection.close(timeout=1)


def test_redis_starts_empty_for_each_test(redis_url: str) -> None:
    ask_redis(redis_url, "PING")


def test_redis_wants_its_password() -> None:
    with RedisServer() as server, pytest.raises(ServerUnavailable, match="NOAUTH"):
        ask_redis(f"redis://127.0.0.1:{urlsplit(server.url).port}/0", "PING")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
@pytest.mark.parametrize("kind", ["PostgresServer", "RedisServer"])
def test_a_server_ends_with_its_parent_even_when_that_is_killed(kind: str, tmp_path: Path) -> None:
    program = f"""
        import sys, time
        from tests.harness.servers import {kind}
        server = {kind}()
        server.start()
        print(server.pid, server.folder, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": "/tmp", "PYTHONPATH": str(Path.cwd())},
    ) as parent:
        assert parent.stdout is not None
        pid, _, folder = parent.stdout.readline().strip().partition(" ")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(int(pid)), "the server to follow its parent", timeout_s=10)
    subprocess.run(["/bin/rm", "-rf", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as somebody else")
def test_binaries_out_of_reach_of_the_servers_user_are_copied(tmp_path: Path) -> None:
    account = unprivileged_account()
    assert account is not None
    real = find_postgres()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(real.folder.parent, closed / "pginstall", symlinks=True)
    with PostgresServer(binaries=PostgresBinaries(closed / "pginstall" / "bin", real.libraries)) as server:
        owner = Path(f"/proc/{server.pid}").stat().st_uid
        assert owner == account.uid
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_named_folder_without_postgres_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(POSTGRES_BIN_VARIABLE, str(tmp_path))
    with pytest.raises(ServerUnavailable, match="holds no initdb"):
        find_postgres()


def test_a_named_redis_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.touch()
    monkeypatch.setenv(REDIS_BIN_VARIABLE, str(tmp_path))
    assert find_redis() == program
