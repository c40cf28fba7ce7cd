"""Limits are exact however many requests come at once, over two API processes that share a Postgres and a Redis."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
import pytest

from app.accounts.limits import MAX_QUEUED
from app.accounts.service import CACHED_S
from app.db.engine import Database
from app.jobs.integrity import check_integrity
from tests.harness.processes import free_port
from tests.harness.servers import RedisServer
from tests.journeys.production import member, running
from tests.kitchen import ADMIN_KEY, API_KEY, catalog_of
from tests.simulators.openai import OpenAi

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

GENERATIONS: Final = "/v1/images/generations?async=true"
PICTURES: Final = 40
PICTURE_USD: Final = 0.006


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two API processes, and an operator at the first one."""

    database_url: str
    redis: RedisServer
    urls: Sequence[str]
    admin: httpx2.AsyncClient
    client: httpx2.AsyncClient

    async def team(self, name: str, **limits: Any) -> dict[str, str]:
        """A new team with these limits: its id, and its key's id and text."""
        team = (await self.admin.post("/admin/v1/teams", json={"name": name, "limits": limits})).json()
        key = (await self.admin.post("/admin/v1/keys", json={"team_id": team["id"], "name": "one"})).json()
        return {"team": team["id"], "key": key["id"], "text": key["key"]}

    async def order(self, text: str, number: int, *, n: int = 1) -> httpx2.Response:
        """Ask for pictures at one process or the other, and again where the database was too busy to answer."""
        body = {"model": "gpt-image-2", "prompt": "a boat", "quality": "low", "size": "1024x1024", "n": n}
        headers = {"authorization": f"Bearer {text}", "idempotency-key": f"order-{number}"}
        while True:
            answer = await self.client.post(
                f"{self.urls[number % 2]}{GENERATIONS}", json=body, headers=headers
            )
            if answer.status_code != 503:
                return answer

    async def rush(self, text: str, orders: int, *, first: int = 0, n: int = 1) -> Counter[str]:
        """Send so many orders at once, half to each process: what became of how many."""
        answers = await asyncio.gather(*(self.order(text, first + each, n=n) for each in range(orders)))
        return Counter(
            "taken" if each.status_code == 202 else each.json()["error"]["code"] for each in answers
        )


@asynccontextmanager
async def open_pair(
    folder: Path, database_url: str, vendor: OpenAi, *, workers: int = 0
) -> AsyncIterator[Pair]:
    """Start everything; without workers, jobs stay queued."""
    async with AsyncExitStack() as closing:
        redis = await asyncio.to_thread(closing.enter_context, RedisServer())
        (folder / "gateway.yaml").write_text(json.dumps(catalog_of({"openai": vendor})), encoding="utf-8")
        settings = {
            "DARKROOM_CONFIG": str(folder / "gateway.yaml"),
            "DARKROOM_DATABASE_URL": database_url,
            "DARKROOM_REDIS_URL": redis.url,
            "DARKROOM_STORAGE_URL": f"file://{folder / 'pictures'}",
            "DARKROOM_API_KEY": API_KEY,
            "DARKROOM_ADMIN_KEY": ADMIN_KEY,
            "DARKROOM_SECRET_KEY": "m4KtB9xQz7LwR2vHs8NcJ5pYd6GfT3aE",
            "DARKROOM_ALLOW_NETWORKS": "127.0.0.0/8",
            "OPENAI_TEST_KEY": vendor.api_key,
        }
        ports = [free_port(), free_port()]
        members = [
            member(folder, f"api-{port}", "serve", {**settings, "DARKROOM_PORT": str(port)}) for port in ports
        ]
        members += [member(folder, f"worker-{each}", "worker", settings) for each in range(workers)]
        await closing.enter_async_context(running(*members))
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        admin = httpx2.AsyncClient(
            base_url=urls[0], headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=60
        )
        client = httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=None))
        yield Pair(
            database_url=database_url,
            redis=redis,
            urls=urls,
            admin=await closing.enter_async_context(admin),
            client=await closing.enter_async_context(client),
        )


async def test_two_hundred_requests_at_two_processes_buy_exactly_what_the_budget_pays(
    tmp_path: Path, postgres_url: str
) -> None:
    async with OpenAi() as vendor, open_pair(tmp_path, postgres_url, vendor, workers=1) as pair:
        team = await pair.team("frugal", budget_month_usd=str(PICTURES * PICTURE_USD))
        ended = await pair.rush(team["text"], 200)
        assert ended == {"taken": PICTURES, "insufficient_quota": 200 - PICTURES}
        mine = {"authorization": f"Bearer {team['text']}"}
        jobs = (await pair.client.get(f"{pair.urls[1]}/v1/jobs?limit=100", headers=mine)).json()["data"]
        for job in jobs:
            shown = await pair.client.get(f"{pair.urls[0]}/v1/jobs/{job['id']}?wait=60", headers=mine)
            assert shown.json()["status"] == "succeeded"
        assert (len(jobs), vendor.ledger.charges) == (PICTURES, PICTURES)
        database = Database(postgres_url, pool_size=1)
        async with database.reading() as connection:
            assert await check_integrity(connection) == []
        await database.close()


async def test_rates_and_places_are_exact_over_two_processes(tmp_path: Path, postgres_url: str) -> None:
    async with OpenAi() as vendor, open_pair(tmp_path, postgres_url, vendor) as pair:
        crowded = await pair.team("crowded", max_jobs=5)
        assert await pair.rush(crowded["text"], 60) == {"taken": 5, "rate_limit_exceeded": 55}
        # A bucket fills up again meanwhile, so how many it gives is known up to the time that it took.
        for limits, n, limit in (({"requests_per_minute": 12}, 1, 12), ({"images_per_minute": 12}, 3, 4)):
            team = await pair.team(f"hasty {limits}", **limits)
            began = time.monotonic()
            ended = await pair.rush(team["text"], 60, n=n)
            refilled = (time.monotonic() - began) * limit / 60
            assert limit <= ended["taken"] <= limit + refilled, (limits, ended)
            assert set(ended) == {"taken", "rate_limit_exceeded"}


async def test_a_queue_takes_its_last_jobs_exactly_over_two_processes(
    tmp_path: Path, postgres_url: str
) -> None:
    async with OpenAi() as vendor, open_pair(tmp_path, postgres_url, vendor) as pair:
        team = await pair.team("many")
        first = (await pair.order(team["text"], 10_000)).json()["id"]
        await fill_queue(postgres_url, first, MAX_QUEUED - 8)
        assert await pair.rush(team["text"], 60) == {"taken": 8, "queue_full": 52}


async def fill_queue(database_url: str, job_id: str, jobs: int) -> None:
    """Let so many jobs wait, all of them like this one, which is among them."""
    connection = await asyncpg.connect(database_url)
    copy = "jsonb_populate_record(one, jsonb_build_object('id', 'job_' || number))"
    statement = (
        f"INSERT INTO jobs SELECT ({copy}).* FROM jobs one, generate_series(2, $2) number WHERE id = $1"  # noqa: S608 - no value is in it
    )
    await connection.execute(statement, job_id, jobs)
    await connection.execute("ANALYZE jobs")
    await connection.close()


async def test_without_redis_limits_neither_open_nor_close(tmp_path: Path, postgres_url: str) -> None:
    async with OpenAi() as vendor, open_pair(tmp_path, postgres_url, vendor) as pair:
        limit = 20
        team, place = (
            await pair.team("hasty", requests_per_minute=limit),
            await pair.team("crowded", max_jobs=5),
        )
        began = time.monotonic()
        assert await pair.rush(team["text"], 8) == {"taken": 8}
        # One after the other, so that each process knows what is left.
        for number in (50, 51):
            assert (await pair.order(team["text"], number)).status_code == 202
        pair.redis.kill()
        after = await pair.rush(team["text"], 100, first=100)
        refilled = (time.monotonic() - began) * limit / 60
        assert set(after) == {"taken", "rate_limit_exceeded"}
        # Each process lets its share of what was left through; the first has not heard of the second's last draw.
        assert 1 <= after["taken"] <= limit - 10 + 1 + refilled, after
        assert await pair.rush(place["text"], 40) == {"taken": 5, "rate_limit_exceeded": 35}


async def test_a_key_that_is_revoked_at_one_process_is_soon_refused_by_the_other(
    tmp_path: Path, postgres_url: str
) -> None:
    async with OpenAi() as vendor, open_pair(tmp_path, postgres_url, vendor) as pair:
        for is_redis_there in (True, False):
            if not is_redis_there:
                pair.redis.kill()
            team = await pair.team(f"leaky {is_redis_there}")
            headers = {"authorization": f"Bearer {team['text']}"}
            for url in pair.urls:
                assert (await pair.client.get(f"{url}/v1/jobs", headers=headers)).status_code == 200
            async with asyncio.timeout(CACHED_S + 1):
                assert (await pair.admin.delete(f"/admin/v1/keys/{team['key']}")).status_code == 200
                assert (await pair.client.get(f"{pair.urls[0]}/v1/jobs", headers=headers)).status_code == 401
                while (await pair.client.get(f"{pair.urls[1]}/v1/jobs", headers=headers)).status_code == 200:
                    continue
