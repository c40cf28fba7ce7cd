"""Intents: what a job is about to buy, written before any byte of it leaves, as far as its upstream has room.

Calls in flight and by the minute are counted over all workers, so those who ask the same upstream pass one after the
other. Those of one process that ask in the same moment pass together, in one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.db.connection import Connection
from app.db.engine import Database
from app.jobs import repository
from app.jobs.lifecycle import AttemptState, Lost, Status
from app.jobs.records import Attempt, Job
from app.kit.json import JsonObject
from app.kit.together import Together

_OPENED_AT_MOST: Final = 32
"""Jobs let in at an upstream by one transaction, so that none waits long for the others' rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttempt:
    """A paid call about to be made."""

    id: str
    upstream: str
    target: JsonObject
    pictures: int
    bound_micros: int | None = None
    """The most that the call may cost at its own route, where the job holds nothing; None when that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamLimits:
    """What holds for an upstream over all workers together."""

    max_concurrency: int
    requests_per_minute: int | None
    images_per_minute: int | None

    @property
    def has_no_rates(self) -> bool:
        """Whether nothing is counted by the minute."""
        return self.requests_per_minute is None and self.images_per_minute is None

    def leave_room(self, in_flight: int, calls: int, pictures: int, own_pictures: int) -> bool:
        """Whether there may be so many calls in flight, and calls and pictures within a minute, the new one included.

        A call for more pictures than a minute may have is let in when the minute is free.
        """
        return (
            in_flight <= self.max_concurrency
            and (self.requests_per_minute is None or calls <= self.requests_per_minute)
            and (self.images_per_minute is None or pictures <= max(self.images_per_minute, own_pictures))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a job's holder wants to buy at one upstream."""

    job_id: str
    token: int
    planned: Sequence[NewAttempt]
    round_number: int
    limits: UpstreamLimits
    timeout_s: float


class Openings:
    """Lets jobs in at their upstreams."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._together: dict[str, Together[Opening, tuple[Attempt, ...] | Lost | None]] = {}

    async def open(self, opening: Opening) -> tuple[Attempt, ...]:
        """Write the intent of each planned call that the upstream has room for.

        Raises:
            Lost: the token is not the current one, the job is over, or its pictures were bought meanwhile.
        """
        upstream = opening.planned[0].upstream
        if upstream not in self._together:
            self._together[upstream] = Together(self._open, at_most=_OPENED_AT_MOST)
        opened = await self._together[upstream].ask(opening)
        if opened is None:  # somebody else had the job's row just then
            (opened,) = await self._open([opening])
        if not isinstance(opened, tuple):
            raise Lost(opening.job_id)
        return opened

    async def _open(self, openings: Sequence[Opening]) -> list[tuple[Attempt, ...] | Lost | None]:
        """Open attempts for jobs that ask the same upstream; None for one whose row is not free.

        Only a lone job is waited for: holding one row while waiting for another could be a deadlock.
        """
        async with self._database.transaction() as connection:
            found, at = await repository.lock_several(connection, [item.job_id for item in openings])
            attempts: dict[str, list[Attempt]] = {job_id: [] for job_id in found}
            for attempt in await repository.attempts_of(connection, sorted(found)) if found else []:
                attempts[attempt.job_id].append(attempt)
            answers: dict[int, tuple[Attempt, ...] | Lost] = {}
            asking: list[tuple[int, Opening]] = []
            for place, opening in enumerate(openings):
                job = found.get(opening.job_id)
                if job is None:
                    continue
                landed = _landed(opening, attempts[job.id])
                if landed:  # our own COMMIT had landed, only its answer was lost
                    answers[place] = landed
                elif _may_open(opening, job):
                    asking.append((place, opening))
                else:
                    answers[place] = Lost(job.id)
            admitted = await _admitted(connection, [opening for _, opening in asking]) if asking else []
            rows: list[Attempt] = []
            begun: list[dict[str, object]] = []
            for (place, opening), let_in in zip(asking, admitted, strict=True):
                job = found[opening.job_id]
                opened = _attempts(opening, job, let_in, first=len(attempts[job.id]), at=at)
                answers[place] = opened
                rows += opened
                if opened:
                    to_buy = job.to_buy - sum(item.pictures for item in opened)
                    begun.append({"job_id": job.id, "to_buy": to_buy, "started_at": job.started_at or at})
            await repository.insert_attempts(connection, rows)
            await repository.begin_jobs(connection, begun)
            is_lone = len(openings) == 1
            return [
                answers.get(place, Lost(opening.job_id) if is_lone else None)
                for place, opening in enumerate(openings)
            ]


def _landed(opening: Opening, attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Those of the planned attempts that are there already; all or none."""
    ids = {new.id for new in opening.planned}
    return tuple(attempt for attempt in attempts if attempt.id in ids)


def _may_open(opening: Opening, job: Job) -> bool:
    wanted = sum(new.pictures for new in opening.planned)
    return (
        job.lease_token == opening.token
        and job.lease_until is not None
        and job.status is Status.IN_PROGRESS
        and wanted <= job.to_buy
    )


def _attempts(
    opening: Opening, job: Job, let_in: Sequence[NewAttempt], *, first: int, at: datetime
) -> tuple[Attempt, ...]:
    """The intents to be written, numbered from `first`."""
    return tuple(
        Attempt(
            id=new.id,
            job_id=job.id,
            number=number,
            round=opening.round_number,
            upstream=new.upstream,
            target=new.target,
            pictures=new.pictures,
            owner_token=opening.token,
            state=AttemptState.INTENT,
            ticket=None,
            failure=None,
            detail=None,
            param=None,
            opened_at=at,
            outcome_due=at + timedelta(seconds=opening.timeout_s),
            finished_at=None,
            usage=None,
            resolved=None,
            hold_micros=_hold_micros(job, new),
            cost_micros=None,
            certainty=None,
        )
        for number, new in enumerate(let_in, start=first)
    )


def _hold_micros(job: Job, new: NewAttempt) -> int | None:
    """What a call takes of the job's hold; where the job holds nothing, the most that it may cost at its route."""
    return new.bound_micros if job.picture_hold_micros is None else job.picture_hold_micros * new.pictures


async def _admitted(connection: Connection, openings: Sequence[Opening]) -> list[Sequence[NewAttempt]]:
    """Those of each opening's calls that their upstream's limits leave room for, counted over all workers."""
    upstream = openings[0].planned[0].upstream
    await repository.serialise(connection, f"upstream:{upstream}")
    if all(item.limits.has_no_rates for item in openings):
        in_flight, calls, pictures = await repository.calls_in_flight(connection, upstream), 0, 0
    else:
        in_flight, calls, pictures = await repository.traffic(connection, upstream)
    admitted: list[Sequence[NewAttempt]] = []
    for opening in openings:
        let_in: list[NewAttempt] = []
        for new in opening.planned:
            if not opening.limits.leave_room(in_flight + 1, calls + 1, pictures + new.pictures, new.pictures):
                break
            in_flight, calls, pictures = in_flight + 1, calls + 1, pictures + new.pictures
            let_in.append(new)
        admitted.append(let_in)
    return admitted
