"""Hands a job over to whoever asked for it: at once as a job, held until there is a result, or as a stream."""

import asyncio
from datetime import timedelta
from email.utils import format_datetime
from typing import Final

from fastapi.responses import JSONResponse, RedirectResponse
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope, Send

from app.api.calls import CallOptions
from app.api.completions import DIALECT, ChatEvents, completion
from app.api.delivery import HeldAnswer, noted, receive_when, unless
from app.api.errors import error_response, problem_of_view
from app.api.rates import rate_headers
from app.api.rendering import Renderer, result_headers, result_of, status_of
from app.api.sse import HEARTBEAT_S
from app.api.streaming import EventDialect, ImageEvents, StreamedAnswer, checked_base64
from app.assets.storage import Storage
from app.jobs.errors import PictureNotFound, ResultExpired
from app.jobs.lifecycle import Status
from app.jobs.service import JobService, JobView
from app.jobs.submissions import IDEMPOTENCY_TTL_S, Submitted
from app.kit.json_stream import render

POLL_AFTER_S: Final = 2
"""Advised between two looks at a job: pictures take half a minute or more."""

_BUSIEST_HEARTBEAT_S: Final = 0.1
"""However short a client says that it listens: comments are no reason to keep a core busy."""


class Answers:
    """Makes the answers to calls that ask for pictures."""

    def __init__(
        self,
        jobs: JobService,
        storage: Storage,
        renderer: Renderer,
        *,
        sync_timeout_s: float,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """Join the parts.

        Args:
            jobs: waited for, and told how an answer ended.
            storage: where pictures are streamed from.
            renderer: writes jobs and links.
            sync_timeout_s: how long a caller is held at most.
            heartbeat_s: the longest silence in a stream.
        """
        self._jobs = jobs
        self._storage = storage
        self._renderer = renderer
        self._sync_timeout_s = sync_timeout_s
        self._heartbeat_s = heartbeat_s

    def to_call(self, submitted: Submitted, options: CallOptions) -> Response:
        """The answer to a call: the job at once, or its result once there is one."""
        headers = repetition_headers(submitted, options)
        job = submitted.job
        if options.is_async:
            return self.accepted(submitted, options)
        if job.request.stream:
            return self._stream(submitted, options, ImageEvents(self._storage))
        timeout_s = options.hold_s(self._sync_timeout_s)
        return _Held(self._jobs, self, submitted, timeout_s=timeout_s, headers=headers)

    def chat_stream(self, submitted: Submitted, options: CallOptions, *, wants_usage: bool) -> Response:
        """The answer to a chat completion whose client wants chunks."""
        return self._stream(
            submitted, options, ChatEvents(self._renderer, self._storage, wants_usage=wants_usage)
        )

    def _stream(self, submitted: Submitted, options: CallOptions, dialect: EventDialect) -> Response:
        # An SDK's read timeout is for the silence between two events, which heartbeats break.
        longest_s = HEARTBEAT_S if options.read_timeout_s is None else options.read_timeout_s / 2
        heartbeat_s = min(self._heartbeat_s, max(longest_s, _BUSIEST_HEARTBEAT_S))
        return StreamedAnswer(
            self._jobs,
            submitted.job,
            dialect,
            timeout_s=self._sync_timeout_s,
            heartbeat_s=heartbeat_s,
            extra_headers=repetition_headers(submitted, options),
        )

    async def result(self, view: JobView) -> Response:
        """What a job came to: its pictures, its own error, or 202 with the job while nobody knows."""
        if not view.job.status.is_final:
            return self._pending(view)
        problem = problem_of_view(view)
        return await self._pictures(view) if problem is None else error_response(problem)

    async def picture(self, view: JobView, index: int) -> Response:
        """The way to one of a job's pictures; as `result` before there is any, and after they are gone.

        Raises:
            PictureNotFound: the job has fewer pictures.
            ResultExpired: the picture has been deleted; the others keep their places.
        """
        if status_of(view.job) is not Status.SUCCEEDED:
            return await self.result(view)
        count = len(view.places)
        if not 0 <= index < count:
            message = (
                f"The job {view.job.id!r} has no picture at index {index}; it has {count}, counted from 0."
            )
            raise PictureNotFound(message, param="index", job_id=view.job.id)
        picture = view.places[index]
        if picture is None:
            message = f"The picture at index {index} of the job {view.job.id!r} has been deleted."
            raise ResultExpired(message, param="index", job_id=view.job.id)
        return RedirectResponse(self._renderer.link(picture), status_code=302)

    def _pending(self, view: JobView) -> Response:
        headers = {"retry-after": str(POLL_AFTER_S)}
        return JSONResponse(self._renderer.job(view), status_code=202, headers=headers)

    def accepted(self, submitted: Submitted, options: CallOptions) -> Response:
        """The answer to a call whose client wants the job: 202, at once."""
        job = submitted.job
        headers = repetition_headers(submitted, options) | {
            "location": self._renderer.polling_url(job.id),
            "retry-after": str(POLL_AFTER_S),
            "x-darkroom-job-id": job.id,
        }
        if options.prefers_async:
            headers["preference-applied"] = "respond-async"
        body = self._renderer.accepted(job)
        # With the job's id in hand, a later call is a new one; a lost answer leaves the job to the SDK's retry.
        told = BackgroundTask(noted, self._jobs.delivered, job.id)
        return JSONResponse(body, status_code=202, headers=headers, background=told)

    async def _pictures(self, view: JobView) -> Response:
        length, body = render(await self._document(view))
        headers = {**result_headers(view), "content-length": str(length)}
        return StreamingResponse(body, media_type="application/json", headers=headers)

    async def _document(self, view: JobView) -> dict[str, object]:
        if view.job.dialect == DIALECT:
            return await completion(view, self._renderer, self._storage)
        result = view.job.result or {}
        if view.job.request.response_format == "url":
            data: list[dict[str, object]] = [{"url": url} for url in self._renderer.links(view)]
        else:
            data = [{"b64_json": await checked_base64(self._storage, asset)} for asset in view.pictures]
        return result_of(result, data)


class _Held(HeldAnswer):
    """An answer that waits for its job's result."""

    def __init__(
        self,
        jobs: JobService,
        answers: Answers,
        submitted: Submitted,
        *,
        timeout_s: float,
        headers: dict[str, str],
    ) -> None:
        super().__init__(jobs, submitted.job.id)
        self._answers = answers
        self._team_id = submitted.job.team_id
        self._is_new = not submitted.is_replay
        self._timeout_s = timeout_s
        self._extra = headers

    async def answer(self, scope: Scope, gone: asyncio.Future[None], send: Send) -> bool:
        """Wait, and answer with what the job came to."""
        waiting = self._jobs.wait(
            self._job_id, self._team_id, timeout_s=self._timeout_s, is_caller=True, is_new=self._is_new
        )
        view = await unless(gone, waiting)
        if view is None:
            return False
        response = await self._answers.result(view)
        response.headers.update({**result_headers(view), **self._extra})
        await response(scope, receive_when(gone), send)
        return True


def repetition_headers(submitted: Submitted, options: CallOptions) -> dict[str, str]:
    """What an answer says of the idempotency of its call, and of how many more its caller may make."""
    headers = rate_headers(submitted.rates)
    if submitted.is_replay:
        headers["idempotency-replayed"] = "true"
    if options.idempotency_key is not None:
        # A key is bound in the transaction that creates its job.
        expires_at = submitted.job.created_at + timedelta(seconds=IDEMPOTENCY_TTL_S)
        headers["idempotency-expires"] = format_datetime(expires_at, usegmt=True)
    return headers
