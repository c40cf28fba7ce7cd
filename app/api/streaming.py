"""`stream: true`: a job's pictures as server-sent events while its caller is held (upstreams.md 1.10).

What an event looks like is the dialect's to say; when it is due is decided here.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.datastructures import MutableHeaders
from starlette.types import Scope, Send

from app.api.delivery import HeldAnswer, abandon, receive_when
from app.api.errors import Problem, error_document, error_response, problem_of, problem_of_view
from app.api.rendering import event_usages, status_of
from app.api.sse import HEADERS, HEARTBEAT
from app.assets.records import Asset
from app.assets.storage import Storage
from app.domain.requests import Operation
from app.jobs.errors import JobStillRunning, ShuttingDown
from app.jobs.lifecycle import Status
from app.jobs.records import Job
from app.jobs.service import JobService, JobView
from app.kit.base64 import encode_stream, encoded_length
from app.kit.json_stream import StreamedString, render

_EVENT_NAMES: Final = {
    Operation.GENERATION: "image_generation",
    Operation.EDIT: "image_edit",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One server-sent event."""

    name: str | None
    """None for a dialect whose events are told apart by their data."""
    data: Mapping[str, object]
    """A JSON document, in which `StreamedString` stands for a picture."""


class EventDialect(Protocol):
    """How one API writes its events."""

    end: bytes
    """What follows the last event."""

    def partial(self, view: JobView, coarse: Asset) -> Frame | None:
        """The event of a coarse picture; None where the API has none."""
        ...

    async def completed(self, view: JobView) -> Sequence[Frame]:
        """The events of a job that succeeded, one picture after the other."""
        ...

    def failed(self, problem: Problem) -> Frame:
        """The event of an error after which nothing follows."""
        ...


class ImageEvents:
    """Events as OpenAI's Images API writes them. Source: upstreams.md 1.10, read 2026-11."""

    end: bytes = b""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def partial(self, view: JobView, coarse: Asset) -> Frame:
        """`….partial_image`, with the settings as they were asked for: nobody knows yet what `auto` will be."""
        request = view.job.request
        name = f"{_EVENT_NAMES[request.operation]}.partial_image"
        size = f"{coarse.width_px}x{coarse.height_px}" if request.size in (None, "auto") else request.size
        return Frame(
            name=name,
            data={
                "type": name,
                "b64_json": streamed_base64(self._storage, coarse),
                "created_at": int(coarse.created_at.timestamp()),
                "size": size,
                "quality": request.quality or "auto",
                "background": request.background or "auto",
                "output_format": coarse.format.value,
                "partial_image_index": coarse.index,
            },
        )

    async def completed(self, view: JobView) -> Sequence[Frame]:
        """One `….completed` for each picture; their usages add up to the job's, and are null when it is unknown."""
        job = view.job
        result = job.result or {}
        name = f"{_EVENT_NAMES[job.request.operation]}.completed"
        usages = event_usages(result.get("usage"), len(view.pictures))
        return [
            Frame(
                name=name,
                data={
                    "type": name,
                    "b64_json": await checked_base64(self._storage, picture),
                    "created_at": _finished_at(job),
                    "size": f"{picture.width_px}x{picture.height_px}",
                    "quality": result.get("quality") or "auto",
                    "background": result.get("background") or "auto",
                    "output_format": picture.format.value,
                    "usage": usage,
                    # OpenAI has no such member; it says what the caller would otherwise not learn.
                    **({"adjusted": result["adjusted"]} if result.get("adjusted") else {}),
                },
            )
            for picture, usage in zip(view.pictures, usages, strict=True)
        ]

    def failed(self, problem: Problem) -> Frame:
        """`error`, whose data makes OpenAI's SDKs raise."""
        return Frame(name="error", data=error_document(problem))


class StreamedAnswer(HeldAnswer):
    """A job's pictures as events, coarse ones as they come.

    The status line is held back until there is an event, or a heartbeat is due, so that whatever goes wrong before
    is an ordinary error with its own status.
    """

    def __init__(
        self,
        jobs: JobService,
        job: Job,
        dialect: EventDialect,
        *,
        timeout_s: float,
        heartbeat_s: float,
        extra_headers: Mapping[str, str],
    ) -> None:
        """Join the parts.

        Args:
            jobs: waited for.
            job: whose pictures are wanted.
            dialect: writes the events.
            timeout_s: how long the caller is held at most.
            heartbeat_s: the longest silence; a comment is sent then.
            extra_headers: for whatever answer it becomes.
        """
        super().__init__(jobs, job.id)
        self._job = job
        self._dialect = dialect
        self._timeout_s = timeout_s
        self._heartbeat_s = heartbeat_s
        self._extra_headers = {"x-darkroom-job-id": job.id, **extra_headers}

    async def answer(self, scope: Scope, gone: asyncio.Future[None], send: Send) -> bool:
        """Stream until the job is final, the time is over, or the client goes away."""
        line = _Line(send, gone, self._extra_headers)
        shown: set[str] = set()
        async with aclosing(self._news()) as news:
            upcoming: asyncio.Future[JobView | None] | None = None
            try:
                while True:
                    # A task of its own, so that a heartbeat does not cancel what it waits for.
                    upcoming = upcoming or asyncio.ensure_future(_next(news))
                    either: list[asyncio.Future[Any]] = [upcoming, gone]
                    await asyncio.wait(either, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
                    if gone.done():
                        return False
                    if not upcoming.done():
                        await line.write(HEARTBEAT)
                        continue
                    view, upcoming = upcoming.result(), None
                    if view is None:
                        return False
                    problem = problem_of_view(view) if view.job.status.is_final else None
                    if problem is not None:
                        return await self._fail(problem, line, scope)
                    for coarse in view.partials:
                        if coarse.id not in shown:
                            shown.add(coarse.id)
                            frame = self._dialect.partial(view, coarse)
                            if frame is not None:
                                await line.show(frame)
                    if status_of(view.job) is Status.SUCCEEDED:
                        # All of them before the first is sent, while a missing one can still be told as an error.
                        for frame in await self._dialect.completed(view):
                            await line.show(frame)
                        await line.end(self._dialect.end)
                        return True
            except (JobStillRunning, ShuttingDown) as exc:
                if not line.is_open:
                    raise
                await self._fail(problem_of(exc), line, scope)
                return False
            finally:
                if upcoming is not None:
                    await abandon(upcoming)

    async def _fail(self, problem: Problem, line: "_Line", scope: Scope) -> bool:
        if line.is_open:
            await line.show(self._dialect.failed(problem))
            await line.end(self._dialect.end)
        else:
            response = error_response(problem)
            response.headers.update(self._extra_headers)
            await response(scope, receive_when(line.gone), line.send)
        return True

    async def _news(self) -> AsyncGenerator[JobView]:
        """The job whenever it may have something to show, and last when it is final.

        Raises:
            JobStillRunning: the time is over.
            ShuttingDown: this process is stopping.
        """
        job_id, team_id = self._job.id, self._job.team_id
        # Waiting marks the caller as held; the changes alone would not.
        waiting = asyncio.ensure_future(
            self._jobs.wait(job_id, team_id, timeout_s=self._timeout_s, is_caller=True)
        )
        try:
            if self._job.request.partial_images:
                async with aclosing(self._jobs.changes(job_id, team_id, after_revision=-1)) as changes:
                    while (view := await _sooner(changes, waiting)) is not None:
                        yield view
            yield await waiting
        finally:
            await abandon(waiting)


def streamed_base64(storage: Storage, asset: Asset) -> StreamedString:
    """A picture's base64, read from storage while it is sent."""
    return StreamedString(encoded_length(asset.size_bytes), lambda: encode_stream(storage.open(asset.key)))


async def checked_base64(storage: Storage, asset: Asset) -> StreamedString:
    """The same, after asking storage, while an error can still be answered.

    Raises:
        AssetMissing: its bytes are gone.
        StorageUnavailable: storage does not answer.
    """
    size_bytes = await storage.size(asset.key)
    return StreamedString(encoded_length(size_bytes), lambda: encode_stream(storage.open(asset.key)))


async def _sooner(changes: AsyncGenerator[JobView], end: asyncio.Future[JobView]) -> JobView | None:
    """The next change; None when the end comes first, or there are no more."""
    upcoming = asyncio.ensure_future(_next(changes))
    try:
        either: list[asyncio.Future[Any]] = [upcoming, end]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        view = upcoming.result() if upcoming.done() else None
        return None if view is None or view.job.status.is_final else view
    finally:
        await abandon(upcoming)


async def _next(items: AsyncGenerator[JobView]) -> JobView | None:
    return await anext(items, None)


class _Line:
    """The connection to the client: opened by the first thing that is written, silent once the client is gone."""

    def __init__(self, send: Send, gone: asyncio.Future[None], headers: Mapping[str, str]) -> None:
        self.send = send
        self.gone = gone
        self.is_open = False
        self._headers = {"content-type": "text/event-stream; charset=utf-8", **HEADERS, **headers}

    async def show(self, frame: Frame) -> None:
        """Send one event, its pictures piece by piece."""
        head = "" if frame.name is None else f"event: {frame.name}\n"
        await self.write(f"{head}data: ".encode())
        async for chunk in render(frame.data)[1]:
            if self.gone.done():
                return
            await self.write(chunk)
        await self.write(b"\n\n")

    async def write(self, chunk: bytes) -> None:
        """Send bytes, after the status line if it is still to be sent."""
        if not self.is_open:
            self.is_open = True
            headers = MutableHeaders(self._headers)
            await self.send({"type": "http.response.start", "status": 200, "headers": headers.raw})
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, last: bytes) -> None:
        """Send the last bytes."""
        await self.send({"type": "http.response.body", "body": last, "more_body": False})


def _finished_at(job: Job) -> int:
    return int((job.finished_at or job.created_at).timestamp())
