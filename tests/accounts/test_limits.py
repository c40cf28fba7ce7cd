"""What teams and keys may do: models, rates, jobs at once, and the length of the queue."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from app.accounts.errors import ModelNotAllowed, QueueFull, RateLimitExceeded
from app.accounts.limits import MAX_QUEUED, Limits, Terms, limits_from
from app.api.rates import go_duration
from app.db.engine import Database
from app.kit.json import Json
from tests.admin.conftest import Office
from tests.jobs.shop import CAREFUL, EAGER
from tests.kitchen import API_KEY
from tests.ledger.conftest import TEAM, Till

GENERATIONS = "/v1/images/generations?async=true"


def _boat(n: int = 1, prompt: str = "a boat") -> dict[str, Any]:
    return {"model": "gpt-image-2", "prompt": prompt, "n": n, "quality": "low", "size": "1024x1024"}


async def _limit(office: Office, **limits: Json) -> None:
    changed = await office.admin.patch("/admin/v1/teams/default", json={"limits": limits})
    assert changed.status_code == 200, changed.text


def _rates(response: httpx2.Response) -> dict[str, str]:
    prefix = "x-ratelimit-"
    return {
        name.removeprefix(prefix): value
        for name, value in response.headers.items()
        if name.startswith(prefix)
    }


def test_budgets_are_read_as_they_were_written() -> None:
    limits = limits_from({"budget_day_usd": "25.00", "budget_month_usd": 0.1, "max_jobs": 3})
    assert (limits.budget_day_micros, limits.budget_month_micros, limits.max_jobs) == (25_000_000, 100_000, 3)
    assert limits.allowed_models is None


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0s"),
        (-1, "0s"),
        (0.017, "17ms"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (3661, "1h1m1s"),
    ],
)
def test_resets_are_durations_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


async def test_without_limits_nothing_is_said_of_rates(office: Office) -> None:
    made = await office.team.post(GENERATIONS, json=_boat())
    assert (made.status_code, _rates(made)) == (202, {})


async def test_headers_tell_how_many_more_may_be_asked_for(office: Office) -> None:
    await _limit(office, requests_per_minute=60, images_per_minute=6)
    made = await office.team.post(GENERATIONS, json=_boat(2))
    told = _rates(made)
    assert (told["limit-requests"], told["remaining-requests"]) == ("60", "59")
    assert (told["limit-images"], told["remaining-images"]) == ("6", "4")
    assert told["reset-images"].endswith("s")


async def test_too_many_requests_are_told_when_to_come_back(office: Office) -> None:
    await _limit(office, requests_per_minute=2)
    answers = [await office.team.post(GENERATIONS, json=_boat(prompt=str(turn))) for turn in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-should-retry"] == "true"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert _rates(refused)["remaining-requests"] == "0"


async def test_pictures_count_by_their_number_and_only_when_they_become_a_job(office: Office) -> None:
    await _limit(office, images_per_minute=4, budget_day_usd="0")
    refused = await office.team.post(GENERATIONS, json=_boat(4))
    assert refused.json()["error"]["code"] == "insufficient_quota"
    await _limit(office, budget_day_usd=None)
    again = {"idempotency-key": "once"}
    first = await office.team.post(GENERATIONS, json=_boat(4), headers=again)
    replayed = await office.team.post(GENERATIONS, json=_boat(4), headers=again)
    other = await office.team.post(GENERATIONS, json=_boat(4))
    assert [answer.status_code for answer in (first, replayed, other)] == [202, 202, 429]


async def test_more_pictures_than_any_minute_has_are_refused_for_good_and_not_counted(office: Office) -> None:
    await _limit(office, requests_per_minute=2, images_per_minute=2)
    for _ in range(3):
        refused = await office.team.post(GENERATIONS, json=_boat(3))
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (429, "rate_limit_exceeded", "n")
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert "2 images a minute" in error["message"]
    made = await office.team.post(GENERATIONS, json=_boat(2))
    assert (made.status_code, _rates(made)["remaining-requests"]) == (202, "1")


async def test_a_job_outlives_the_rate_that_it_would_exceed_by_now(office: Office) -> None:
    again = {"idempotency-key": "once"}
    first = await office.team.post(GENERATIONS, json=_boat(3), headers=again)
    await _limit(office, images_per_minute=2)
    replayed = await office.team.post(GENERATIONS, json=_boat(3), headers=again)
    assert (replayed.status_code, replayed.json()["id"]) == (202, first.json()["id"])


async def test_one_a_minute_is_said_in_the_singular(office: Office) -> None:
    await _limit(office, requests_per_minute=1)
    answers = [await office.team.post(GENERATIONS, json=_boat(prompt=str(turn))) for turn in range(2)]
    message = answers[-1].json()["error"]["message"]
    assert message.startswith("This team may ask for 1 request a minute, and none is left. Try again in ")


async def test_a_spent_budget_is_never_retried(office: Office) -> None:
    await _limit(office, budget_month_usd="0", requests_per_minute=60)
    refused = await office.team.post(GENERATIONS, json=_boat())
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert _rates(refused)["remaining-requests"] == "59"
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert "retry-after" not in refused.headers


async def test_a_model_that_is_not_allowed_is_refused_and_not_listed(office: Office) -> None:
    await _limit(office, allowed_models=["gpt-image-2"])
    assert len((await office.team.get("/v1/models")).json()["data"]) == 1
    team = await office.parts.accounts.find_team("default")
    await office.parts.accounts.change_team(team.id, limits={"allowed_models": ["another"]})
    refused = await office.team.post(GENERATIONS, json=_boat())
    shown = await office.team.get("/v1/models/openai/gpt-image-2")
    for answer in (refused, shown):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    assert (await office.team.get("/v1/models")).json()["data"] == []


async def test_a_key_is_limited_within_its_team(till: Till) -> None:
    await till.limit(allowed_models=[CAREFUL, EAGER])
    await till.limit(of_key=True, allowed_models=[CAREFUL])
    await till.submit(model=CAREFUL)
    with pytest.raises(ModelNotAllowed):
        await till.submit(model=EAGER)


async def test_jobs_at_once_are_free_again_when_they_end(till: Till) -> None:
    await till.limit(max_jobs=2)
    first = await till.submit()
    await till.submit()
    with pytest.raises(RateLimitExceeded) as refused:
        await till.submit()
    assert refused.value.retry_after_s is not None
    await till.door.cancel(first.id, TEAM)
    await till.submit()


async def test_jobs_at_once_are_exact_however_many_come_at_once(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        till = Till(database)
        await till.open()
        await till.limit(of_key=True, max_jobs=5)
        submitted = await asyncio.gather(*(till.submit() for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(item, RateLimitExceeded) for item in submitted) == 15
    finally:
        await database.close()


def test_a_queue_has_an_end() -> None:
    terms = Terms(
        team_id="t", api_key_id="k", key_line_id="k", team=Limits(), key=Limits(), at=datetime.now(UTC)
    )
    terms.check_queue(of_team=MAX_QUEUED - 1, of_key=MAX_QUEUED - 1)
    with pytest.raises(QueueFull) as refused:
        terms.check_queue(of_team=MAX_QUEUED, of_key=0)
    assert (refused.value.code, refused.value.should_retry) == ("queue_full", True)


@pytest.mark.parametrize("owner", ["teams/default", "keys/{key_id}"])
async def test_a_queue_ends_where_an_operator_says(office: Office, owner: str) -> None:
    key_id = (await office.kitchen.parts.accounts.authenticate(API_KEY)).api_key_id
    path = f"/admin/v1/{owner.format(key_id=key_id)}"
    limited = await office.admin.patch(path, json={"limits": {"max_queued": 2}})
    assert limited.json()["limits"]["max_queued"] == 2
    answers = [await office.team.post(GENERATIONS, json=_boat(prompt=str(n))) for n in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[-1].json()["error"]["code"] == "queue_full"
    await office.admin.post(f"/admin/v1/jobs/{answers[0].json()['id']}/cancel")
    assert (await office.team.post(GENERATIONS, json=_boat(prompt="again"))).status_code == 202
