"""Answers that wait for a job. How one ended is noted on the job, so that the SDK's own retry of a broken call finds
it again (reliability 3.5).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.api.resets import on_reset
from app.db.engine import StoreUnavailable
from app.jobs.service import JobService
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

T = TypeVar("T")

_under_way: set[asyncio.Future[None]] = set()


class HeldAnswer(Response):
    """An answer whose caller is held; a caller that goes away meanwhile leaves the job running."""

    def __init__(self, jobs: JobService, job_id: str) -> None:
        super().__init__()
        self._jobs = jobs
        self._job_id = job_id

    async def answer(self, scope: Scope, gone: asyncio.Future[None], send: Send) -> bool:
        """Send the answer, and stop when `gone` is done, which is when the client has gone away.

        Returns whether the client has no more to collect; whatever it was sent counts only when it was still there.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the caller, answer it, and note how that ended."""
        gone = asyncio.ensure_future(_disconnected(receive))
        is_sent = is_delivered = False

        async def watched(message: Message) -> None:
            nonlocal is_sent
            await send(message)
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            is_sent = is_last and not gone.done()

        try:
            is_delivered = await self.answer(scope, gone, watched) and is_sent
        finally:
            gone.cancel()
            note = self._jobs.delivered if is_delivered else self._jobs.cut_off
            await _shielded(noted(note, self._job_id))
        if is_delivered:
            on_reset(scope, lambda: _in_background(noted(self._jobs.not_delivered, self._job_id)))


def receive_when(gone: asyncio.Future[None]) -> Receive:
    """What an inner response listens to, so that it too stops when the client has gone away."""

    async def receive() -> Message:
        await asyncio.wait([gone])
        return {"type": "http.disconnect"}

    return receive


async def unless(gone: asyncio.Future[None], work: Coroutine[Any, Any, T]) -> T | None:
    """Do the work; None when the client goes away before it is done."""
    working = asyncio.ensure_future(work)
    try:
        either: list[asyncio.Future[Any]] = [working, gone]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await abandon(working)


async def abandon(work: asyncio.Future[Any]) -> None:
    """End work whose outcome nobody wants any more, and wait until it has cleaned up after itself."""
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()


async def noted(note: Callable[[str], Awaitable[None]], job_id: str) -> None:
    """Note how an answer ended. Not vital: without a note, the caller counts as cut off within seconds."""
    try:
        await note(job_id)
    except StoreUnavailable as exc:
        LOG.warning("answer.not_noted", job_id=job_id, reason=str(exc))


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone away. The body has been read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        continue


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)


async def _shielded(work: Awaitable[None]) -> None:
    """Finish a short piece of work although this task is cancelled meanwhile."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await working
        raise
