"""Jobs carried to their end by the real engine, over real HTTP, at vendors that misbehave."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.domain.money import Certainty
from app.jobs.integrity import check_integrity
from app.jobs.lifecycle import AttemptState, Status
from app.jobs.openings import NewAttempt
from tests.jobs.conftest import NO_LIMITS
from tests.kitchen import Kitchen, catalog_of, open_kitchen, write_settings
from tests.simulators.openai import OpenAi
from tests.simulators.server import Simulator
from tests.simulators.therouter import Status as VendorStatus
from tests.simulators.therouter import TheRouter

Open = Callable[..., AbstractAsyncContextManager[Kitchen]]


@pytest.fixture
def kitchen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> Open:
    """Opens a gateway on SQLite, and on Postgres, that buys from the given vendors."""

    @asynccontextmanager
    async def opened(
        *vendors: Simulator, routing: dict[str, Any] | None = None, unpriced: str | None = None
    ) -> AsyncIterator[Kitchen]:
        for vendor in vendors:
            monkeypatch.setenv(f"{vendor.name.upper()}_TEST_KEY", vendor.api_key)
        catalog = catalog_of({vendor.name: vendor for vendor in vendors}, routing=routing)
        for route in catalog["models"]["gpt-image-2"]["routes"]:
            if route["upstream"] == unpriced:
                del route["prices"]
        settings = write_settings(monkeypatch, tmp_path, catalog, database_url=database_url)
        async with open_kitchen(settings) as running:
            yield running

    return opened


async def test_a_picture_is_bought_once_and_kept(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor) as running:
        view = await running.served(await running.order(size="1024x1024", quality="low"))
        assert view.job.status is Status.SUCCEEDED
        assert [picture.format for picture in view.pictures] == ["png"]
        assert (vendor.ledger.posts, vendor.ledger.charges) == (1, 1)


async def test_a_ticket_is_followed_until_its_pictures_come(kitchen: Open) -> None:
    async with TheRouter(api_key="sk-test") as vendor, kitchen(vendor) as running:
        view = await running.served(await running.order(n=2))
        assert view.job.status is Status.SUCCEEDED
        assert len(view.pictures) == 2
        assert vendor.ledger.posts == 1


async def test_a_busy_upstream_is_passed_over(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("429:7")
        async with kitchen(first, second) as running:
            view = await running.served(await running.order())
            assert [item.upstream for item in view.attempts] == ["openai", "therouter"]
            assert view.job.status is Status.SUCCEEDED
            assert view.attempts[0].cost_micros == 0


async def test_an_edges_page_may_have_been_paid_for_and_ends_the_job(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("502;billed")
        async with kitchen(first, second) as running:
            view = await running.served(await running.order())
            assert view.job.error is not None
            assert view.job.error["code"] == "upstream_outcome_unknown"
            assert (first.ledger.posts, second.ledger.posts) == (1, 0)
            assert view.cost_micros == view.attempts[0].hold_micros


@pytest.mark.parametrize("unpriced", ["therouter", "openai"])
async def test_a_call_that_may_be_paid_for_is_booked_at_the_price_of_its_own_route(
    kitchen: Open, unpriced: str
) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("502;billed")
        async with kitchen(first, second, unpriced=unpriced) as running:
            view = await running.served(await running.order(n=2, size="1024x1024", quality="high"))
            (attempt,) = view.attempts
            assert attempt.upstream == "openai"
            booked = (attempt.hold_micros, attempt.cost_micros, attempt.certainty)
            if unpriced == "openai":
                assert booked == (None, 0, Certainty.UNPRICED)
            else:
                assert booked == (422_000, 422_000, Certainty.POSSIBLE)
            async with running.parts.database.reading() as connection:
                assert await check_integrity(connection) == []


async def test_failover_asks_one_more_after_an_unknown_outcome(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("reset:body;billed")
        async with kitchen(first, second, routing={"on_unknown_outcome": "failover"}) as running:
            view = await running.served(await running.order())
            assert view.job.status is Status.SUCCEEDED
            assert [item.state for item in view.attempts] == [AttemptState.UNKNOWN, AttemptState.SUCCEEDED]


async def test_moderation_stops_everywhere(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("moderation_blocked")
        async with kitchen(first, second) as running:
            view = await running.served(await running.order())
            assert view.job.error is not None
            assert view.job.error["code"] == "moderation_blocked"
            assert second.ledger.posts == 0


async def test_a_wrong_key_puts_the_upstream_aside_for_all_jobs(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-a") as first, TheRouter(api_key="sk-b") as second:
        first.script("401", "401", "401")
        async with kitchen(first, second) as running:
            for _ in range(2):
                view = await running.served(await running.order())
                assert view.job.status is Status.SUCCEEDED
            assert (first.ledger.posts, second.ledger.posts) == (1, 2)


async def test_a_cancelled_call_is_followed_to_its_end_and_kept_as_late(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor) as running:
        hold = vendor.hold()
        job_id = await running.order()
        await hold.reached()
        cancelled = await running.parts.jobs.cancel(job_id, running.team_id)
        assert cancelled.job.status is Status.CANCELLED
        hold.release()
        view = await running.until(job_id, lambda view: bool(view.late))
        assert view.job.status is Status.CANCELLED
        assert view.attempts[0].state is AttemptState.SUCCEEDED


async def test_a_restart_resumes_an_order_instead_of_repeating_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    async with TheRouter(api_key="sk-test", working_s=None) as vendor:
        monkeypatch.setenv("THEROUTER_TEST_KEY", "sk-test")
        settings = write_settings(
            monkeypatch, tmp_path, catalog_of({"therouter": vendor}), database_url=sqlite_url
        )
        async with open_kitchen(settings) as running:
            job_id = await running.order()
            await running.until(
                job_id,
                lambda view: view.attempts[0].state is AttemptState.ACCEPTED if view.attempts else False,
            )
        async with open_kitchen(settings) as running:
            (ticket,) = vendor.jobs
            vendor.move(ticket, VendorStatus.SUCCEEDED)
            view = await running.served(job_id)
            assert view.job.status is Status.SUCCEEDED
        assert vendor.ledger.posts == 1


async def test_partial_pictures_are_shown_while_the_vendor_draws(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor) as running:
        view = await running.served(await running.order(n=2, stream=True, partial_images=2))
        assert view.job.status is Status.SUCCEEDED
        assert len(view.pictures) == 2
        assert [picture.index for picture in view.partials] == [0, 1] * (len(view.partials) // 2)
        assert view.partials


async def test_a_stream_that_breaks_before_a_picture_may_have_been_paid_for(kitchen: Open) -> None:
    async with OpenAi(api_key="sk-test") as vendor, kitchen(vendor) as running:
        vendor.script("cut")
        view = await running.served(await running.order(stream=True, partial_images=1))
        assert view.job.error is not None
        assert view.job.error["code"] == "upstream_outcome_unknown"


async def test_a_restart_draws_again_what_ended_with_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    async with OpenAi(api_key="sk-test") as vendor:
        monkeypatch.setenv("OPENAI_TEST_KEY", "sk-test")
        catalog = catalog_of({"openai": vendor})
        catalog["upstreams"]["openai"] = {
            "adapter": "sandbox",
            "base_url": "http://sandbox.invalid/v1",
            "max_concurrency": 5,
            "options": {"delay_s": 0},
        }
        settings = write_settings(monkeypatch, tmp_path, catalog, database_url=sqlite_url)
        async with open_kitchen(settings, is_working=False) as running:
            job_id = await running.order()
            moves = running.parts.transitions
            (job,) = await moves.claim("a process that is killed", 1)
            planned = [NewAttempt(id="att_1", upstream="openai", target={"model": "gpt-image-2"}, pictures=1)]
            await moves.open_attempts(
                job.id, job.lease_token, planned, round_number=1, limits=NO_LIMITS, timeout_s=330.0
            )
        async with open_kitchen(settings) as running:
            view = await running.served(job_id)
            assert view.job.status is Status.SUCCEEDED
            assert [item.state for item in view.attempts] == [AttemptState.UNPAID, AttemptState.SUCCEEDED]
