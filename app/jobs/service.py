"""What the edges can do with jobs: submit, look, wait, list, cancel."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from app.assets.records import Asset, AssetKind
from app.assets.repository import assets_of_jobs
from app.db.connection import Connection
from app.db.engine import Database
from app.db.witness import Witness, unwitnessed
from app.domain.money import Certainty
from app.domain.requests import ImageRequest
from app.jobs import adoption, repository, switches
from app.jobs.admission import Admitted, Explanation
from app.jobs.errors import (
    JobNotCancellable,
    JobNotRequeuable,
    JobStillRunning,
    ShuttingDown,
    inputs_gone,
    no_such_job,
)
from app.jobs.lifecycle import Status
from app.jobs.outcome import result_files
from app.jobs.records import Attempt, Job
from app.jobs.submissions import Submission, Submissions, Submitted
from app.jobs.switches import Switch
from app.jobs.transitions import Transitions
from app.jobs.waiting import Waiters, announce
from app.kit.doorbell import Doorbell
from app.kit.events import Events
from app.kit.ids import new_id
from app.kit.together import Together

_SHOWN: Final = (AssetKind.RESULT, AssetKind.LATE, AssetKind.PARTIAL)
_TOGETHER_AT_MOST: Final = 32
"""Callers whose jobs are looked at by one query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job with everything that its public form shows."""

    job: Job
    attempts: tuple[Attempt, ...]
    pictures: tuple[Asset, ...]
    late: tuple[Asset, ...]
    partials: tuple[Asset, ...]
    """Coarse pictures in the order in which they came."""

    @property
    def places(self) -> tuple[Asset | None, ...]:
        """The result's pictures in their places, each None once it has been deleted; empty without a result."""
        kept = {item.id: item for item in self.pictures}
        return tuple(kept.get(file_id) for file_id in result_files(self.job.result or {}))

    @property
    def cost_micros(self) -> int | None:
        """What the job cost so far, calls in flight at their hold; None when a call's price is not known."""
        if any(item.certainty is Certainty.UNPRICED or _unknown_hold(item) for item in self.attempts):
            return None
        return sum(
            item.cost_micros if item.cost_micros is not None else item.hold_micros or 0
            for item in self.attempts
        )

    @property
    def cost_is_estimated(self) -> bool:
        """Whether any part of the cost is not what the vendor reported."""
        return any(item.state.is_open or item.certainty is not Certainty.ACTUAL for item in self.attempts)


def _unknown_hold(attempt: Attempt) -> bool:
    return attempt.state.is_open and attempt.hold_micros is None


class JobService:
    """Jobs as their owners see them."""

    def __init__(
        self,
        database: Database,
        submissions: Submissions,
        transitions: Transitions,
        waiters: Waiters,
        doorbell: Doorbell,
        events: Events,
    ) -> None:
        self._database = database
        self._submissions = submissions
        self._transitions = transitions
        self._waiters = waiters
        self._doorbell = doorbell
        self._events = events
        self._stopping = asyncio.Event()
        # Of many callers at once: one look serves all that came while the last one was under way.
        self._looks: dict[str | None, Together[str, JobView | None]] = {}
        self._deliveries = Together(self._mark_delivered, at_most=_TOGETHER_AT_MOST)

    async def submit(self, submission: Submission, *, witness: Witness[Job] = unwitnessed) -> Submitted:
        """Turn a request into a job, or find the job that it is a repetition of. Nothing is bought yet.

        Raises:
            GatewayError: as `Submissions.submit`.
        """
        return await self._submissions.submit(submission, witness=witness)

    async def explain(self, request: ImageRequest, team_id: str, api_key_id: str) -> Explanation:
        """Say what would become of a request of this caller; nothing is counted, held or written.

        Raises:
            GatewayError: the request would be refused before any route is thought of.
        """
        return await self._submissions.explain(request, team_id, api_key_id)

    async def view(self, job_id: str, team_id: str | None) -> JobView:
        """Look at a job; `team_id` None is for operators.

        Raises:
            JobNotFound: the team has no such job.
        """
        if team_id not in self._looks:
            self._looks[team_id] = Together(partial(self._look, team_id), at_most=_TOGETHER_AT_MOST)
        view = await self._looks[team_id].ask(job_id)
        if view is None:
            raise no_such_job(job_id)
        return view

    async def _look(self, team_id: str | None, job_ids: Sequence[str]) -> Sequence[JobView | None]:
        async with self._database.reading() as connection:
            found = await repository.find_several(connection, job_ids, team_id=team_id)
            views = {view.job.id: view for view in await self._views(connection, found)}
        return [views.get(job_id) for job_id in job_ids]

    async def search(
        self,
        team_id: str | None,
        *,
        status: Status | None = None,
        model: str | None = None,
        metadata: Mapping[str, str],
        after: str | None = None,
        limit: int = 20,
        upstream: str | None = None,
        api_key_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Sequence[JobView], bool]:
        """Look at up to `limit` jobs, newest first, after the job `after`; and whether there are more.

        `upstream`: only jobs that asked it. `api_key_id`: only those of this key. `since`, `until`: only those handed
        in from then on, and before then.

        Raises:
            JobNotFound: `after` is not one of the team's jobs.
        """
        async with self._database.reading() as connection:
            if after is not None:
                await self._found(connection, after, team_id, param="after")
            found = await repository.list_jobs(
                connection,
                team_id,
                status=status,
                model=model,
                metadata=metadata,
                after=after,
                limit=limit + 1,
                upstream=upstream,
                api_key_id=api_key_id,
                since=since,
                until=until,
            )
            return await self._views(connection, found[:limit]), len(found) > limit

    async def wait(
        self, job_id: str, team_id: str, *, timeout_s: float, is_caller: bool, is_new: bool = False
    ) -> JobView:
        """Hold until the job is final or the time is over, and look at it then.

        `is_caller`: the client of a synchronous call, whose job may be adopted should it be cut off. `is_new`: it has
        just been handed in, so that there is nothing to see yet.

        Raises:
            JobNotFound: the team has no such job.
            JobStillRunning: the time is over and `is_caller`.
            ShuttingDown: this process is stopping and `is_caller`.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        async with self._waiters.watching(job_id, is_caller=is_caller, until_end=True) as ended:
            view = None if is_new else await self.view(job_id, team_id)
            while view is None or not view.job.status.is_final:
                left_s = ends_at - loop.time()
                if view is not None and not is_caller and (left_s <= 0 or self._stopping.is_set()):
                    return view
                if left_s <= 0:
                    raise JobStillRunning(
                        f"The job {job_id!r} is still running. Collect it under /v1/jobs/{job_id}, or repeat the call.",
                        job_id=job_id,
                        retry_after_s=1.0,
                    )
                if self._stopping.is_set():
                    raise ShuttingDown(
                        f"This server is restarting; the job {job_id!r} goes on. Repeat the call, or collect it under "
                        f"/v1/jobs/{job_id}.",
                        job_id=job_id,
                        retry_after_s=1.0,
                    )
                await _first_of(ended, self._stopping, timeout_s=left_s)
                ended.clear()
                view = await self.view(job_id, team_id)
            return view

    async def changes(self, job_id: str, team_id: str, *, after_revision: int) -> AsyncGenerator[JobView]:
        """Look at the job each time it has changed since `after_revision`, until it is final.

        Raises:
            JobNotFound: the team has no such job.
        """
        seen = after_revision
        async with self._waiters.watching(job_id, is_caller=False) as changed:
            while not self._stopping.is_set():
                changed.clear()
                view = await self.view(job_id, team_id)
                if view.job.revision > seen or view.job.status.is_final:
                    seen = view.job.revision
                    yield view
                if view.job.status.is_final:
                    return
                await _first_of(changed, self._stopping, timeout_s=None)

    async def cancel(
        self,
        job_id: str,
        team_id: str | None,
        *,
        is_dry: bool = False,
        witness: Witness[Job] = unwitnessed,
    ) -> JobView:
        """Give a job up. Calls already sent are followed to their end, and their cost is booked.

        `is_dry`: only see whether that could be done.

        Raises:
            JobNotFound: the team has no such job.
            JobNotCancellable: it is final already.
        """
        if is_dry:
            view = await self.view(job_id, team_id)
            if view.job.status.is_final:
                raise _not_cancellable(view.job)
            return view
        cancelled = await self._transitions.cancel(job_id, team_id, witness=witness)
        if cancelled is None:
            raise no_such_job(job_id)
        job, is_cancelled = cancelled
        if not is_cancelled:
            raise _not_cancellable(job)
        self._announce_end(job_id)
        return await self.view(job_id, team_id)

    async def unsent(self, team_id: str, api_key_id: str) -> Sequence[str]:
        """The ids of a key's jobs that nobody was paid for, and no call is under way for."""
        async with self._database.reading() as connection:
            return await repository.unsent(connection, team_id, api_key_id)

    async def unsent_in(self, connection: Connection, team_id: str, api_key_id: str) -> Sequence[str]:
        """What `unsent` names, as a transaction sees it."""
        return await repository.unsent(connection, team_id, api_key_id)

    async def cancel_unsent(self, team_id: str, api_key_id: str) -> Sequence[str]:
        """Cancel what `unsent` names, and return the ids; a job that is sent meanwhile goes on."""
        cancelled: list[str] = []
        for job_id in await self.unsent(team_id, api_key_id):
            found = await self._transitions.cancel(job_id, team_id, is_unsent=True)
            if found is not None and found[1]:
                cancelled.append(job_id)
                self._announce_end(job_id)
        return cancelled

    async def requeue(self, job_id: str, *, witness: Witness[Job] = unwitnessed) -> Job:
        """Make a new job of the same team with the same request; for operators.

        Raises:
            JobNotFound: there is no such job.
            JobNotRequeuable: it is not final yet, or its input pictures are gone.
            GatewayError: nothing can serve the request today.
        """
        job = (await self._requeuable(job_id)).job
        submission = Submission(
            team_id=job.team_id,
            api_key_id=job.api_key_id,
            request=job.request,
            # Nobody's call is a repetition of this one.
            fingerprint=hashlib.sha256(new_id("requeue").encode()).digest(),
            dialect=job.dialect,
            metadata=job.metadata,
            webhook_url=job.webhook_url,
            priority=job.priority,
            is_waited_for=False,
            requeued_from=job.id,
        )
        return (await self.submit(submission, witness=witness)).job

    async def check_requeue(self, job_id: str) -> tuple[JobView, Admitted]:
        """See whether `requeue` would do, and what the new job would begin with.

        Raises:
            JobNotFound: there is no such job.
            JobNotRequeuable: it is not final yet, or its input pictures are gone.
            GatewayError: nothing can serve the request today.
        """
        view = await self._requeuable(job_id)
        async with self._database.reading() as connection:
            found = await assets_of_jobs(connection, [job_id], [AssetKind.INPUT])
        if len(found) != view.job.inputs:
            raise inputs_gone(job_id)
        job = view.job
        return view, await self._submissions.admit(job.request, job.team_id, job.api_key_id)

    async def _requeuable(self, job_id: str) -> JobView:
        view = await self.view(job_id, None)
        has_open = any(item.state.is_open for item in view.attempts)
        if not view.job.status.is_final or (has_open and view.job.inputs):
            raise JobNotRequeuable(
                f"The job {job_id!r} still runs. Cancel it first, or wait for its end.", job_id=job_id
            )
        return view

    async def maintenance(self) -> tuple[Switch, Mapping[Status, int]]:
        """Whether new jobs are turned away, and how many jobs wait or are in progress."""
        async with self._database.reading() as connection:
            switch = await switches.read(connection, switches.MAINTENANCE)
            return switch, await repository.unfinished(connection)

    async def turn_maintenance(self, *, is_on: bool, witness: Witness[Switch] = unwitnessed) -> None:
        """Turn new jobs away in every process, or take them in again. Jobs that are there go on."""
        async with self._database.transaction() as connection:
            before = await switches.read(connection, switches.MAINTENANCE)
            await switches.turn(connection, switches.MAINTENANCE, is_on=is_on)
            await witness(connection, before, await switches.read(connection, switches.MAINTENANCE))

    def _announce_end(self, job_id: str) -> None:
        announce(self._events, job_id, is_final=True)
        self._doorbell.ring(job_id)

    async def delivered(self, job_id: str) -> None:
        """Note that the client has the answer, so that a repeated call is a new request."""
        await self._deliveries.ask(job_id)

    async def _mark_delivered(self, job_ids: Sequence[str]) -> Sequence[None]:
        async with self._database.single() as connection:
            await adoption.mark_delivered(connection, job_ids)
        return [None] * len(job_ids)

    async def not_delivered(self, job_id: str) -> None:
        """Note that an answer which had been sent has not arrived, so that the client's retry may collect it."""
        async with self._database.single() as connection:
            await adoption.mark_not_delivered(connection, job_id)

    async def cut_off(self, job_id: str) -> None:
        """Note that the client went away before it had the answer, so that its retry may collect it."""
        async with self._database.single() as connection:
            await adoption.mark_cut_off(connection, job_id)

    @property
    def is_stopping(self) -> bool:
        """Whether this process takes no more callers."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """End every wait; callers are told to repeat their call."""
        self._stopping.set()

    @staticmethod
    async def _found(connection: Connection, job_id: str, team_id: str | None, *, param: str = "id") -> Job:
        job = await repository.find(connection, job_id, team_id=team_id)
        if job is None:
            raise no_such_job(job_id, param)
        return job

    @staticmethod
    async def _views(connection: Connection, found: Sequence[Job]) -> list[JobView]:
        ids = [job.id for job in found]
        attempts = await repository.attempts_of(connection, ids) if ids else []
        pictures = await assets_of_jobs(connection, ids, list(_SHOWN), living=True) if ids else []
        return [
            JobView(
                job=job,
                attempts=tuple(item for item in attempts if item.job_id == job.id),
                pictures=_of_kind(pictures, job, AssetKind.RESULT),
                late=_of_kind(pictures, job, AssetKind.LATE),
                partials=tuple(sorted(_of_kind(pictures, job, AssetKind.PARTIAL), key=lambda item: item.id)),
            )
            for job in found
        ]


def _of_kind(pictures: Sequence[Asset], job: Job, kind: AssetKind) -> tuple[Asset, ...]:
    return tuple(item for item in pictures if item.job_id == job.id and item.kind is kind)


def _not_cancellable(job: Job) -> JobNotCancellable:
    message = f"The job {job.id!r} is {job.status} already and cannot be cancelled."
    return JobNotCancellable(message, job_id=job.id)


async def _first_of(*signals: asyncio.Event, timeout_s: float | None) -> None:
    """Wait until any of the signals is set, at most `timeout_s`."""
    waits = [asyncio.ensure_future(signal.wait()) for signal in signals]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
