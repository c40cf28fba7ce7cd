"""Every change of a job's life, each in one transaction: what the model checker proves, on the real tables.

Success is welcome late and from anybody; failure only from the current holder (reliability 0.5). The counter
`to_buy` is the lock against buying twice.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from app.assets.records import AssetKind, Picture
from app.assets.repository import (
    LATE_LIFE,
    assets_of_jobs,
    insert_assets,
    move_to_late,
    prolong_results,
)
from app.db.connection import Connection
from app.db.engine import Database
from app.db.witness import Witness, unwitnessed
from app.domain.failures import CLASS_OF, FailureClass, FailureKind, UpstreamFailure
from app.domain.money import Certainty
from app.domain.results import Usage
from app.jobs import claims, repository
from app.jobs.instruments import JobInstruments
from app.jobs.lifecycle import (
    AttemptState,
    Buy,
    End,
    Ending,
    Lost,
    Move,
    Status,
    Verdict,
    Wait,
    cancel,
    conclude,
    ending_of,
    expire,
    fail,
    finish,
    park,
    rescue,
)
from app.jobs.openings import NewAttempt, Opening, Openings, UpstreamLimits
from app.jobs.outcome import error_of, result_files, result_of
from app.jobs.records import Attempt, Job
from app.kit.json import Json
from app.kit.telemetry import get_logger
from app.ledger import books
from app.webhooks.outbox import write_end

LOG = get_logger(__name__)

CLAIMS_MAX: Final = 3
"""After so many claims that ended with their worker, a job is not tried again."""
UNDECIDED_S: Final = 5.0
"""How long past its deadline a job is left to its holder, who decides within milliseconds, unless its lease outlives
its wits (the heartbeat has a thread of its own), or its process is gone and the lease still runs.
"""
SWEEP_BATCH: Final = 200
"""Rows moved by one sweep, so that no transaction of it grows long."""
FOLLOW_S: Final = 600.0
"""How long an order that is still open at the job's deadline is asked after, to book its cost and keep its picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the holder of a job does next."""

    job: Job
    attempts: tuple[Attempt, ...]
    verdict: Verdict
    resume: tuple[Attempt, ...]
    """Orders at a vendor that nobody in this process follows yet."""
    due_in_s: float
    """Until the deadline; negative once it has passed."""
    wake_in_s: float | None
    """Until time alone changes what is to be done; None when it never will."""
    judged_in_s: float | None
    """Until the outcome of somebody else's call may be judged; None when there is none."""


class Transitions:
    """The moves of jobs and attempts on one database."""

    def __init__(
        self, database: Database, *, lease_s: float, instruments: JobInstruments | None = None
    ) -> None:
        self._database = database
        self._lease_s = lease_s
        self._instruments = instruments or JobInstruments()
        self._openings = Openings(database)

    async def claim(self, owner: str, limit: int, *, with_final: bool = True) -> list[Job]:
        """Take the next runnable jobs, at most `limit`, and hold them for the lease.

        `with_final`: final jobs whose calls are still open as well, which nobody waits for.
        """
        async with self._database.single() as connection:
            return await claims.claim(
                connection,
                owner,
                limit=limit,
                lease_s=self._lease_s,
                claims_max=CLAIMS_MAX,
                with_final=with_final,
            )

    async def renew(self, held: Mapping[str, int]) -> dict[str, Status]:
        """Renew leases, job id -> token; a job missing from the answer is lost."""
        async with self._database.single() as connection:
            return await repository.renew_leases(connection, held, lease_s=self._lease_s)

    def decide_first(self, job: Job, *, max_rounds: int) -> Decision | None:
        """Say what the holder of a job does that has just been claimed for the first time: nobody has asked for it yet.

        None when its claim does not say that, or when time has run out: then `decide` looks.
        """
        if job.lease_token != 1 or job.lease_until is None or job.status.is_final:
            return None
        at = job.lease_until - timedelta(seconds=self._lease_s)
        verdict = self._verdict(job, (), at, max_rounds)
        ends_at = min(job.deadline_at, job.cancel_at or job.deadline_at)
        if not isinstance(verdict, Buy) or ends_at <= at:
            return None
        return Decision(
            job=job,
            attempts=(),
            verdict=verdict,
            resume=(),
            due_in_s=(job.deadline_at - at).total_seconds(),
            wake_in_s=(ends_at - at).total_seconds(),
            judged_in_s=None,
        )

    async def decide(self, job_id: str, token: int, *, max_rounds: int, followed: frozenset[str]) -> Decision:
        """Judge what is due to be judged, and say what the holder does next. Ends the job when nothing is left.

        `followed`: ids of attempts that this process is working on.

        Raises:
            Lost: the token is not the current one.
        """
        async with self._database.transaction() as connection:
            job, at = await self._held(connection, job_id, token)
            attempts = await repository.attempts_of(connection, [job_id])
            is_changed = False
            for attempt in attempts:
                # Its own sender answers for a call in flight; an order is given up by whoever asks after it.
                is_ours = attempt.id in followed and attempt.state is AttemptState.INTENT
                if attempt.state.is_open and not is_ours and attempt.outcome_due <= at:
                    job = await self._outcome_unknown(connection, job, attempt, _UNANSWERED)
                    is_changed = True
            if is_changed:
                attempts = await repository.attempts_of(connection, [job_id])
            if not job.status.is_final and job.cancel_at is not None and job.cancel_at <= at:
                job = await self._close(connection, job, attempts, cancel(), {})
            verdict = self._verdict(job, attempts, at, max_rounds)
            if isinstance(verdict, End):
                job = await self._end(connection, job, attempts, verdict.ending)
            foreign = [
                attempt for attempt in attempts if attempt.state.is_open and attempt.id not in followed
            ]
            if job.status.is_final and not any(attempt.state.is_open for attempt in attempts):
                await self._release(connection, job)
            orders = [item.outcome_due for item in attempts if item.state is AttemptState.ACCEPTED]
            limits = [] if job.status.is_final else [job.deadline_at, job.cancel_at or job.deadline_at]
            turns = [*orders, *limits]
            intents = [attempt.outcome_due for attempt in foreign if attempt.state is AttemptState.INTENT]
            return Decision(
                job=job,
                attempts=tuple(attempts),
                verdict=verdict,
                resume=tuple(attempt for attempt in foreign if attempt.state is AttemptState.ACCEPTED),
                due_in_s=(job.deadline_at - at).total_seconds(),
                wake_in_s=min(((turn - at).total_seconds() for turn in turns if turn > at), default=None),
                judged_in_s=(min(intents) - at).total_seconds() if intents else None,
            )

    async def open_attempts(
        self,
        job_id: str,
        token: int,
        planned: Sequence[NewAttempt],
        *,
        round_number: int,
        limits: UpstreamLimits,
        timeout_s: float,
    ) -> tuple[Attempt, ...]:
        """Write the intent of each planned call that the upstream has room for; the last act before any byte leaves.

        All planned attempts go to one upstream. The answer is shorter, or empty, when the upstream is full.

        Raises:
            Lost: the token is not the current one, the job is over, or its pictures were bought meanwhile.
        """
        return await self._openings.open(
            Opening(
                job_id=job_id,
                token=token,
                planned=planned,
                round_number=round_number,
                limits=limits,
                timeout_s=timeout_s,
            )
        )

    async def accept(self, attempt: Attempt, ticket: str) -> bool:
        """Record the vendor's ticket before the first wait, so that a restart resumes the order. Never fenced.

        False when the ticket already belongs to another attempt: two orders would share one result.
        """
        async with self._database.transaction() as connection:
            job, at = await _locked(connection, attempt.job_id)
            until_s = (job.deadline_at - at).total_seconds() + FOLLOW_S
            accepted = await repository.accept_attempt(
                connection, attempt.id, attempt.upstream, ticket, outcome_due_s=max(until_s, FOLLOW_S)
            )
            if accepted:
                await repository.change(connection, job.id, {})
            return accepted

    async def succeed(
        self,
        attempt: Attempt,
        pictures: Sequence[Picture],
        *,
        usage: Usage | None,
        resolved: Mapping[str, Json],
        cost_micros: int,
        certainty: Certainty,
        max_rounds: int,
        dearest_micros: int | None = None,
    ) -> Job:
        """Book an attempt's pictures, already in storage; the job succeeds with them, or they are kept as late.

        `dearest_micros`: what they would have cost at the dearest route, for reports.
        """
        async with self._database.transaction() as connection:
            job, at = await _locked(connection, attempt.job_id)
            attempts = await repository.attempts_of(connection, [job.id])
            attempt = next(item for item in attempts if item.id == attempt.id)
            if attempt.state is AttemptState.UNKNOWN and attempt.certainty is Certainty.ACTUAL:
                # The vendor's own bill, imported meanwhile, is not bettered by a price list.
                cost_micros, certainty = attempt.cost_micros or 0, Certainty.ACTUAL
            booked = await repository.succeed_attempt(
                connection,
                attempt.id,
                pictures=len(pictures),
                usage=usage,
                resolved=resolved,
                cost_micros=cost_micros,
                certainty=certainty,
                dearest_micros=dearest_micros,
            )
            if booked is None:
                return job
            count = partial(
                self._instruments.delivered,
                attempt,
                job,
                len(pictures),
                cost_micros,
                certainty,
                is_booked=attempt.state is AttemptState.UNKNOWN,
            )
            self._database.once_committed(connection, count)
            await _settle_delivered(connection, job, attempt, cost_micros)
            is_late = job.status.is_final
            await insert_assets(
                connection,
                pictures,
                kind=AssetKind.LATE if is_late else AssetKind.RESULT,
                team_id=job.team_id,
                job_id=job.id,
                attempt_id=attempt.id,
                expires_at=max(job.expires_at, at + LATE_LIFE) if is_late else job.expires_at,
                # Attempts of one job are numbered, so their pictures keep the order in which they were bought.
                first_index=attempt.number * job.n,
            )
            attempts = [booked if item.id == booked.id else item for item in attempts]
            to_buy = min(job.to_buy, _missing(job, attempts))
            await _release_unbought(connection, job, job.to_buy - to_buy)
            job = replace(job, to_buy=to_buy)
            verdict = self._verdict(job, attempts, at, max_rounds)
            if isinstance(verdict, End):
                made = pictures if len(attempts) == 1 else None
                return await self._end(connection, job, attempts, verdict.ending, made=made)
            await repository.change(connection, job.id, {"to_buy": job.to_buy})
            return job

    async def show_partial(self, attempt: Attempt, picture: Picture, *, index: int) -> None:
        """Show a coarse picture, already in storage, to whoever watches the job; nothing about the job changes."""
        async with self._database.transaction() as connection:
            job, _ = await _locked(connection, attempt.job_id)
            if job.status.is_final:
                return
            await insert_assets(
                connection,
                [picture],
                kind=AssetKind.PARTIAL,
                team_id=job.team_id,
                job_id=job.id,
                attempt_id=attempt.id,
                expires_at=job.expires_at,
                first_index=index,
            )
            await repository.change(connection, job.id, {})

    async def refuse(self, attempt: Attempt, failure: UpstreamFailure) -> bool:
        """Book an attempt that its own sender proved to be unpaid: its pictures may be bought elsewhere."""
        async with self._database.transaction() as connection:
            job, _ = await _locked(connection, attempt.job_id)
            ended = await repository.end_attempt(
                connection,
                attempt,
                AttemptState.UNPAID,
                token=attempt.owner_token if attempt.state is AttemptState.INTENT else None,
                failure=failure.kind,
                detail=failure.detail,
                param=failure.param,
            )
            if ended:
                count = partial(self._instruments.failed, attempt, job, failure.kind, may_be_paid=False)
                self._database.once_committed(connection, count)
                to_buy = 0 if job.status.is_final else await _raised(connection, job, attempt.pictures)
                # What comes back to the job is never more than what the attempt held.
                again_micros = (to_buy - job.to_buy) * (job.picture_hold_micros or 0)
                await books.post(
                    connection, job.budgets, reserved_micros=again_micros - (attempt.hold_micros or 0)
                )
                await repository.change(connection, job.id, {"to_buy": to_buy})
            return ended

    async def lose_track(self, attempt: Attempt, failure: UpstreamFailure) -> None:
        """Book an attempt whose outcome its sender could not learn, as if it had been paid for."""
        async with self._database.transaction() as connection:
            job, _ = await _locked(connection, attempt.job_id)
            await self._outcome_unknown(connection, job, attempt, failure)

    async def park(self, job_id: str, token: int, *, delay_s: float) -> None:
        """Give a job back in order: it may be claimed again after `delay_s`, and the claim is not counted.

        Raises:
            Lost: the token is not the current one.
        """
        async with self._database.transaction() as connection:
            job, at = await self._held(connection, job_id, token)
            free: dict[str, object] = {
                "lease_until": None,
                "lease_owner": None,
                "lease_token": token + 1,
                "available_at": at + timedelta(seconds=delay_s),
            }
            free["claims"] = max(job.claims - 1, 0)
            if job.status.is_final:
                await repository.change(connection, job_id, free, visible=False)
            elif not await repository.move(connection, job, park(), free, token=token):
                raise Lost(job_id)

    async def forgive(self, job_id: str) -> None:
        """Take back the count of a claim whose lease was lost although its worker lives.

        The count is of claims that ended with their worker; a database that is away for longer than a lease makes
        every worker lose its jobs, and should poison none of them.
        """
        async with self._database.transaction() as connection:
            found = await repository.lock(connection, job_id)
            if found is not None and found[0].claims:
                await repository.change(connection, job_id, {"claims": found[0].claims - 1}, visible=False)

    async def give_up(self, job_id: str, token: int) -> Job:
        """Buy no more for a job for which no route can be asked, and end it unless calls are still open.

        Raises:
            Lost: the token is not the current one.
        """
        async with self._database.transaction() as connection:
            job, _ = await self._held(connection, job_id, token)
            if job.status.is_final:
                return job
            attempts = await repository.attempts_of(connection, [job_id])
            if any(attempt.state.is_open for attempt in attempts):
                await _release_unbought(connection, job, job.to_buy)
                await repository.change(connection, job_id, {"to_buy": 0})
                return replace(job, to_buy=0)
            # What became of those that were asked says more than that nobody is left to ask.
            ending = ending_of([attempt.fact() for attempt in attempts]) or Ending.UNAVAILABLE
            return await self._end(connection, job, attempts, ending)

    async def cancel(
        self,
        job_id: str,
        team_id: str | None,
        *,
        is_unsent: bool = False,
        witness: Witness[Job] = unwitnessed,
    ) -> tuple[Job, bool] | None:
        """Cancel a job; the flag is False when it was final already. None: the team has no such job.

        `is_unsent`: only while nobody was paid for it and no call is under way; else it stays, and the flag is False.
        """
        async with self._database.transaction() as connection:
            if await repository.find(connection, job_id, team_id=team_id) is None:
                return None
            job, _ = await _locked(connection, job_id)
            if job.status.is_final:
                return job, False
            attempts = await repository.attempts_of(connection, [job_id])
            if is_unsent and any(item.state is not AttemptState.UNPAID for item in attempts):
                return job, False
            cancelled = await self._close(connection, job, attempts, cancel(), {})
            await witness(connection, job, cancelled)
            return cancelled, True

    async def call_off(self) -> list[str]:
        """Cancel jobs past the time limit that their client set, unless their holder is just about to; their ids."""
        async with self._database.transaction() as connection:
            found = await repository.beyond_limit(connection, after_s=UNDECIDED_S, limit=SWEEP_BATCH)
            await books.lock(connection, (budget for job in found for budget in job.budgets))
            for job in found:
                attempts = await repository.attempts_of(connection, [job.id])
                await self._close(connection, job, attempts, cancel(), {})
            return [job.id for job in found]

    async def rescue(self) -> list[str]:
        """Take jobs from workers that no longer renew their lease, so that others go on; their ids."""
        async with self._database.transaction() as connection:
            if not await repository.try_serialise(connection, "sweep"):
                return []
            lapsed = await repository.lapsed(connection, limit=SWEEP_BATCH)
            for job in lapsed:
                free = {"lease_until": None, "lease_owner": None, "lease_token": job.lease_token + 1}
                if job.status.is_final:
                    await repository.change(connection, job.id, free, visible=False)
                else:
                    await repository.move(connection, job, rescue(), free, token=None)
            return [job.id for job in lapsed]

    async def end_overdue(self) -> list[str]:
        """End jobs that wait past their deadline, or whose holder does not end them, and give up on those that have
        used up their claims; their ids.
        """
        async with self._database.transaction() as connection:
            spent = await repository.spent(connection, claims_max=CLAIMS_MAX, limit=SWEEP_BATCH)
            overdue: list[Job] = []
            if len(spent) < SWEEP_BATCH:
                known = {job.id for job in spent}
                late = await repository.late(connection, limit=SWEEP_BATCH - len(spent))
                overdue += [job for job in late if job.id not in known]
            if len(spent) + len(overdue) < SWEEP_BATCH:
                limit = SWEEP_BATCH - len(spent) - len(overdue)
                overdue += await repository.undecided(connection, after_s=UNDECIDED_S, limit=limit)
            # All at once and in their order: other transactions hold a job each, and its budgets.
            await books.lock(connection, (budget for job in [*spent, *overdue] for budget in job.budgets))
            for job in spent:
                await self._give_up_spent(connection, job)
            for job in overdue:
                # Calls that are open may still be sent or answered: they stay open, and are followed.
                attempts = await repository.attempts_of(connection, [job.id])
                ending = ending_of([attempt.fact() for attempt in attempts]) or Ending.NOT_STARTED
                await self._end(connection, job, attempts, ending)
            return [job.id for job in [*spent, *overdue]]

    async def _give_up_spent(self, connection: Connection, job: Job) -> None:
        for attempt in await repository.attempts_of(connection, [job.id]):
            if attempt.state.is_open:
                job = await self._outcome_unknown(connection, job, attempt, _UNANSWERED)
        if not job.status.is_final:
            attempts = await repository.attempts_of(connection, [job.id])
            await self._end(connection, job, attempts, Ending.POISONED)

    async def start_over(self, *, in_process: Collection[str]) -> None:
        """As the embedded default starts: no worker is left, so every lease is void and every intent due.

        `in_process`: upstreams that draw in the process itself. They ended with it, so nothing was bought there.
        """
        async with self._database.transaction() as connection:
            await repository.void_leases(connection)
            ended = await repository.intents_at(connection, in_process)
        for attempt in ended:
            await self.refuse(attempt, _ENDED_WITH_US)

    @staticmethod
    async def _held(connection: Connection, job_id: str, token: int) -> tuple[Job, datetime]:
        job, at = await _locked(connection, job_id)
        if job.lease_token != token or job.lease_until is None:
            raise Lost(job_id)
        return job, at

    @staticmethod
    def _verdict(job: Job, attempts: Sequence[Attempt], at: datetime, max_rounds: int) -> Verdict:
        if job.status.is_final:
            return Wait()
        return conclude(
            [attempt.fact() for attempt in attempts],
            to_buy=job.to_buy,
            max_rounds=max_rounds,
            is_due=job.deadline_at <= at,
        )

    async def _outcome_unknown(
        self, connection: Connection, job: Job, attempt: Attempt, failure: UpstreamFailure
    ) -> Job:
        ended = await repository.end_attempt(
            connection,
            attempt,
            AttemptState.UNKNOWN,
            token=None,
            failure=failure.kind,
            detail=failure.detail,
            param=failure.param,
        )
        if not ended:
            return job
        count = partial(self._instruments.failed, attempt, job, failure.kind, may_be_paid=True)
        self._database.once_committed(connection, count)
        hold_micros = attempt.hold_micros or 0
        await books.post(connection, job.budgets, reserved_micros=-hold_micros, spent_micros=hold_micros)
        if not job.spare or job.status.is_final:
            await repository.change(connection, job.id, {})
            return job
        to_buy = await _raised(connection, job, attempt.pictures)
        if not await _hold_again(connection, job, to_buy - job.to_buy):
            await repository.change(connection, job.id, {})
            return job
        await repository.change(connection, job.id, {"to_buy": to_buy, "spare": 0})
        return replace(job, to_buy=to_buy, spare=0)

    async def _end(
        self,
        connection: Connection,
        job: Job,
        attempts: Sequence[Attempt],
        ending: Ending,
        *,
        made: Sequence[Picture] | None = None,
    ) -> Job:
        """End a job; `made`: all its pictures, where this transaction has just written them."""
        # Every way to the end delivers what is in hand; only the client's own word (cancel) does not.
        if any(attempt.state is AttemptState.SUCCEEDED for attempt in attempts):
            if job.is_expired:
                await prolong_results(connection, job.id, await repository.prolong(connection, job))
            pictures = made or await assets_of_jobs(connection, [job.id], [AssetKind.RESULT])
            result = result_of(job, attempts, pictures)
            if len(attempts) > 1:
                # An attempt that was written off and replaced may have delivered too.
                await move_to_late(connection, job.id, but=result_files(result))
            return await self._close(connection, job, attempts, finish(), {"result": result})
        step = expire() if ending is Ending.NOT_STARTED else fail()
        return await self._close(connection, job, attempts, step, {"error": error_of(ending, attempts)})

    async def _close(
        self,
        connection: Connection,
        job: Job,
        attempts: Sequence[Attempt],
        step: Move,
        values: Mapping[str, object],
    ) -> Job:
        # Calls that are still open are followed to their end, by the worker that holds the lease or by the next.
        is_followed = job.lease_until is not None and any(attempt.state.is_open for attempt in attempts)
        lease = (
            {}
            if is_followed
            else {"lease_until": None, "lease_owner": None, "lease_token": job.lease_token + 1}
        )
        # Nothing more is bought, so the hold for it ends; attempts that are open keep theirs.
        final = {**values, **lease, "to_buy": 0}
        closed = await repository.move(connection, job, step, final, token=None)
        if closed is None:
            return job
        await _release_unbought(connection, job, job.to_buy)
        if step.reaches is not Status.SUCCEEDED:
            # Pictures of a job that ends without them are kept like those that come after its end.
            await move_to_late(connection, job.id)
        self._database.once_committed(connection, partial(self._instruments.ended, closed))
        await write_end(
            connection,
            job_id=closed.id,
            team_id=closed.team_id,
            status=closed.status.value,
            webhook_url=closed.webhook_url,
        )
        return closed

    @staticmethod
    async def _release(connection: Connection, job: Job) -> None:
        if job.lease_until is not None:
            free = {"lease_until": None, "lease_owner": None, "lease_token": job.lease_token + 1}
            await repository.change(connection, job.id, free, visible=False)


_ENDED_WITH_US: Final = UpstreamFailure(FailureKind.DOWN, "it ended with the process that it drew in")
_UNANSWERED: Final = UpstreamFailure(
    FailureKind.TIMED_OUT, "its worker stopped before an answer was recorded"
)


async def _locked(connection: Connection, job_id: str) -> tuple[Job, datetime]:
    found = await repository.lock(connection, job_id)
    if found is None:
        raise Lost(job_id)
    return found


async def _raised(connection: Connection, job: Job, pictures: int) -> int:
    """The counter after an attempt ended without pictures: never more than is neither in hand nor on its way.

    An attempt that was written off and replaced may deliver after all, hence the bound. A fault found with the
    request itself ends all buying.
    """
    attempts = await repository.attempts_of(connection, [job.id])
    if any(item.failure and CLASS_OF[item.failure] is FailureClass.FINAL for item in attempts):
        return 0
    return min(job.to_buy + pictures, _missing(job, attempts))


async def _settle_delivered(connection: Connection, job: Job, attempt: Attempt, cost_micros: int) -> None:
    """Book what delivered pictures cost, in the place of the hold, or of what was taken for their cost before."""
    hold_micros = attempt.hold_micros or 0
    if attempt.hold_micros is not None and cost_micros > hold_micros:
        LOG.error("cost.beyond_hold", attempt_id=attempt.id, hold_micros=hold_micros, cost_micros=cost_micros)
    if attempt.state is not AttemptState.UNKNOWN:
        await books.post(connection, job.budgets, reserved_micros=-hold_micros, spent_micros=cost_micros)
        return
    booked_micros = attempt.cost_micros or 0
    await books.post(connection, job.budgets, reserved_micros=0, spent_micros=cost_micros - booked_micros)
    await books.correct(
        connection,
        attempt.id,
        reason=books.Reason.DELIVERED,
        before_micros=booked_micros,
        after_micros=cost_micros,
        was=attempt.certainty or Certainty.POSSIBLE,
    )


async def _release_unbought(connection: Connection, job: Job, pictures: int) -> None:
    """Give back what was held for pictures of the job that nobody will buy."""
    await books.post(connection, job.budgets, reserved_micros=-pictures * (job.picture_hold_micros or 0))


async def _hold_again(connection: Connection, job: Job, pictures: int) -> bool:
    """Hold the price of pictures that are bought once more; False when a budget has no room for them."""
    if pictures <= 0:
        await _release_unbought(connection, job, -pictures)
        return True
    return await books.take_out_more(connection, job.budgets, pictures * (job.picture_hold_micros or 0))


def _missing(job: Job, attempts: Sequence[Attempt]) -> int:
    covering = (
        item.pictures for item in attempts if item.state.is_open or item.state is AttemptState.SUCCEEDED
    )
    return max(job.n - sum(covering), 0)
