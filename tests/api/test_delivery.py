"""Work for a client that has gone away is ended, and what becomes of it then is nobody's bug."""

import asyncio
import gc
from typing import Any

from app.api.delivery import unless
from app.db.engine import StoreUnavailable


async def test_work_that_fails_while_it_is_abandoned_is_not_told_as_a_bug() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            gone.set_result(None)
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            raise StoreUnavailable("the database did not answer") from exc
        return "too late"

    assert await unless(gone, work()) is None
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
