"""Lists of jobs: newest first, page by page, and complete under every filter."""

from typing import Any

import pytest

from app.jobs import repository
from app.jobs.lifecycle import Status
from tests.jobs.conftest import Store


async def listed(store: Store, team_id: str | None = "team_default", **filters: Any) -> list[str]:
    """The ids of a page."""
    wanted = {"status": None, "model": None, "metadata": {}, "after": None, "limit": 10, **filters}
    async with store.database.reading() as connection:
        return [job.id for job in await repository.list_jobs(connection, team_id, **wanted)]


async def test_pages_follow_each_other_without_gap_or_repetition(store: Store) -> None:
    ids = [await store.job() for _ in range(7)]
    seen: list[str] = []
    while page := await listed(store, after=seen[-1] if seen else None, limit=3):
        seen += page
    assert seen == ids[::-1]


async def test_a_team_sees_its_own_jobs_and_operators_see_all(store: Store) -> None:
    red, blue = await store.job("red"), await store.job("blue")
    assert await listed(store, "team_red") == [red]
    assert await listed(store, None) == [blue, red]


async def test_jobs_are_found_by_state_and_model(store: Store) -> None:
    other = await store.job(model="dall-e-9")
    cancelled = await store.job()
    await store.moves.cancel(cancelled, None)
    assert await listed(store, status=Status.CANCELLED) == [cancelled]
    assert await listed(store, model="dall-e-9") == [other]
    assert await listed(store, model="dall-e-9", status=Status.CANCELLED) == []


@pytest.mark.parametrize("key, value", [("order", "4711"), ("o'r\"der", "ä $.[]"), ("", "")])
async def test_jobs_are_found_by_what_their_client_gave_them(store: Store, key: str, value: str) -> None:
    marked = [await store.job(metadata={key: value, "env": env}) for env in ("test", "prod", "prod")]
    await store.job(metadata={"env": "prod"})
    await store.job("other", metadata={key: value})
    assert await listed(store, metadata={key: value}) == marked[::-1]
    assert await listed(store, metadata={key: value, "env": "prod"}) == [marked[2], marked[1]]
    assert await listed(store, metadata={key: value, "env": "prod"}, after=marked[2]) == [marked[1]]
    assert await listed(store, metadata={key: value, "env": "none"}) == []


async def test_operators_find_jobs_of_all_teams_by_metadata(store: Store) -> None:
    marked = [await store.job(team, metadata={"order": "4711"}) for team in ("red", "blue")]
    assert await listed(store, None, metadata={"order": "4711"}) == marked[::-1]
