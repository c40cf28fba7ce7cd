"""How jobs end that get no picture in time, over real HTTP: by deadline, by time limit, for want of a vendor."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.jobs.integrity import check_integrity
from app.jobs.lifecycle import AttemptState, Status
from app.jobs.service import JobView
from tests.kitchen import Kitchen, catalog_of, open_kitchen, write_settings
from tests.simulators.openai import OpenAi
from tests.simulators.server import Simulator
from tests.simulators.therouter import TheRouter
from tests.simulators.vercel import Vercel

Open = Callable[..., AbstractAsyncContextManager[Kitchen]]


@pytest.fixture
def kitchen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> Open:
    """Opens a gateway on SQLite, and on Postgres, that buys from the given vendors."""

    @asynccontextmanager
    async def opened(
        *vendors: Simulator, room: int = 50, routing: dict[str, Any] | None = None
    ) -> AsyncIterator[Kitchen]:
        for vendor in vendors:
            monkeypatch.setenv(f"{vendor.name.upper()}_TEST_KEY", vendor.api_key)
        catalog = catalog_of({vendor.name: vendor for vendor in vendors}, routing=routing)
        for upstream in catalog["upstreams"].values():
            upstream["max_concurrency"] = room
        settings = write_settings(monkeypatch, tmp_path, catalog, database_url=database_url)
        async with open_kitchen(settings) as running:
            yield running
            async with running.parts.database.reading() as connection:
                assert await check_integrity(connection) == []

    return opened


def code_of(view: JobView) -> str | None:
    """The code of a job's error."""
    return None if view.job.error is None else str(view.job.error["code"])


async def test_a_job_that_found_every_vendor_full_was_not_started_and_expires(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor:
        async with kitchen(vendor, room=1, routing={"deadline_s": 3}) as running:
            hold = vendor.hold()
            first = await running.order("takes the only place")
            await hold.reached()
            second = await running.order("finds none")
            await asyncio.sleep(1.5)
            waiting = await running.parts.jobs.view(second, running.team_id)
            assert (waiting.job.status, waiting.job.started_at) == (Status.QUEUED, None)
            ended = await running.served(second)
            assert (ended.job.status, code_of(ended)) == (Status.EXPIRED, "upstream_unavailable")
            assert (ended.job.started_at, ended.attempts) == (None, ())
            hold.release()
            await running.until(first, lambda view: not view.attempts[0].state.is_open)
        assert vendor.ledger.posts == 1


async def test_a_job_is_final_at_its_deadline_and_the_call_in_flight_is_followed(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor, routing={"deadline_s": 1.5}) as running:
        hold = vendor.hold()
        began = time.monotonic()
        job_id = await running.order()
        await hold.reached()
        ended = await running.served(job_id)
        assert time.monotonic() - began < 5
        assert (ended.job.status, code_of(ended)) == (Status.FAILED, "upstream_outcome_unknown")
        assert ended.attempts[0].state.is_open
        # What it may cost is held until that is known.
        assert ended.cost_micros == ended.attempts[0].hold_micros
        assert ended.cost_is_estimated
        hold.release()
        view = await running.until(job_id, lambda view: bool(view.late))
        assert (view.job.status, view.pictures) == (Status.FAILED, ())
        assert view.attempts[0].state is AttemptState.SUCCEEDED
        assert view.attempts[0].cost_micros is not None


async def test_a_job_is_cancelled_after_its_time_and_the_call_in_flight_is_followed(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor) as running:
        hold = vendor.hold()
        job_id = await running.order(cancel_after_s=1.0)
        await hold.reached()
        ended = await running.served(job_id)
        assert (ended.job.status, ended.job.error) == (Status.CANCELLED, None)
        hold.release()
        view = await running.until(job_id, lambda view: bool(view.late))
        assert (view.job.status, view.attempts[0].state) == (Status.CANCELLED, AttemptState.SUCCEEDED)


async def test_a_waiting_job_is_cancelled_about_a_second_after_its_time_for_nothing(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor, room=1) as running:
        hold = vendor.hold()
        first = await running.order("takes the only place")
        await hold.reached()
        began = time.monotonic()
        second = await running.order("finds none", cancel_after_s=1.0)
        ended = await running.served(second)
        assert 0.9 < time.monotonic() - began < 4
        assert (ended.job.status, ended.attempts, ended.cost_micros) == (Status.CANCELLED, (), 0)
        hold.release()
        assert (await running.served(first)).job.status is Status.SUCCEEDED


async def test_the_last_vendor_that_may_be_asked_fails_safely_and_so_all_have_failed(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor) as running:
        vendor.script("insufficient_quota")
        ended = await running.served(await running.order())
        assert [item.state for item in ended.attempts] == [AttemptState.UNPAID]
        assert (ended.job.status, code_of(ended)) == (Status.FAILED, "all_upstreams_failed")
        # The next one asks nobody.
        ended = await running.served(await running.order())
        assert (ended.attempts, code_of(ended)) == ((), "upstream_unavailable")


async def test_a_vendor_that_does_not_say_what_is_wrong_is_understood_by_those_before_it(
    kitchen: Open,
) -> None:
    async with (
        OpenAi(api_key="sk-test") as plain,
        Vercel(api_key="vck-test") as vague,
        kitchen(plain, vague) as running,
    ):
        view = await running.served(
            await running.order("[[openai@unknown_parameter:style]] [[vercel@invalid_value]]")
        )
        assert [attempt.failure for attempt in view.attempts] == ["unsupported", "invalid"]
        assert view.job.error is not None
        assert (view.job.error["code"], view.job.error["param"]) == ("unsupported_parameter", "style")


@pytest.mark.parametrize("switch", ["off", "draining"])
async def test_with_every_vendor_switched_off_a_job_fails_at_once(kitchen: Open, switch: str) -> None:
    async with (
        OpenAi(api_key="sk-a") as first,
        TheRouter(api_key="sk-b") as second,
        kitchen(first, second) as running,
    ):
        for name in ("openai", "therouter"):
            await running.parts.routes.turn(name, None, switch)
        ended = await running.served(await running.order(), within_s=5)
        assert (ended.job.status, code_of(ended)) == (Status.FAILED, "upstream_unavailable")
        assert ended.job.error is not None
        assert ended.job.error["retry_after_s"]


async def test_a_job_waits_for_a_vendor_that_cools_down_though_the_others_are_switched_off(
    kitchen: Open,
) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("429:1")
        async with kitchen(first, second) as running:
            await running.parts.routes.turn("therouter", None, "off")
            assert (await running.served(await running.order())).job.status is Status.SUCCEEDED
