"""The schedules outlast a database that is away: what they missed, their next call does."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.db.engine import StoreUnavailable
from app.tasks.schedules import purge, sweep


class CutOff:
    """A sweeper whose database is away."""

    async def sweep(self) -> int:
        """Fail as the real one does then."""
        raise StoreUnavailable("the database did not answer")

    async def purge(self) -> int:
        """Fail as the real one does then."""
        raise StoreUnavailable("the database did not answer")


@pytest.mark.parametrize("task", [sweep, purge])
async def test_a_schedule_is_no_failure_while_the_database_is_away(
    task: Callable[[dict[Any, Any]], Awaitable[None]],
) -> None:
    await task({"sweeper": CutOff()})
