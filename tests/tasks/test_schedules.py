"""The schedules outlast a database that is away: what they missed, their next call does."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.assets.storage import storage_from_url
from app.db.engine import Database
from app.jobs.sweeper import Sweeper
from app.jobs.transitions import Transitions
from app.kit.doorbell import LocalDoorbell
from app.kit.events import LocalEvents
from app.tasks.schedules import purge, sweep


@pytest.mark.parametrize("task", [sweep, purge])
async def test_a_schedule_is_no_failure_while_the_database_is_away(
    task: Callable[[dict[Any, Any]], Awaitable[None]], tmp_path: Path
) -> None:
    database = Database("postgresql://me:secret@127.0.0.1:9/darkroom")
    storage = storage_from_url((tmp_path / "files").as_uri(), tmp_path, {})
    doorbell = LocalDoorbell(asyncio.Event())
    sweeper = Sweeper(database, Transitions(database, lease_s=30.0), storage, LocalEvents(), doorbell)
    await task({"sweeper": sweeper})
    await database.close()
