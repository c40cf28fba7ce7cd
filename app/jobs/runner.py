"""Carries one claimed job to its end: decides, sends, follows, keeps. Owns waiting and giving up.

No transaction is held across a call to an upstream, and no answer is dropped because the database is away: closing
transactions are repeated until they land.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from app.assets.errors import PictureBroken, StorageUnavailable
from app.assets.records import Picture
from app.assets.service import PictureKeeper
from app.catalog.current import CurrentCatalog
from app.catalog.entries import Catalog, Model, Route
from app.catalog.keys import Keyring
from app.catalog.pricing import Cost, actual, upper_bound
from app.db.engine import StoreUnavailable
from app.domain.failures import CLASS_OF, FailureClass, FailureKind, UpstreamFailure
from app.domain.money import Certainty
from app.jobs.instruments import SUCCEEDED, JobInstruments
from app.jobs.lifecycle import AttemptState, Buy, Lost, Status
from app.jobs.openings import NewAttempt, UpstreamLimits
from app.jobs.orders import Order, order_of, target_document
from app.jobs.records import Attempt, Job
from app.jobs.routes import Outlook, Routes
from app.jobs.savings import dearest
from app.jobs.streaming import Stream
from app.jobs.transitions import Decision, Transitions
from app.jobs.waiting import announce
from app.kit.backoff import full_jitter
from app.kit.events import Events
from app.kit.ids import new_id
from app.kit.telemetry import Redaction, get_logger
from app.kit.tracing import SpanKind, Tracing
from app.routing.health import earliest
from app.routing.plan import Absence, Candidate, Plan
from app.upstreams.caller import Caller, FetchFailed, PollFailed
from app.upstreams.contract import Adapter, Call, Finished, Partial, RemotePicture, Reply, Waiting

LOG = get_logger(__name__)

GRACE_S: Final = 60.0
"""How long after the deadline, which ends its job, a call that is in flight is followed: its pictures are paid for."""
_SEND_WITHIN_LEASES: Final = 2 / 3
"""A call is sent at once after its intent is committed, or not at all: others judge it by that. 20 s by default."""
_JUDGE_AFTER_LEASES: Final = 1.0
"""How long after a call's hard limit its outcome may be judged by others. 30 s by default.

Both are told in leases: whoever wants a dead worker's jobs sooner wants its calls judged sooner as well.
"""
_RETRY_BASE_S: Final = 0.5
_RETRY_CAP_S: Final = 20.0
_FULL_AGAIN_S: Final = 1.0
_POLL_CAP_S: Final = 30.0
_KEEP_TRIES: Final = 5
_UNUSABLE: Final = UpstreamFailure(FailureKind.GARBLED, "it answered without a usable picture")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a runner works with."""

    transitions: Transitions
    routes: Routes
    catalog: CurrentCatalog
    keys: Keyring
    caller: Caller
    keeper: PictureKeeper
    events: Events
    adapter: Callable[[str], Adapter]
    """An adapter by its name."""
    draining: asyncio.Event
    """Set when this process stops: nothing new is sent, and orders at vendors are left to others."""
    lease_s: float
    """How soon a dead worker's jobs are taken over; how soon its calls are judged follows from it."""
    instruments: JobInstruments
    tracing: Tracing


class Runner:
    """Carries one job, held with one lease token."""

    def __init__(self, job: Job, work: Work) -> None:
        self._job = job
        self._token = job.lease_token
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._has_decided = False
        self._is_over = False
        self._begun_with: Catalog | None = None
        self._status = job.status
        self._log = LOG.bind(job_id=job.id)

    async def run(self) -> None:
        """Go on until the job is over, given back, or somebody else's."""
        job = self._job
        with self._work.tracing.span(
            "job.run",
            kind=SpanKind.CONSUMER,
            parent=job.trace_parent,
            job_id=job.id,
            model=job.request.model,
            operation=job.request.operation.value,
        ):
            await self._run()
            self._work.tracing.note(outcome=self._status.value)

    async def _run(self) -> None:
        version = self._job.catalog_version
        self._begun_with = await persist(lambda: self._work.catalog.version(version))
        try:
            while await self._step():
                pass
        except Lost:
            self._log.warning("job.lost", token=self._token)
            self._work.instruments.lease_lost()
            await persist(lambda: self._work.transitions.forgive(self._job.id))
            await self._let_finish()
        finally:
            for task in self._tasks.values():
                task.cancel()

    def _announce(self, *, is_final: bool = False) -> None:
        announce(self._work.events, self._job.id, is_final=is_final)

    def _catalog(self) -> Catalog:
        """The catalog that the job began with, whatever has been put in force since."""
        return self._begun_with or self._work.catalog.get()

    async def _step(self) -> bool:
        model = self._catalog().model(self._job.request.model)
        max_rounds = model.routing.max_attempts if model else 0
        decision = None
        if not self._has_decided:
            decision = self._work.transitions.decide_first(self._job, max_rounds=max_rounds)
            self._has_decided = True
        if decision is None:
            decision = await persist(
                lambda: self._work.transitions.decide(
                    self._job.id, self._token, max_rounds=max_rounds, followed=frozenset(self._tasks)
                )
            )
        self._status = decision.job.status
        if decision.job.status.is_final:
            self._announce(is_final=True)
        if self._work.draining.is_set() and not self._tasks:
            await self._give_back(decision, 0.0)
            return False
        for attempt in decision.resume if not self._work.draining.is_set() else ():
            self._start(attempt, self._follow(attempt, order_of(attempt)))
        if isinstance(decision.verdict, Buy) and model is not None and not self._work.draining.is_set():
            delay_s = await self._buy(decision, decision.verdict, model)
            if delay_s is not None and not self._tasks:
                await self._give_back(decision, delay_s)
                return False
        if self._tasks:
            await self._wait_for_news(decision)
            # The attempt that brought the last picture has ended the job, and the lease with it.
            return bool(self._tasks) or not self._is_over
        if decision.job.status.is_final and decision.judged_in_s is None:
            return False
        if decision.judged_in_s is not None:
            # An open job is ended at its deadline, whatever is open then.
            in_s = decision.judged_in_s
            if not decision.job.status.is_final:
                in_s = min(in_s, decision.due_in_s)
            await self._give_back(decision, max(in_s, 0.1))
            return False
        return not decision.job.status.is_final

    async def _give_back(self, decision: Decision, delay_s: float) -> None:
        is_over = decision.job.status.is_final and not any(item.state.is_open for item in decision.attempts)
        if not is_over:
            self._status = Status.QUEUED
            await persist(lambda: self._work.transitions.park(self._job.id, self._token, delay_s=delay_s))

    async def _wait_for_news(self, decision: Decision) -> None:
        """Until an attempt ends, the deadline comes, or this process is told to stop."""
        draining = asyncio.ensure_future(self._work.draining.wait())
        waits: set[asyncio.Future[object]] = {*self._tasks.values(), draining}  # type: ignore[arg-type]
        if self._work.draining.is_set():
            waits.discard(draining)
        await asyncio.wait(waits, timeout=decision.wake_in_s, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        for attempt_id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[attempt_id]
                task.result()  # a bug in an attempt ends the job's task, and is logged with its trace there

    async def _let_finish(self) -> None:
        """The lease is lost, but calls that were sent are paid for: what they bring is kept."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _start(self, attempt: Attempt, work: "Awaitable[None]") -> None:
        self._tasks[attempt.id] = asyncio.ensure_future(self._traced(attempt, work))

    async def _traced(self, attempt: Attempt, work: "Awaitable[None]") -> None:
        with self._work.tracing.span(
            "attempt",
            job_id=self._job.id,
            attempt_id=attempt.id,
            upstream=attempt.upstream,
            model=self._job.request.model,
        ):
            await work

    async def _buy(self, decision: Decision, verdict: Buy, model: Model) -> float | None:
        """Open attempts for the missing pictures and send them; seconds to wait when nobody can be asked now."""
        request = self._job.request
        outlook = await persist(
            lambda: self._work.routes.plan(model, request, is_budgeted=bool(self._job.budgets))
        )
        plan, at = outlook.plan, outlook.at
        waits: list[float] = []
        for candidate in _untried_first(plan, decision.attempts):
            if _is_unable(candidate, decision.attempts):
                continue
            backoff_s = _backoff_s(candidate, decision.attempts, at)
            if backoff_s > 0:
                waits.append(backoff_s)
                continue
            is_repeat = bool(_failures_at(candidate, decision.attempts))
            if not await self._may_ask(candidate, outlook, is_repeat=is_repeat):
                waits.append(_FULL_AGAIN_S)
                continue
            opened = await self._open(candidate, verdict, decision, model)
            for attempt in opened:
                self._start(attempt, self._send(attempt, order_of(attempt)))
            if opened:
                self._announce()
                return None
            waits.append(_FULL_AGAIN_S)
        if not waits and any(item.absence is Absence.LATER for item in plan.left_out):
            waits.append(earliest(at, plan.retry_at))
        if not waits:
            given_up = await persist(lambda: self._work.transitions.give_up(self._job.id, self._token))
            self._status = given_up.status
            self._announce(is_final=True)
            return None
        return min(*waits, max(decision.due_in_s, 0.1))

    async def _may_ask(self, candidate: Candidate, outlook: Outlook, *, is_repeat: bool) -> bool:
        upstream = candidate.route.upstream
        has_tripped = upstream.name in outlook.tripped
        return await persist(
            lambda: self._work.routes.may_ask(upstream, is_repeat=is_repeat, has_tripped=has_tripped)
        )

    async def _open(
        self, candidate: Candidate, verdict: Buy, decision: Decision, model: Model
    ) -> tuple[Attempt, ...]:
        route = candidate.route
        upstream = route.upstream
        timeout_s = min(upstream.timeout_s, decision.due_in_s + GRACE_S)
        limits = UpstreamLimits(
            max_concurrency=upstream.max_concurrency,
            requests_per_minute=upstream.requests_per_minute,
            images_per_minute=upstream.images_per_minute,
        )
        planned = [
            NewAttempt(
                id=new_id("att"),
                upstream=upstream.name,
                target=target_document(
                    route,
                    timeout_s=timeout_s,
                    wants_stream=self._job.request.stream,
                    can_link=self._work.routes.can_link,
                ),
                pictures=pictures,
                bound_micros=self._bound_micros(route, model, pictures),
            )
            for pictures in _shares(verdict.pictures, candidate.pictures)
        ]
        send_within_s = _SEND_WITHIN_LEASES * self._work.lease_s
        judge_after_s = _JUDGE_AFTER_LEASES * self._work.lease_s
        began = time.monotonic()
        opened = await persist(
            lambda: self._work.transitions.open_attempts(
                self._job.id,
                self._token,
                planned,
                round_number=verdict.round,
                limits=limits,
                timeout_s=timeout_s + judge_after_s + send_within_s,
            )
        )
        if opened and time.monotonic() - began > send_within_s:
            too_late = UpstreamFailure(FailureKind.DOWN, "the intent was committed too late to be sent")
            for attempt in opened:
                await self._refused(attempt, too_late)
            return ()
        return opened

    def _bound_micros(self, route: Route, model: Model, pictures: int) -> int | None:
        """What a call may cost at its route, for a job whose own hold some other route without a price left unknown."""
        if self._job.picture_hold_micros is not None:
            return None
        return upper_bound(route, model, self._job.request, pictures)

    async def _send(self, attempt: Attempt, order: Order) -> None:
        """Make the one paid call of an attempt, and see its answer through."""
        log = self._log.bind(attempt_id=attempt.id, upstream=attempt.upstream)
        log.info("attempt.opened", pictures=attempt.pictures, round=attempt.round)
        adapter = self._work.adapter(order.upstream.adapter)
        with self._work.keeper.workspace() as spool:
            stream = Stream(adapter, partial(self._show, attempt, spool)) if order.is_streamed else None
            try:
                call = adapter.submit(self._job.request, order.target(attempt))
                reply = await self._call(call, attempt, order, spool, stream)
                outcome = stream.outcome() if stream and reply.is_stream else adapter.read(reply, None)
            except UpstreamFailure as failure:
                # A stream that broke may have brought pictures before it did; they are paid for.
                if stream is None or not stream.has_pictures:
                    await self._failed(attempt, failure)
                    return
                outcome = stream.outcome()
            if isinstance(outcome, Finished):
                if not await self._keep(attempt, order, outcome, spool):
                    await self._failed(attempt, _UNUSABLE)
                return
        await self._accepted(attempt, order, outcome)

    async def _show(self, attempt: Attempt, spool: Path, coarse: Partial) -> None:
        """Keep a coarse picture and show it; one that is broken or that storage does not take is left out."""
        source = coarse.picture.source
        if isinstance(source, str):
            return  # too small to have been worth a file: nothing to see
        try:
            picture, _ = await self._work.keeper.keep(source.path, self._job.request, spool)
        except (PictureBroken, StorageUnavailable) as exc:
            self._log.warning("partial.unusable", attempt_id=attempt.id, reason=str(exc))
            return
        await persist(lambda: self._work.transitions.show_partial(attempt, picture, index=coarse.index))
        self._announce()

    async def _call(
        self, call: Call, attempt: Attempt, order: Order, spool: Path, stream: Stream | None = None
    ) -> Reply:
        return await self._work.caller.call(
            call,
            upstream=order.upstream,
            api_key=self._work.keys.key(order.upstream),
            attempt_id=attempt.id,
            timeout_s=order.timeout_s,
            spool_dir=spool,
            pictures=attempt.pictures,
            on_event=stream.take if stream else None,
        )

    async def _accepted(self, attempt: Attempt, order: Order, outcome: Waiting) -> None:
        ticket = outcome.ticket
        if not await persist(lambda: self._work.transitions.accept(attempt, ticket)):
            reused = UpstreamFailure(FailureKind.GARBLED, "the vendor gave the ticket of another order")
            await self._failed(attempt, reused)
            return
        self._log.info("attempt.accepted", attempt_id=attempt.id, upstream=attempt.upstream)
        self._announce()
        await self._follow(attempt, order, ticket=ticket, poll_after_s=order.poll_after_s(outcome))

    async def _follow(
        self, attempt: Attempt, order: Order, *, ticket: str | None = None, poll_after_s: float = 0.0
    ) -> None:
        """Ask after an order until it ends, its follow-up is over, or this process stops; it never buys."""
        ticket = ticket or attempt.ticket or ""
        adapter = self._work.adapter(order.upstream.adapter)
        failed_polls = failed_keeps = 0
        while not await self._stopped_within(poll_after_s):
            with self._work.keeper.workspace() as spool:
                try:
                    call = adapter.resume(ticket, order.target(attempt))
                    outcome = adapter.read(await self._call(call, attempt, order, spool), ticket)
                except PollFailed:
                    failed_polls += 1
                    poll_after_s = 1.0 + full_jitter(failed_polls, base_s=1.0, cap_s=_POLL_CAP_S)
                    continue
                except UpstreamFailure as failure:
                    await self._failed(attempt, failure)
                    return
                if isinstance(outcome, Waiting):
                    failed_polls, poll_after_s = 0, order.poll_after_s(outcome)
                    continue
                if await self._keep(attempt, order, outcome, spool):
                    return
            # The order exists and is paid for; asked again, the vendor gives fresh links.
            failed_keeps += 1
            if failed_keeps == _KEEP_TRIES:
                await self._failed(attempt, _UNUSABLE)
                return
            poll_after_s = 1.0 + full_jitter(failed_keeps, base_s=1.0, cap_s=_POLL_CAP_S)

    async def _stopped_within(self, delay_s: float) -> bool:
        try:
            # Not `wait_for`: on Python 3.11 it forgets a cancellation that comes at the moment of draining.
            async with asyncio.timeout(delay_s):
                await self._work.draining.wait()
        except TimeoutError:
            return False
        return True

    async def _keep(self, attempt: Attempt, order: Order, outcome: Finished, spool: Path) -> bool:
        """Store the pictures of a finished call, then book it; False when none of them was usable.

        Storage that is away is waited for: the pictures are paid.
        """
        kept: list[Picture] = []
        adjusted: list[str] = []
        for remote in outcome.pictures[: attempt.pictures]:
            try:
                picture, notes = await self._picture(remote, attempt, order, spool)
            except (PictureBroken, FetchFailed) as exc:
                self._log.warning("picture.unusable", attempt_id=attempt.id, reason=str(exc))
                continue
            kept.append(picture)
            adjusted += notes
        if not kept:
            return False
        cost = self._cost(attempt, outcome, len(kept), order)
        resolved = {"quality": outcome.quality, "background": outcome.background, "adjusted": adjusted}
        model = self._catalog().model(self._job.request.model)
        job = await persist(
            lambda: self._work.transitions.succeed(
                attempt,
                kept,
                usage=outcome.usage,
                resolved=resolved,
                cost_micros=cost.micros,
                certainty=cost.certainty,
                max_rounds=model.routing.max_attempts if model else 0,
                dearest_micros=self._dearest_micros(outcome, len(kept), cost),
            )
        )
        self._is_over = job.status.is_final and not job.lease_until
        self._status = job.status
        self._work.tracing.note(outcome=SUCCEEDED)
        self._announce(is_final=job.status.is_final)
        self._log.info(
            "attempt.succeeded",
            attempt_id=attempt.id,
            upstream=attempt.upstream,
            pictures=len(kept),
            cost_micros=cost.micros,
            status=job.status.value,
        )
        await persist(lambda: self._work.routes.delivered(attempt.upstream, order.remote_model))
        return True

    async def _picture(
        self, remote: RemotePicture, attempt: Attempt, order: Order, spool: Path
    ) -> tuple[Picture, list[str]]:
        source = remote.source
        if isinstance(source, str):
            key = self._work.keys.key(order.upstream)
            source = await self._work.caller.fetch(
                source, upstream=order.upstream, api_key=key, spool_dir=spool
            )
        failures = 0
        while True:
            try:
                with self._work.tracing.span("picture.keep", attempt_id=attempt.id):
                    return await self._work.keeper.keep(source.path, self._job.request, spool)
            except StorageUnavailable as exc:
                failures += 1
                self._log.error("storage.unavailable", attempt_id=attempt.id, reason=str(exc))
                await asyncio.sleep(1.0 + full_jitter(failures, base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S))

    def _cost(self, attempt: Attempt, outcome: Finished, pictures: int, order: Order) -> Cost:
        model = self._catalog().model(self._job.request.model)
        route = _route_of(model, attempt.upstream, order.remote_model)
        if model is None or route is None:
            return Cost(micros=attempt.hold_micros or 0, certainty=Certainty.ESTIMATED)
        return actual(
            route,
            model,
            self._job.request,
            pictures,
            usage=outcome.usage,
            cost_usd=outcome.cost_usd,
            size=outcome.size,
            quality=outcome.quality,
        )

    def _dearest_micros(self, outcome: Finished, pictures: int, cost: Cost) -> int | None:
        model = self._catalog().model(self._job.request.model)
        if model is None or cost.certainty is Certainty.UNPRICED:
            return None
        return max(cost.micros, dearest(model, self._job.request, pictures, outcome))

    async def _failed(self, attempt: Attempt, said: UpstreamFailure) -> None:
        failure = said.without(self._discretion(attempt).text)
        self._work.tracing.fail(failure.kind.value)
        if CLASS_OF[failure.kind] is FailureClass.AMBIGUOUS:
            await persist(lambda: self._work.transitions.lose_track(attempt, failure))
        else:
            await self._refused(attempt, failure)
        self._log.warning(
            "attempt.failed",
            attempt_id=attempt.id,
            upstream=attempt.upstream,
            failure=failure.kind.value,
            detail=failure.detail,
        )
        self._announce()
        remote_model = order_of(attempt).remote_model
        await persist(lambda: self._work.routes.failed(attempt.upstream, remote_model, failure))

    def _discretion(self, attempt: Attempt) -> Redaction:
        """Takes out what a vendor may say back to us where the name of an error or of a field belongs."""
        request, key = self._job.request, self._work.keys.key(order_of(attempt).upstream)
        private = (key, request.prompt, request.user, request.safety_identifier)
        return Redaction([text for text in private if text])

    async def _refused(self, attempt: Attempt, failure: UpstreamFailure) -> None:
        await persist(lambda: self._work.transitions.refuse(attempt, failure))


async def persist(transaction: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction until it lands, however long the database is away; each of them can be repeated."""
    failures = 0
    while True:
        try:
            return await transaction()
        except StoreUnavailable as exc:
            failures += 1
            LOG.warning("database.unavailable", reason=str(exc), failures=failures)
            await asyncio.sleep(0.1 + full_jitter(failures, base_s=0.2, cap_s=3.0))


def _shares(missing: int, per_call: int) -> list[int]:
    """How many pictures each call of a round buys."""
    full, rest = divmod(missing, per_call)
    return [per_call] * full + ([rest] if rest else [])


def _failures_at(candidate: Candidate, attempts: tuple[Attempt, ...]) -> list[Attempt]:
    name = candidate.route.upstream.name
    return [
        item
        for item in attempts
        if item.upstream == name
        and item.target.get("model") == candidate.route.model
        and item.state in (AttemptState.UNPAID, AttemptState.UNKNOWN)
    ]


def _untried_first(plan: Plan, attempts: tuple[Attempt, ...]) -> list[Candidate]:
    """The plan's order, but routes that failed this job already come after those that did not."""
    return sorted(plan.candidates, key=lambda candidate: len(_failures_at(candidate, attempts)))


def _is_unable(candidate: Candidate, attempts: tuple[Attempt, ...]) -> bool:
    """Whether a route has told this job that it lacks something: it would say so again."""
    return any(item.failure is FailureKind.UNSUPPORTED for item in _failures_at(candidate, attempts))


def _backoff_s(candidate: Candidate, attempts: tuple[Attempt, ...], at: datetime) -> float:
    """How long a route that failed this job is still left alone by it."""
    failures = _failures_at(candidate, attempts)
    if not failures:
        return 0.0
    last = max(item.finished_at or item.opened_at for item in failures)
    wait_s = min(_RETRY_BASE_S * 2.0 ** len(failures), _RETRY_CAP_S)
    return max(wait_s - (at - last).total_seconds(), 0.0)


def _route_of(model: Model | None, upstream: str, remote_model: str) -> Route | None:
    routes = model.routes if model else ()
    return next(
        (item for item in routes if item.upstream.name == upstream and item.model == remote_model), None
    )
