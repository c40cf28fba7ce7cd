"""One catalog in force in all processes: each stores what it loads, and follows what another has put in force.

A process puts its own file in force when it starts, so the last one to start or to reload decides.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.catalog.current import CurrentCatalog
from app.catalog.entries import Catalog
from app.catalog.errors import CatalogInvalid
from app.catalog.loader import read_content
from app.db.engine import Database, StoreUnavailable
from app.db.witness import Witness, unwitnessed
from app.jobs import stored_catalogs
from app.jobs.stored_catalogs import StoredCatalog
from app.kit.events import Events
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

SUBJECT: Final = "catalog"
"""What events about catalogs are published under."""
_LOOK_EVERY_S: Final = 2.0
"""How long a lost event can keep a process on an earlier catalog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """How this process makes a catalog from a file's content. Both parts take long enough for a thread."""

    parse: Callable[[bytes], Catalog]
    """Check a content; raises CatalogInvalid."""
    prepare: Callable[[Catalog], Catalog]
    """Fetch the keys that it names, and add what the embedded default adds; raises CatalogInvalid."""

    async def load(self, content: bytes) -> Catalog:
        """Make a catalog that can be put in force.

        Raises:
            CatalogInvalid: it has mistakes.
        """
        return self.prepare(await asyncio.to_thread(self.parse, content))


class StoredCatalogs:
    """Finds catalogs of earlier versions."""

    def __init__(self, database: Database, loader: Loader) -> None:
        self._database = database
        self._loader = loader

    async def find(self, version: str) -> Catalog | None:
        """The catalog of this version; None when it was never stored, or cannot be read by this release.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.reading() as connection:
            content = await stored_catalogs.content_of(connection, version)
        if content is None:
            return None
        try:
            return await self._loader.load(content.encode())
        except CatalogInvalid as exc:
            # Another release has put it in force. This process keeps what it has.
            LOG.warning("catalog.unreadable", version=version, mistakes=str(exc))
            return None


class Catalogs:
    """Puts catalogs in force, here and everywhere, and follows the other processes."""

    def __init__(
        self,
        database: Database,
        events: Events,
        current: CurrentCatalog,
        stored: StoredCatalogs,
        loader: Loader,
        file: Path,
        content: bytes,
    ) -> None:
        """Join the parts.

        Args:
            database: where catalogs are stored.
            events: how processes are told to look.
            current: what this process serves from.
            stored: finds what others have put in force.
            loader: how contents become catalogs.
            file: what a reload reads.
            content: what `current` was loaded from.
        """
        self._database = database
        self._events = events
        self._current = current
        self._stored = stored
        self._loader = loader
        self._file = file
        self._content = content
        self._wake = asyncio.Event()
        self._is_offered = False
        self._wanted: Callable[[], Awaitable[object]] | None = None
        self._unreadable = ""

    async def check(self, content: bytes | None) -> Catalog:
        """Look for mistakes in a content, or in this process's file (None), and put nothing in force.

        Raises:
            CatalogInvalid: it has some.
        """
        if content is None:
            content = await asyncio.to_thread(read_content, self._file)
        return await asyncio.to_thread(self._loader.parse, content)

    async def in_force(self) -> tuple[StoredCatalog, str] | None:
        """What is stored as being in force, with its YAML; None before the first process has started."""
        async with self._database.reading() as connection:
            found = await stored_catalogs.in_force(connection)
            content = None if found is None else await stored_catalogs.content_of(connection, found.version)
        return None if found is None or content is None else (found, content)

    async def reload(self, *, witness: Witness[StoredCatalog] = unwitnessed) -> StoredCatalog:
        """Read the file again, and put it in force in every process.

        Raises:
            CatalogInvalid: the file has mistakes; the catalog in force stays.
            StoreUnavailable: the database did not answer in time; the catalog in force stays.
        """
        content = await asyncio.to_thread(read_content, self._file)
        catalog = await self._loader.load(content)
        async with self._database.transaction() as connection:
            before, after = await stored_catalogs.put_in_force(connection, catalog.version, content.decode())
            await witness(connection, before, after)
        self._is_offered = True
        self._put(catalog)
        self._events.publish(SUBJECT)
        return after

    def reload_soon(self, reload: Callable[[], Awaitable[object]] | None = None) -> None:
        """Reload in `run`, as a signal asks for it: mistakes are logged.

        `reload`: how; `self.reload` unless it is given.
        """
        self._wanted = reload or self.reload
        self._wake.set()

    async def offer(self) -> None:
        """Put this process's own file in force, as it does when it starts.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        version = self._current.get().version
        async with self._database.transaction() as connection:
            await stored_catalogs.put_in_force(connection, version, self._content.decode())
        self._is_offered = True
        self._events.publish(SUBJECT)

    async def follow(self) -> None:
        """Serve from what is in force, whoever put it there.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.reading() as connection:
            found = await stored_catalogs.in_force(connection)
        serving = self._current.get().version
        if found is None or found.version in (serving, self._unreadable):
            return
        catalog = await self._stored.find(found.version)
        if catalog is None:
            self._unreadable = found.version
        elif self._current.get().version == serving:  # else a reload of our own came first
            self._put(catalog)

    async def run(self) -> None:
        """Offer, reload and follow for ever; a database that is away is waited for."""
        with self._events.listen(SUBJECT, self._wake.set):
            while True:
                self._wake.clear()
                try:
                    await self._look()
                except StoreUnavailable as exc:
                    LOG.warning("catalog.not_followed", reason=str(exc))
                await self._until_woken()

    async def _look(self) -> None:
        if not self._is_offered:
            await self.offer()
        if self._wanted is not None:
            reload, self._wanted = self._wanted, None
            try:
                await reload()
            except CatalogInvalid as exc:
                LOG.warning("catalog.refused", mistakes=str(exc))
            except StoreUnavailable:
                self._wanted = reload
                raise
        await self.follow()

    async def _until_woken(self) -> None:
        # Not `wait_for`: on Python 3.11 it forgets a cancellation that comes at the moment of waking.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._wake.wait()

    def _put(self, catalog: Catalog) -> None:
        if catalog.version != self._current.get().version:
            LOG.info("catalog.in_force", version=catalog.version, was=self._current.get().version)
        self._current.replace(catalog)
