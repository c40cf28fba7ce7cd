"""A whole gateway with its HTTP edge on a loopback port, its vendors behind it, and clients in front of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import openai
import pytest
import uvicorn
from sqlalchemy import select, update

from app.api.deadlines import DeadlineH11
from app.db.engine import Database
from app.db.tables.upstream_states import upstream_states
from app.main import build_app
from app.settings import Settings
from tests.kitchen import API_KEY, Kitchen, catalog_of, open_kitchen, write_settings
from tests.simulators.server import Simulator


@dataclass(frozen=True, kw_only=True)
class House:
    """A running gateway, as its clients and its operator see it."""

    kitchen: Kitchen
    settings: Settings
    address: str
    client: httpx2.AsyncClient
    """With a team's key, at the gateway's address."""
    sdk: openai.AsyncOpenAI
    """The stock client; it does not retry."""

    @property
    def base_url(self) -> str:
        """What an SDK is configured with."""
        return f"{self.address}/v1"

    async def left_in_spool(self) -> list[Path]:
        """What requests have left behind on their way."""
        return await asyncio.to_thread(_files_below, self.settings.spool_dir)

    async def stored(self) -> list[Path]:
        """Every picture in storage."""
        return await asyncio.to_thread(_files_below, self.settings.data_dir / "files")


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@asynccontextmanager
async def open_house(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    catalog: Mapping[str, Any],
    *,
    database_url: str,
    is_working: bool = True,
    protocol: type[DeadlineH11] = DeadlineH11,
    **settings: str,
) -> AsyncIterator[House]:
    """Serve a gateway until the context ends; without work, its jobs stay queued."""
    async with AsyncExitStack() as closing:
        listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        chosen = write_settings(
            monkeypatch, folder, catalog, database_url=database_url, **{"PUBLIC_URL": address, **settings}
        )
        kitchen = await closing.enter_async_context(open_kitchen(chosen, is_working=is_working))
        config = uvicorn.Config(
            build_app(kitchen.parts), http=protocol, ws="none", lifespan="off", access_log=False,
            log_config=None, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            async with (
                httpx2.AsyncClient(
                    base_url=address, headers={"authorization": f"Bearer {API_KEY}"}, timeout=60
                ) as client,
                openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=API_KEY, max_retries=0) as sdk,
            ):
                yield House(kitchen=kitchen, settings=chosen, address=address, client=client, sdk=sdk)
        finally:
            server.should_exit = True
            await serving


OpenHouse: TypeAlias = Callable[..., AbstractAsyncContextManager[House]]


def opener(monkeypatch: pytest.MonkeyPatch, folder: Path, database_url: str) -> OpenHouse:
    """Make what opens a gateway that buys from the given vendors, in their order."""

    @asynccontextmanager
    async def opened(
        *vendors: Simulator,
        routing: Mapping[str, Any] | None = None,
        adjust: Callable[[dict[str, Any]], None] | None = None,
        **options: Any,
    ) -> AsyncIterator[House]:
        for vendor in vendors:
            monkeypatch.setenv(f"{vendor.name.upper()}_TEST_KEY", vendor.api_key)
        catalog = catalog_of({vendor.name: vendor for vendor in vendors}, routing=routing)
        if adjust is not None:
            adjust(catalog)
        async with open_house(monkeypatch, folder, catalog, database_url=database_url, **options) as house:
            yield house

    return opened


async def pass_time(database: Database, seconds: float) -> None:
    """Let so many seconds go by for all that workers remember of upstreams."""
    past = timedelta(seconds=seconds)
    async with database.transaction() as connection:
        for row in (await connection.execute(select(upstream_states))).all():
            values = {"updated_at": row.updated_at - past}
            if row.away_until is not None:
                values["away_until"] = row.away_until - past
            same = (upstream_states.c.upstream == row.upstream, upstream_states.c.model == row.model)
            await connection.execute(update(upstream_states).where(*same).values(**values))
