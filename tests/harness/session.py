"""One Postgres for a whole test session, started when the first test asks, however many workers there are.

The process that runs the session owns the server. Workers of pytest-xdist ask it over loopback, because a server
started by one of them would end with it while the others still test.
"""

import contextlib
import os
import secrets
import threading
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from typing import Final, Protocol

from app.db.migrate import upgrade
from tests.harness.processes import ServerUnavailable
from tests.harness.servers import POSTGRES_URL_VARIABLE, PostgresDatabases, PostgresServer, database_name

_WANTED: Final = "postgres"


@dataclass(frozen=True, slots=True)
class Lease:
    """Where tests make their databases: the server's address, and the name of a migrated one to copy."""

    url: str
    template: str


class PostgresSource(Protocol):
    """Whoever can say where the session's Postgres is."""

    def lease(self) -> Lease:
        """The session's Postgres, started by the first call.

        Raises:
            ServerUnavailable: it could not be started or migrated.
        """


class SharedPostgres:
    """The session's Postgres: a private one, or the one that `DARKROOM_TEST_DATABASE_URL` names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: PostgresServer | None = None
        self._lease: Lease | None = None

    def lease(self) -> Lease:
        """The session's Postgres, started by the first call.

        Raises:
            ServerUnavailable: it could not be started or migrated.
        """
        with self._lock:
            if self._lease is None:
                self._lease = self._open()
            return self._lease

    def close(self) -> None:
        """Stop the server, or remove the template from one that is not ours."""
        if self._lease and not self._server:
            databases = PostgresDatabases(self._lease.url)
            databases.drop_database(self._lease.url.rpartition("/")[0] + f"/{self._lease.template}")
        if self._server:
            self._server.discard()
        self._lease = self._server = None

    def _open(self) -> Lease:
        url = os.environ.get(POSTGRES_URL_VARIABLE)
        if not url:
            self._server = self._server or PostgresServer()
            self._server.start()
            url = self._server.url
        template = PostgresDatabases(url).create_database()
        upgrade(template)
        return Lease(url, database_name(template))


class PostgresDesk:
    """Answers the workers' question where Postgres is, from a thread of the process that owns it."""

    def __init__(self, source: PostgresSource) -> None:
        self._source = source
        self._key = secrets.token_bytes(16)
        self._listener = Listener(("127.0.0.1", 0), authkey=self._key)
        threading.Thread(target=self._serve, name="postgres-desk", daemon=True).start()

    @property
    def ticket(self) -> str:
        """What a worker needs to ask, as text: port and key."""
        return f"{self._listener.address[1]}:{self._key.hex()}"

    def close(self) -> None:
        """Take no more questions."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                wire = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._answer, args=(wire,), daemon=True).start()

    def _answer(self, wire: "Connection[object, object]") -> None:
        with wire, contextlib.suppress(EOFError):
            wire.recv()
            try:
                lease = self._source.lease()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the worker that asked reports it
                wire.send(f"{type(exc).__name__}: {exc}")
            else:
                wire.send((lease.url, lease.template))


class RemotePostgres:
    """The session's Postgres as a worker sees it."""

    def __init__(self, ticket: str) -> None:
        port, _, key = ticket.partition(":")
        self._address = ("127.0.0.1", int(port))
        self._key = bytes.fromhex(key)
        self._lease: Lease | None = None

    def lease(self) -> Lease:
        """Ask for the session's Postgres, once.

        Raises:
            ServerUnavailable: the session could not start it.
        """
        if self._lease is None:
            with Client(self._address, authkey=self._key) as wire:
                wire.send(_WANTED)
                match wire.recv():
                    case (str(url), str(template)):
                        self._lease = Lease(url, template)
                    case problem:
                        raise ServerUnavailable(str(problem))
        return self._lease
