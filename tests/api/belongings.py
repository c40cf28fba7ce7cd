"""A gateway with two teams: one that has something of every kind, and a stranger that has nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from sqlalchemy import select

from app.assembly import Parts
from app.assets.records import AssetKind
from app.db.tables.assets import assets
from app.db.tables.webhook_deliveries import webhook_deliveries
from app.jobs.service import JobView
from app.main import build_app
from tests.api.conftest import PNG, serving
from tests.api.statements import Statements
from tests.kitchen import API_KEY, catalog_of, open_kitchen, write_settings
from tests.simulators.openai import OpenAi

GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
ALBUM: Final = "album-of-the-owner"
A_BOAT: Final[dict[str, Any]] = {
    "model": "gpt-image-2", "prompt": "a boat", "quality": "low", "size": "1024x1024",
    "metadata": {"album": ALBUM},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The two teams, and what the one has."""

    parts: Parts
    app: Any
    address: str
    owner: httpx2.AsyncClient
    stranger: httpx2.AsyncClient
    anonymous: httpx2.AsyncClient
    stranger_team: str
    strangers: frozenset[str]
    """The ids of the stranger's team and key."""
    owned: Mapping[str, Mapping[str, str]]
    """Kind -> what it is -> its id."""
    statements: Statements

    def every(self, kind: str) -> list[str]:
        """All ids of a kind."""
        return list(self.owned[kind].values())


@asynccontextmanager
async def open_neighbours(
    monkeypatch: pytest.MonkeyPatch, folder: Path, database_url: str
) -> AsyncIterator[Neighbours]:
    """Serve the gateway, and let one team use all of it. One of its jobs is at the vendor until the end."""
    async with AsyncExitStack() as closing:
        vendor = await closing.enter_async_context(OpenAi())
        monkeypatch.setenv("OPENAI_TEST_KEY", vendor.api_key)
        catalog = catalog_of({"openai": vendor})
        catalog["upstreams"]["openai"]["timeout_s"] = 300
        settings = write_settings(monkeypatch, folder, catalog, database_url=database_url)
        kitchen = await closing.enter_async_context(open_kitchen(settings))
        closing.callback(vendor.release)
        parts = kitchen.parts
        app = build_app(parts)
        statements = Statements(parts.database)
        address = await closing.enter_async_context(serving(statements.noted(app)))
        team = await parts.accounts.create_team("strangers", {})
        made, key = await parts.accounts.create_key(team.id, "theirs", limits={})

        async def client(text: str | None) -> httpx2.AsyncClient:
            headers = {} if text is None else {"authorization": f"Bearer {text}"}
            opened = httpx2.AsyncClient(base_url=address, headers=headers, timeout=20)
            return await closing.enter_async_context(opened)

        owner = await client(API_KEY)
        yield Neighbours(
            parts=parts,
            app=app,
            address=address,
            owner=owner,
            stranger=await client(key),
            anonymous=await client(None),
            stranger_team=team.id,
            strangers=frozenset({team.id, made.id}),
            owned=await _furnish(parts, owner, vendor),
            statements=statements,
        )


async def _furnish(parts: Parts, owner: httpx2.AsyncClient, vendor: OpenAi) -> dict[str, dict[str, str]]:
    """Make something of every kind. What works at the end still does when this returns."""
    jobs = {
        "finished": await _job(owner, GENERATIONS, A_BOAT),
        "streamed": await _job(owner, GENERATIONS, {**A_BOAT, "stream": True, "partial_images": 1}),
        "of a chat": await _job(
            owner,
            "/v1/chat/completions",
            {"model": "gpt-image-2", "messages": [{"role": "user", "content": "a"}]},
        ),
        "told": await _job(owner, GENERATIONS, {**A_BOAT, "webhook_url": "http://127.0.0.1:9/told"}),
    }
    vendor.script("moderation_blocked")
    jobs["failed"] = await _job(owner, GENERATIONS, A_BOAT)
    made = await owner.post("/v1/image/gpt-image-2/generate", json={"prompt": "a boat"})
    jobs["of ImaRouter"] = made.json()["id"]
    await owner.get(f"/v1/jobs/{jobs['of ImaRouter']}?wait=20")

    hold = vendor.hold()
    jobs["cancelled"] = await _job(owner, f"{GENERATIONS}?async=true", A_BOAT)
    await hold.reached()
    await owner.post(f"/v1/jobs/{jobs['cancelled']}/cancel")
    hold.release()
    await _until(parts, jobs["cancelled"], lambda view: bool(view.late))

    file = await owner.post("/v1/files", data={"purpose": "vision"}, files={"file": ("a.png", PNG)})
    vendor.script("hang")
    edit = {"model": "gpt-image-2", "prompt": "a boat", "images": [{"file_id": file.json()["id"]}]}
    jobs["running"] = await _job(owner, f"{EDITS}?async=true", edit)
    await vendor.hung()

    async with parts.database.reading() as connection:
        kept = (await connection.execute(select(assets.c.kind, assets.c.id))).all()
        (delivery,) = (await connection.execute(select(webhook_deliveries.c.id))).scalars().all()
    files = {row.kind: row.id for row in kept}
    assert files.keys() == {kind.value for kind in AssetKind}
    endpoint, _ = await parts.webhooks.create_endpoint("default", "http://127.0.0.1:9/all", [])
    keys, _ = await parts.accounts.list_keys("default")
    return {
        "job": jobs,
        "file": files,
        "delivery": {"of a job": delivery},
        "endpoint": {"of the team": endpoint.id},
        "team": {"the owner": "default"},
        "key": {key.name: key.id for key in keys},
    }


async def _job(owner: httpx2.AsyncClient, path: str, body: Mapping[str, Any]) -> str:
    answer = await owner.post(path, json=dict(body))
    return str(answer.headers["x-darkroom-job-id"])


async def _until(parts: Parts, job_id: str, is_so: Any) -> JobView:
    async with asyncio.timeout(20), parts.waiters.watching(job_id, is_caller=False) as changed:
        while True:
            changed.clear()
            view = await parts.jobs.view(job_id, "default")
            if is_so(view):
                return view
            await changed.wait()
