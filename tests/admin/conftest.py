"""The operators' API of a whole gateway, without vendors: real parts on both databases."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.accounts.records import Role
from app.assembly import Parts
from app.main import build_app
from tests.kitchen import ADMIN_KEY, API_KEY, Kitchen, catalog_of, open_kitchen, write_settings

BASE_URL = "http://darkroom.test"


class Vendor:
    """A vendor that nobody calls in these tests."""

    base_url = "http://127.0.0.1:9/v1"


def offline_catalog() -> dict[str, Any]:
    """One model, sold by an upstream that does not answer."""
    return catalog_of({"openai": Vendor()})  # type: ignore[dict-item] # only its address is looked at


@dataclass(frozen=True)
class Office:
    """A gateway, and clients with the keys that there are."""

    kitchen: Kitchen
    app: FastAPI
    admin: httpx2.AsyncClient
    reader: httpx2.AsyncClient
    team: httpx2.AsyncClient
    anonymous: httpx2.AsyncClient

    @property
    def parts(self) -> Parts:
        return self.kitchen.parts

    async def audit(self) -> list[dict[str, Any]]:
        """What the audit log says, oldest first."""
        page = (await self.admin.get("/admin/v1/audit?limit=100")).json()
        return list(reversed(page["data"]))


async def open_office(kitchen: Kitchen, closing: AsyncExitStack) -> Office:
    app = build_app(kitchen.parts)
    transport = httpx2.ASGITransport(app=app)

    async def client(key: str | None) -> httpx2.AsyncClient:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        made = httpx2.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers)
        return await closing.enter_async_context(made)

    _, reading = await kitchen.parts.accounts.create_key("default", "reader", limits={}, role=Role.ADMIN_READ)
    return Office(
        kitchen=kitchen,
        app=app,
        admin=await client(ADMIN_KEY),
        reader=await client(reading),
        team=await client(API_KEY),
        anonymous=await client(None),
    )


@pytest.fixture
async def office(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> AsyncIterator[Office]:
    monkeypatch.setenv("OPENAI_TEST_KEY", "sk-canary-of-a-vendor-key")
    settings = write_settings(monkeypatch, tmp_path, offline_catalog(), database_url=database_url)
    async with AsyncExitStack() as closing:
        kitchen = await closing.enter_async_context(open_kitchen(settings, is_working=False))
        yield await open_office(kitchen, closing)
