"""What the edges can do with jobs: submit, look, wait, list, cancel."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias, TypeVar

from app.accounts.limits import AccountLimits, Taken
from app.accounts.records import Rate
from app.assets.gate import StorageGate
from app.assets.records import Asset, AssetKind, Picture
from app.assets.repository import assets_of_jobs, hand_on_inputs, insert_assets
from app.db.connection import Connection
from app.db.engine import Database, StoreUnavailable
from app.db.witness import Witness, unwitnessed
from app.domain.errors import GatewayError
from app.domain.money import Certainty
from app.domain.requests import ImageRequest
from app.jobs import adoption, repository, switches
from app.jobs.admission import Admission, Admitted, Explanation
from app.jobs.allowance import Allowance, budgets_in_force
from app.jobs.errors import (
    IdempotencyKeyReused,
    InMaintenance,
    JobNotCancellable,
    JobNotFound,
    JobNotRequeuable,
    JobStillRunning,
    ShuttingDown,
)
from app.jobs.instruments import JobInstruments
from app.jobs.lifecycle import Status
from app.jobs.outcome import result_files
from app.jobs.records import Attempt, Job, request_to_json
from app.jobs.switches import Switch
from app.jobs.transitions import Transitions
from app.jobs.waiting import HELD_S, Waiters, announce
from app.kit.doorbell import Doorbell
from app.kit.events import Events
from app.kit.ids import new_id
from app.kit.limiter import LocalLimiter
from app.kit.together import Together
from app.kit.tracing import NoTracing, Tracing
from app.webhooks.receivers import Receivers

MAINTENANCE_RETRY_S: Final = 30.0
"""Advised to callers who are turned away in maintenance."""
IDEMPOTENCY_TTL_S: Final = 30 * 86400.0
"""How long an Idempotency-Key stands for its job."""
_COMMIT_TRIES: Final = 3
_INPUTS_OUTLIVE: Final = timedelta(days=1)
"""How long after its deadline a call of a job may still read its inputs: longer than any is followed."""
_SHOWN: Final = (AssetKind.RESULT, AssetKind.LATE, AssetKind.PARTIAL)
_ADOPTION_LOOK_S: Final = 0.1
_NOTICE_S: Final = 2.0
_TOGETHER_AT_MOST: Final = 32
"""How long after the broken call a retry may overtake our notice of it (reliability 3.5)."""
T = TypeVar("T")
_Take: TypeAlias = Callable[[Connection, Job], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request, parsed and authorised, with everything about it that is not the picture."""

    team_id: str
    api_key_id: str
    request: ImageRequest
    fingerprint: bytes
    """Digest of the canonical request: the same for a repeated call, whatever its framing."""
    dialect: str = "openai"
    idempotency_key: str | None = None
    sdk_retry: int | None = None
    """The SDK's own count of this call's repetitions: 0 for a first call, None for a client that does not count."""
    received_at: float = field(default_factory=time.monotonic)
    """When the call was here, by this process's monotonic clock."""
    metadata: Mapping[str, str]
    webhook_url: str | None = None
    priority: int = 1
    """0 high, 1 normal, 2 low."""
    cancel_after_s: float | None = None
    """When the job is cancelled if it is not final by then; None: never. Its deadline ends it in any case."""
    is_waited_for: bool
    """Whether the caller is held for the result."""
    inputs: Sequence[Picture] = ()
    """Input pictures, in storage already, whose rows are written with the job."""
    requeued_from: str | None = None
    """The final job that this one repeats, and takes the input pictures of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The job that stands for a submission."""

    job: Job
    is_replay: bool
    """The job was there already: attached by idempotency key, or adopted by an SDK's retry."""
    rates: tuple[Rate, ...] = ()
    """How the caller stands with the rates that hold for it."""


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


def _is_unkeyed_sdk_call(submission: Submission) -> bool:
    """Whether a call may be repeated, or be a repetition, without anything that says so but the SDK's count."""
    return submission.idempotency_key is None and submission.sdk_retry is not None


def _has_patience(submission: Submission) -> bool:
    """Whether a call that this one may repeat can still turn out to be cut off."""
    return time.monotonic() - submission.received_at < HELD_S + _NOTICE_S


async def _surely(transaction: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction whose id is ours, so that it is simply made again when the answer to its COMMIT was lost."""
    for _ in range(_COMMIT_TRIES - 1):
        try:
            return await transaction()
        except StoreUnavailable:
            continue
    return await transaction()


def _unknown_hold(attempt: Attempt) -> bool:
    return attempt.state.is_open and attempt.hold_micros is None


class JobService:
    """Jobs as their owners see them."""

    def __init__(
        self,
        database: Database,
        transitions: Transitions,
        admission: Admission,
        gate: StorageGate,
        waiters: Waiters,
        doorbell: Doorbell,
        events: Events,
        *,
        result_ttl_s: float,
        limits: AccountLimits | None = None,
        receivers: Receivers | None = None,
        instruments: JobInstruments | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Join the parts; `limits` counts a process's own requests unless another is given.

        `receivers` judges where webhooks would go; without it their URLs are judged when they are dialled alone.
        """
        self._database = database
        self._allowance = Allowance(database, limits or AccountLimits(database, LocalLimiter()))
        self._transitions = transitions
        self._admission = admission
        self._gate = gate
        self._waiters = waiters
        self._doorbell = doorbell
        self._events = events
        self._result_ttl_s = result_ttl_s
        self._receivers = receivers
        self._instruments = instruments or JobInstruments()
        self._tracing = tracing or NoTracing()
        self._stopping = asyncio.Event()
        # Of many callers at once: one look serves all that came while the last one was under way.
        self._looks: dict[str | None, Together[str, JobView | None]] = {}
        self._deliveries = Together(self._mark_delivered, at_most=_TOGETHER_AT_MOST)

    async def submit(self, submission: Submission, *, witness: Witness[Job] = unwitnessed) -> Submitted:
        """Turn a request into a job, or find the job that it is a repetition of. Nothing is bought yet.

        Raises:
            GatewayError: nothing can serve the request; its code and parameter say why.
            ModelNotAllowed: the team or the key is limited to other models.
            RateLimitExceeded: too many requests or pictures within a minute, or jobs at once; `RateTooSmall` where
                the request alone asks for more pictures than a minute may have.
            QueueFull: too many jobs of the team wait.
            InsufficientQuota: a budget has no room for the request.
            IdempotencyKeyReused: the key stands for another request.
            InMaintenance: no new job is taken in at the moment.
            ReceiverRefused: nothing may be sent to its webhook's URL.
            StorageFull: the pictures could not be kept.
            StoreUnavailable: the database did not answer; the job may or may not exist.
        """
        with self._tracing.span("job.submit"):
            try:
                submitted = await self._submit(submission, witness)
            except GatewayError as exc:
                self._instruments.refused(exc)
                self._tracing.fail(exc.code)
                raise
            job = submitted.job
            self._tracing.note(job_id=job.id, model=job.request.model, operation=job.request.operation.value)
        if submitted.is_replay:
            self._instruments.attached(by_key=submission.idempotency_key is not None)
        else:
            self._instruments.admitted(job)
        return submitted

    async def _submit(self, submission: Submission, witness: Witness[Job]) -> Submitted:
        terms = await self._allowance.terms(submission.team_id, submission.api_key_id)
        in_force = budgets_in_force(terms)
        admitted = self._admission.admit(
            submission.request, check_model=terms.check_model, is_budgeted=bool(in_force)
        )
        request = admitted.request
        if submission.webhook_url is not None and self._receivers is not None:
            await self._receivers.admit(submission.webhook_url, param="webhook_url", must_resolve=False)
        await self._gate.enter()
        # An operator's requeue is no request of the team.
        is_counted = submission.requeued_from is None
        taken = await self._allowance.count_request(terms) if is_counted else Taken()
        adopted = await self._adopt(submission)
        if adopted is not None:
            return Submitted(job=adopted, is_replay=True, rates=taken.rates)
        if is_counted:
            taken = await self._allowance.count_images(
                terms, request.n, idempotency_key=submission.idempotency_key, counted=taken
            )
        await self._allowance.open_budgets(in_force)
        job_id = new_id("job")
        values: dict[str, object] = {
            "id": job_id,
            "team_id": submission.team_id,
            "api_key_id": submission.api_key_id,
            "operation": request.operation.value,
            "dialect": submission.dialect,
            "model": request.model,
            "catalog_version": admitted.catalog_version,
            "request": request_to_json(request),
            "n": request.n,
            "fingerprint": submission.fingerprint,
            "metadata": dict(submission.metadata),
            "webhook_url": submission.webhook_url,
            "priority": submission.priority,
            "to_buy": request.n,
            "spare": admitted.spare,
            "picture_hold_micros": admitted.picture_hold_micros,
            "budgets": sorted(ceiling.id for ceiling in in_force) or None,
            "caller_retry": submission.sdk_retry or 0,
            "requeued_from": submission.requeued_from,
            "trace_parent": self._tracing.parent(),
        }
        deadline_s, cancel_after_s = admitted.deadline_s, submission.cancel_after_s
        if cancel_after_s is not None and cancel_after_s >= deadline_s:
            cancel_after_s = None
        take = partial(self._allowance.take, terms=terms, in_force=in_force)
        try:
            submitted = await self._insert_surely(
                submission,
                values,
                deadline_s=deadline_s,
                cancel_after_s=cancel_after_s,
                take=take,
                witness=witness,
            )
        except GatewayError:
            await self._allowance.give_back_images(taken)
            raise
        if submitted.is_replay:
            await self._allowance.give_back_images(taken)
        else:
            self._doorbell.ring(job_id)
        return replace(submitted, rates=taken.rates)

    async def _insert_surely(
        self,
        submission: Submission,
        values: Mapping[str, object],
        *,
        deadline_s: float,
        cancel_after_s: float | None,
        take: _Take,
        witness: Witness[Job],
    ) -> Submitted:
        insert = partial(
            self._insert,
            submission,
            values,
            deadline_s=deadline_s,
            cancel_after_s=cancel_after_s,
            take=take,
            witness=witness,
        )
        while True:
            submitted = await _surely(insert)
            if submitted is not None:
                return submitted
            adopted = await self._adopt(submission)
            if adopted is not None:
                return Submitted(job=adopted, is_replay=True)

    async def _insert(
        self,
        submission: Submission,
        values: Mapping[str, object],
        *,
        deadline_s: float,
        cancel_after_s: float | None,
        take: _Take,
        witness: Witness[Job],
    ) -> Submitted | None:
        """Write the job; None when the call that this one repeats has shown up, and may turn out to be cut off."""
        job_id = str(values["id"])
        async with self._database.transaction() as connection:
            if _is_unkeyed_sdk_call(submission):
                known = await self._known(connection, submission)
                if isinstance(known, Job):
                    return Submitted(job=known, is_replay=True)
                if known and _has_patience(submission):
                    return None
            if submission.idempotency_key is not None:
                bound_to, fingerprint = await repository.bind_key(
                    connection,
                    submission.team_id,
                    submission.idempotency_key,
                    submission.fingerprint,
                    job_id,
                    ttl_s=IDEMPOTENCY_TTL_S,
                )
                if fingerprint != submission.fingerprint:
                    raise IdempotencyKeyReused(
                        f"The Idempotency-Key {submission.idempotency_key!r} was used for another request. "
                        "Send the same request again, or use a new key.",
                        job_id=bound_to,
                    )
                if bound_to != job_id:
                    job = await repository.find(connection, bound_to, team_id=submission.team_id)
                    if job is not None:
                        return Submitted(job=job, is_replay=True)
            if (await switches.read(connection, switches.MAINTENANCE)).is_on:
                raise InMaintenance(
                    "This gateway is in maintenance: jobs that run are finished, new ones are not taken in. Try again "
                    "later.",
                    retry_after_s=MAINTENANCE_RETRY_S,
                )
            job = await repository.insert_job(
                connection,
                values,
                deadline_s=deadline_s,
                ttl_s=self._result_ttl_s,
                held_s=HELD_S,
                cancel_after_s=cancel_after_s,
            )
            if job is None:  # our own COMMIT had landed, only its answer was lost
                job = await self._found(connection, job_id, submission.team_id)
            else:
                await insert_assets(
                    connection,
                    submission.inputs,
                    kind=AssetKind.INPUT,
                    team_id=submission.team_id,
                    job_id=job_id,
                    attempt_id=None,
                    expires_at=_inputs_expire_at(job),
                )
                await _hand_on_inputs(connection, job)
                # Last, for whoever else wants a place or the money waits until this is committed.
                await take(connection, job)
                await witness(connection, None, job)
            return Submitted(job=job, is_replay=False)

    async def _adopt(self, submission: Submission) -> Job | None:
        """Find the job of an identical call that was cut off; waits while one may still be about to be cut off."""
        if not _is_unkeyed_sdk_call(submission) or not submission.sdk_retry:
            return None
        while True:
            async with self._database.transaction() as connection:
                known = await self._known(connection, submission)
            if isinstance(known, Job):
                return known
            # A caller that is still held by then was not cut off: this is a request of its own.
            if not known or not _has_patience(submission):
                return None
            await asyncio.sleep(_ADOPTION_LOOK_S)

    async def _known(self, connection: Connection, submission: Submission) -> Job | bool:
        """Find the job that a call of an SDK stands for already: True when it may be there soon, False for none.

        Identical calls pass here one after the other, each until its job is committed, so that none overlooks another.
        """
        key_id, fingerprint, retry = submission.api_key_id, submission.fingerprint, submission.sdk_retry or 0
        await repository.serialise(connection, f"call:{key_id}:{fingerprint.hex()}")
        age_s = time.monotonic() - submission.received_at
        known: str | bool | None = await adoption.overtaken_by(
            connection, key_id, fingerprint, retry=retry, within_s=age_s
        )
        if known is None and retry > 0:
            known = await adoption.adopt(connection, key_id, fingerprint, retry=retry, held_s=HELD_S)
        return (
            await self._found(connection, known, submission.team_id)
            if isinstance(known, str)
            else bool(known)
        )

    async def explain(self, request: ImageRequest, team_id: str, api_key_id: str) -> Explanation:
        """Say what would become of a request of this caller; nothing is counted, held or written.

        Raises:
            GatewayError: the request would be refused before any route is thought of.
        """
        terms = await self._allowance.terms(team_id, api_key_id)
        is_budgeted = bool(budgets_in_force(terms))
        return await self._admission.explain(request, check_model=terms.check_model, is_budgeted=is_budgeted)

    async def view(self, job_id: str, team_id: str | None) -> JobView:
        """Look at a job; `team_id` None is for operators.

        Raises:
            JobNotFound: the team has no such job.
        """
        if team_id not in self._looks:
            self._looks[team_id] = Together(partial(self._look, team_id), at_most=_TOGETHER_AT_MOST)
        view = await self._looks[team_id].ask(job_id)
        if view is None:
            raise _no_such_job(job_id)
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
            raise _no_such_job(job_id)
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
        if len(found) != _inputs(view.job):
            raise _inputs_gone(job_id)
        terms = await self._allowance.terms(view.job.team_id, view.job.api_key_id)
        is_budgeted = bool(budgets_in_force(terms))
        request = view.job.request
        return view, self._admission.admit(request, check_model=terms.check_model, is_budgeted=is_budgeted)

    async def _requeuable(self, job_id: str) -> JobView:
        view = await self.view(job_id, None)
        has_open = any(item.state.is_open for item in view.attempts)
        if not view.job.status.is_final or (has_open and _inputs(view.job)):
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
            raise _no_such_job(job_id, param)
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


def _inputs_expire_at(job: Job) -> datetime:
    """When inputs are deleted that were not deleted with the end of their job; however short results are kept."""
    return max(job.expires_at, job.deadline_at + _INPUTS_OUTLIVE)


async def _hand_on_inputs(connection: Connection, job: Job) -> None:
    if job.requeued_from is None:
        return
    found = await hand_on_inputs(connection, job.requeued_from, job.id, expires_at=_inputs_expire_at(job))
    if found != _inputs(job):
        raise _inputs_gone(job.requeued_from)


def _inputs(job: Job) -> int:
    return len(job.request.images) + (job.request.mask is not None)


def _inputs_gone(job_id: str) -> JobNotRequeuable:
    message = f"The input pictures of the job {job_id!r} have been deleted, so it cannot be repeated."
    return JobNotRequeuable(message, job_id=job_id)


def _not_cancellable(job: Job) -> JobNotCancellable:
    message = f"The job {job.id!r} is {job.status} already and cannot be cancelled."
    return JobNotCancellable(message, job_id=job.id)


def _no_such_job(job_id: str, param: str = "id") -> JobNotFound:
    return JobNotFound(f"There is no job {job_id!r}.", param=param)


async def _first_of(*signals: asyncio.Event, timeout_s: float | None) -> None:
    """Wait until any of the signals is set, at most `timeout_s`."""
    waits = [asyncio.ensure_future(signal.wait()) for signal in signals]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
