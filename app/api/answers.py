"""Hands a job over to whoever asked for it: at once as a job, or held until there is a result.

How an answer ended is noted on the job, so that the SDK's own retry of a broken call finds it again (reliability 3.5).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, Final, TypeVar

from fastapi.responses import JSONResponse, RedirectResponse
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.api.calls import CallOptions
from app.api.errors import error_response, problem_of, problem_of_job
from app.api.rendering import Renderer, result_headers, result_of, status_of
from app.assets.records import Asset
from app.assets.storage import Storage
from app.db.engine import StoreUnavailable
from app.jobs.errors import JobCancelled, PictureNotFound, ResultExpired
from app.jobs.lifecycle import Status
from app.jobs.service import IDEMPOTENCY_TTL_S, JobService, JobView, Submitted
from app.kit.base64 import encode_stream, encoded_length
from app.kit.json_stream import StreamedString, render
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

POLL_AFTER_S: Final = 2
"""Advised between two looks at a job: pictures take half a minute or more."""

T = TypeVar("T")


class Answers:
    """Makes the answers to calls that ask for pictures."""

    def __init__(
        self, jobs: JobService, storage: Storage, renderer: Renderer, *, sync_timeout_s: float
    ) -> None:
        """Join the parts.

        Args:
            jobs: waited for, and told how an answer ended.
            storage: where pictures are streamed from.
            renderer: writes jobs and links.
            sync_timeout_s: how long a caller is held at most.
        """
        self._jobs = jobs
        self._storage = storage
        self._renderer = renderer
        self._sync_timeout_s = sync_timeout_s

    def to_call(self, submitted: Submitted, options: CallOptions) -> Response:
        """The answer to a call: the job at once, or its result once there is one."""
        headers = _repetition_headers(submitted, options)
        if options.is_async:
            return self._accepted(submitted, options, headers)
        job = submitted.job
        timeout_s = options.hold_s(self._sync_timeout_s)
        return _Held(self._jobs, self, job.id, job.team_id, timeout_s=timeout_s, headers=headers)

    async def result(self, view: JobView) -> Response:
        """What a job came to: its pictures, its own error, or 202 with the job while nobody knows."""
        job = view.job
        match status_of(job):
            case Status.QUEUED | Status.IN_PROGRESS:
                return self._pending(view)
            case Status.CANCELLED:
                message = f"The job {job.id!r} was cancelled, so it has no result."
                return error_response(problem_of(JobCancelled(message, job_id=job.id)))
            case Status.FAILED:
                return error_response(problem_of_job(job))
            case Status.EXPIRED if job.status is Status.EXPIRED:
                return error_response(problem_of_job(job))
            case Status.EXPIRED:
                message = f"The pictures of the job {job.id!r} have been deleted; its record stays."
                return error_response(problem_of(ResultExpired(message, job_id=job.id)))
            case Status.SUCCEEDED:
                return await self._pictures(view)

    async def picture(self, view: JobView, index: int) -> Response:
        """The way to one of a job's pictures; as `result` before there is any, and after they are gone.

        Raises:
            PictureNotFound: the job has fewer pictures.
        """
        if status_of(view.job) is not Status.SUCCEEDED:
            return await self.result(view)
        count = len(view.pictures)
        if index >= count:
            message = (
                f"The job {view.job.id!r} has no picture at index {index}; it has {count}, counted from 0."
            )
            raise PictureNotFound(message, param="index", job_id=view.job.id)
        return RedirectResponse(self._renderer.link(view.pictures[index]), status_code=302)

    def _pending(self, view: JobView) -> Response:
        headers = {"retry-after": str(POLL_AFTER_S)}
        return JSONResponse(self._renderer.job(view), status_code=202, headers=headers)

    def _accepted(self, submitted: Submitted, options: CallOptions, headers: dict[str, str]) -> Response:
        job = submitted.job
        headers |= {
            "location": self._renderer.polling_url(job.id),
            "retry-after": str(POLL_AFTER_S),
            "x-darkroom-job-id": job.id,
        }
        if options.prefers_async:
            headers["preference-applied"] = "respond-async"
        body = self._renderer.accepted(job)
        # With the job's id in hand, a later call is a new one; a lost answer leaves the job to the SDK's retry.
        noted = BackgroundTask(_noted, self._jobs.delivered, job.id)
        return JSONResponse(body, status_code=202, headers=headers, background=noted)

    async def _pictures(self, view: JobView) -> Response:
        result = view.job.result or {}
        if view.job.request.response_format == "url":
            data: list[dict[str, object]] = [{"url": url} for url in self._renderer.links(view)]
        else:
            data = [{"b64_json": await self._streamed(asset)} for asset in view.pictures]
        length, body = render(result_of(result, data))
        headers = {**result_headers(view), "content-length": str(length)}
        return StreamingResponse(body, media_type="application/json", headers=headers)

    async def _streamed(self, asset: Asset) -> StreamedString:
        # Asked while an error can still be answered.
        size_bytes = await self._storage.size(asset.key)
        return StreamedString(
            encoded_length(size_bytes), lambda: encode_stream(self._storage.open(asset.key))
        )


class _Held(Response):
    """An answer that waits for its job, and notes on the job how it ended."""

    def __init__(
        self,
        jobs: JobService,
        answers: Answers,
        job_id: str,
        team_id: str,
        *,
        timeout_s: float,
        headers: dict[str, str],
    ) -> None:
        super().__init__()
        self._jobs = jobs
        self._answers = answers
        self._job_id = job_id
        self._team_id = team_id
        self._timeout_s = timeout_s
        self._extra = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the caller, then answer it; a caller that goes away meanwhile leaves the job running."""
        gone = asyncio.ensure_future(_disconnected(receive))
        is_delivered = False

        async def watched(message: Message) -> None:
            nonlocal is_delivered
            await send(message)
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            is_delivered = is_last and not gone.done()

        async def until_gone() -> Message:
            await asyncio.wait([gone])
            return {"type": "http.disconnect"}

        try:
            waiting = self._jobs.wait(self._job_id, self._team_id, timeout_s=self._timeout_s, is_caller=True)
            view = await _unless(gone, waiting)
            if view is not None:
                response = await self._answers.result(view)
                response.headers.update({**result_headers(view), **self._extra})
                await response(scope, until_gone, watched)
        finally:
            gone.cancel()
            note = self._jobs.delivered if is_delivered else self._jobs.cut_off
            await _shielded(_noted(note, self._job_id))


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone away. The body has been read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def _unless(gone: asyncio.Future[None], work: Coroutine[Any, Any, T]) -> T | None:
    """Do the work; None when the client goes away before it is done."""
    working = asyncio.ensure_future(work)
    try:
        either: list[asyncio.Future[Any]] = [working, gone]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()


async def _noted(note: Callable[[str], Awaitable[None]], job_id: str) -> None:
    """Note how an answer ended. Not vital: without a note, the caller counts as cut off within seconds."""
    try:
        await note(job_id)
    except StoreUnavailable as exc:
        LOG.warning("answer.not_noted", job_id=job_id, reason=str(exc))


async def _shielded(work: Awaitable[None]) -> None:
    """Finish a short piece of work although this task is cancelled meanwhile."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await working
        raise


def _repetition_headers(submitted: Submitted, options: CallOptions) -> dict[str, str]:
    headers = {"idempotency-replayed": "true"} if submitted.is_replay else {}
    if options.idempotency_key is not None:
        # A key is bound in the transaction that creates its job.
        expires_at = submitted.job.created_at + timedelta(seconds=IDEMPOTENCY_TTL_S)
        headers["idempotency-expires"] = format_datetime(expires_at, usegmt=True)
    return headers
