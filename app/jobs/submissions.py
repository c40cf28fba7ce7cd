"""How a request becomes a job: what it is allowed is counted, then the job is written, or found that it repeats."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias, TypeVar

from app.accounts.limits import AccountLimits, Taken
from app.assets.gate import StorageGate
from app.assets.records import AssetKind, Picture
from app.assets.repository import hand_on_inputs, insert_assets
from app.db.connection import Connection
from app.db.engine import Database, StoreUnavailable
from app.db.witness import Witness, unwitnessed
from app.domain.errors import GatewayError
from app.domain.rates import Rate
from app.domain.requests import ImageRequest
from app.jobs import adoption, repository, switches
from app.jobs.admission import Admission, Admitted, Explanation
from app.jobs.allowance import Allowance, budgets_in_force
from app.jobs.errors import IdempotencyKeyReused, InMaintenance, inputs_gone, no_such_job
from app.jobs.instruments import JobInstruments
from app.jobs.records import Job, request_to_json
from app.jobs.waiting import HELD_S
from app.kit.doorbell import Doorbell
from app.kit.ids import new_id
from app.kit.limiter import LocalLimiter
from app.kit.tracing import NoTracing, Tracing
from app.webhooks.receivers import Receivers

_MAINTENANCE_RETRY_S: Final = 30.0
"""Advised to callers who are turned away in maintenance."""
IDEMPOTENCY_TTL_S: Final = 30 * 86400.0
"""How long an Idempotency-Key stands for its job."""
_COMMIT_TRIES: Final = 3
_INPUTS_OUTLIVE: Final = timedelta(days=1)
"""How long after its deadline a call of a job may still read its inputs: longer than any is followed."""
_ADOPTION_LOOK_S: Final = 0.1
_NOTICE_S: Final = 2.0
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


class Submissions:
    """Takes requests in."""

    def __init__(
        self,
        database: Database,
        admission: Admission,
        gate: StorageGate,
        doorbell: Doorbell,
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
        self._admission = admission
        self._gate = gate
        self._doorbell = doorbell
        self._result_ttl_s = result_ttl_s
        self._receivers = receivers
        self._instruments = instruments or JobInstruments()
        self._tracing = tracing or NoTracing()

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
        counted = taken = await self._allowance.count_request(terms) if is_counted else Taken()
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
        insert = partial(
            self._insert,
            submission,
            values,
            deadline_s=deadline_s,
            cancel_after_s=cancel_after_s,
            take=partial(self._allowance.take, terms=terms, in_force=in_force),
            witness=witness,
        )
        try:
            submitted = await self._insert_surely(submission, insert)
        except GatewayError as exc:
            await self._allowance.give_back_images(taken)
            exc.rates = exc.rates or counted.rates
            raise
        if submitted.is_replay:
            await self._allowance.give_back_images(taken)
        else:
            self._doorbell.ring(job_id)
        return replace(submitted, rates=taken.rates)

    async def _insert_surely(
        self, submission: Submission, insert: Callable[[], Awaitable[Submitted | None]]
    ) -> Submitted:
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
                    retry_after_s=_MAINTENANCE_RETRY_S,
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
                job = await _found(connection, job_id, submission.team_id)
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
        return await _found(connection, known, submission.team_id) if isinstance(known, str) else bool(known)

    async def explain(self, request: ImageRequest, team_id: str, api_key_id: str) -> Explanation:
        """Say what would become of a request of this caller; nothing is counted, held or written.

        Raises:
            GatewayError: the request would be refused before any route is thought of.
        """
        terms = await self._allowance.terms(team_id, api_key_id)
        is_budgeted = bool(budgets_in_force(terms))
        return await self._admission.explain(request, check_model=terms.check_model, is_budgeted=is_budgeted)

    async def admit(self, request: ImageRequest, team_id: str, api_key_id: str) -> Admitted:
        """See what a job for this request of this caller would begin with; nothing is counted, held or written.

        Raises:
            GatewayError: nothing can serve the request today.
        """
        terms = await self._allowance.terms(team_id, api_key_id)
        is_budgeted = bool(budgets_in_force(terms))
        return self._admission.admit(request, check_model=terms.check_model, is_budgeted=is_budgeted)


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


async def _found(connection: Connection, job_id: str, team_id: str) -> Job:
    job = await repository.find(connection, job_id, team_id=team_id)
    if job is None:
        raise no_such_job(job_id)
    return job


def _inputs_expire_at(job: Job) -> datetime:
    """When inputs are deleted that were not deleted with the end of their job; however short results are kept."""
    return max(job.expires_at, job.deadline_at + _INPUTS_OUTLIVE)


async def _hand_on_inputs(connection: Connection, job: Job) -> None:
    if job.requeued_from is None:
        return
    found = await hand_on_inputs(connection, job.requeued_from, job.id, expires_at=_inputs_expire_at(job))
    if found != job.inputs:
        raise inputs_gone(job.requeued_from)
