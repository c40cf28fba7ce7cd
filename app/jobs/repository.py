"""Every query on jobs and attempts. Each function takes the caller's connection and commits nothing.

Lock order everywhere: job, then attempts. The claim has a file of its own, `claims.py`.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Select,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite

from app.db.connection import Connection, built_once, of_few_lengths
from app.db.engine import row_values
from app.db.tables.api_keys import api_keys
from app.db.tables.attempts import attempts
from app.db.tables.idempotency_keys import idempotency_keys
from app.db.tables.job_metadata import job_metadata
from app.db.tables.jobs import jobs
from app.db.types import from_now, now
from app.domain.failures import FailureKind
from app.domain.money import Certainty
from app.domain.results import Usage
from app.jobs.conditions import at_most, has_open_attempt, has_state, has_status, is_open_attempt
from app.jobs.lifecycle import FINAL, OPEN, AttemptState, Move, Status
from app.jobs.records import Attempt, Job, attempt_from, job_from
from app.kit.json import Json

# Built once, because these are asked for every job several times, and building them costs more than asking.
_IS_EXPIRED: Final = (jobs.c.expires_at <= now()).label("is_expired")
_FIND: Final = built_once(select(jobs, _IS_EXPIRED).where(jobs.c.id == bindparam("job_id")))
_FIND_OF_TEAM: Final = built_once(_FIND.where(jobs.c.team_id == bindparam("team_id")))
_FIND_SEVERAL: Final = built_once(
    select(jobs, _IS_EXPIRED).where(jobs.c.id.in_(bindparam("job_ids", expanding=True)))
)
_FIND_SEVERAL_OF_TEAM: Final = built_once(_FIND_SEVERAL.where(jobs.c.team_id == bindparam("team_id")))
_LOCK: Final = built_once(
    select(jobs, _IS_EXPIRED, now().label("at")).where(jobs.c.id == bindparam("job_id")).with_for_update()
)
_LOCK_SEVERAL: Final = built_once(
    select(jobs, now().label("at"))
    .where(jobs.c.id.in_(bindparam("job_ids", expanding=True)))
    .with_for_update(skip_locked=True)
)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_ATTEMPTS_OF_ONE: Final = built_once(
    select(attempts).where(attempts.c.job_id == bindparam("job_id")).order_by(attempts.c.number)
)
_ATTEMPTS_OF: Final = built_once(
    select(attempts)
    .where(attempts.c.job_id.in_(bindparam("job_ids", expanding=True)))
    .order_by(attempts.c.job_id, attempts.c.number)
)

_WAITING: Final = built_once(
    select(func.count()).where(has_status(Status.QUEUED), jobs.c.team_id == bindparam("team_id"))
)
_OPEN_AT: Final = built_once(
    select(func.count()).where(attempts.c.upstream == bindparam("upstream"), is_open_attempt())
)
_RECENT_AT: Final = built_once(
    select(func.count(), func.coalesce(func.sum(attempts.c.pictures), 0)).where(
        attempts.c.upstream == bindparam("upstream"), attempts.c.opened_at > from_now(-60.0)
    )
)
_INTENT: Final = (
    "id",
    "job_id",
    "number",
    "round",
    "upstream",
    "target",
    "pictures",
    "owner_token",
    "state",
    "opened_at",
    "outcome_due",
    "hold_micros",
)
_INSERT_INTENT: Final = built_once(
    insert(attempts).values({name: bindparam(name, type_=attempts.c[name].type) for name in _INTENT})
)
_SUCCEED_ATTEMPT: Final = built_once(
    update(attempts)
    .where(attempts.c.id == bindparam("attempt_id"), or_(is_open_attempt(), has_state(AttemptState.UNKNOWN)))
    .values(
        **{
            name: bindparam(name, type_=attempts.c[name].type)
            for name in ("pictures", "usage", "resolved", "cost_micros", "certainty", "dearest_micros")
        },
        state=AttemptState.SUCCEEDED.value,
        settled="spent",
        failure=None,
        finished_at=now(),
    )
    .returning(*attempts.c)
)
_SERIALISE: Final = built_once(
    select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("subject", type_=Text()), 0)))
)


async def insert_job(
    connection: Connection,
    values: Mapping[str, Any],
    *,
    deadline_s: float,
    ttl_s: float,
    held_s: float,
    cancel_after_s: float | None = None,
) -> Job | None:
    """Write a new queued job; None when its id is there already (our COMMIT had landed)."""
    row = {**values, "status": Status.QUEUED.value}
    times = {"deadline_at": deadline_s, "expires_at": ttl_s, "waited_until": held_s}
    if cancel_after_s is not None:
        times["cancel_at"] = cancel_after_s
    statement = _insert_job(tuple(row), tuple(times), is_sqlite=connection.dialect.name == "sqlite")
    written = (await connection.execute(statement, row | times)).first()
    if written is None:
        return None
    job = job_from(row_values(written))
    pairs = [
        {"team_id": job.team_id, "pair": _pair(key, value), "created_at": job.created_at, "job_id": job.id}
        for key, value in job.metadata.items()
    ]
    if pairs:
        await connection.execute(insert(job_metadata), pairs)
    return job


@cache
def _insert_job(names: Sequence[str], times: Sequence[str], *, is_sqlite: bool) -> Executable:
    upsert = upsert_on_sqlite if is_sqlite else upsert_on_postgres
    row: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in names}
    row |= {name: from_now(bindparam(name, type_=Float())) for name in times}
    return built_once(upsert(jobs).values(row).on_conflict_do_nothing().returning(*jobs.c))


async def bind_key(
    connection: Connection, team_id: str, key: str, fingerprint: bytes, job_id: str, *, ttl_s: float
) -> tuple[str, bytes]:
    """Bind an idempotency key to a job, or find whom it is bound to already: (job id, fingerprint).

    A concurrent twin waits here for our commit or rollback.
    """
    row = {
        "team_id": team_id,
        "key": key,
        "fingerprint": fingerprint,
        "job_id": job_id,
        "expires_at": from_now(ttl_s),
    }
    table = idempotency_keys
    bound = await connection.execute(
        _upsert(connection, table)
        .values(row)
        # A key past its life is free again.
        .on_conflict_do_update(
            index_elements=["team_id", "key"],
            set_={
                "fingerprint": fingerprint,
                "job_id": job_id,
                "created_at": now(),
                "expires_at": from_now(ttl_s),
            },
            where=table.c.expires_at < now(),
        )
        .returning(table.c.job_id)
    )
    if bound.first() is not None:
        return job_id, fingerprint
    query = select(table.c.job_id, table.c.fingerprint).where(table.c.team_id == team_id, table.c.key == key)
    found = (await connection.execute(query)).one()
    return found.job_id, found.fingerprint


async def is_key_bound(connection: Connection, team_id: str, key: str) -> bool:
    """Whether a job stands for this idempotency key."""
    table = idempotency_keys
    query = select(table.c.job_id).where(
        table.c.team_id == team_id, table.c.key == key, table.c.expires_at >= now()
    )
    return (await connection.execute(query)).first() is not None


async def count_waiting(connection: Connection, team_id: str) -> int:
    """How many jobs of a team are queued."""
    return int((await connection.execute(_WAITING, {"team_id": team_id})).scalar_one())


async def count_waiting_of_key(connection: Connection, team_id: str, api_key_id: str) -> int:
    """How many jobs of one of a team's keys are queued."""
    mine = (jobs.c.team_id == team_id, jobs.c.api_key_id == api_key_id)
    query = select(func.count()).where(has_status(Status.QUEUED), *mine)
    return int((await connection.execute(query)).scalar_one())


async def count_open(connection: Connection, team_id: str, api_key_id: str) -> tuple[int, int]:
    """How many jobs are not final: all of the team, and those of one of its keys."""
    of_key = case((jobs.c.api_key_id == api_key_id, 1))
    query = select(func.count(), func.count(of_key)).where(
        has_status(*sorted(OPEN)), jobs.c.team_id == team_id
    )
    of_team, of_this_key = (await connection.execute(query)).one()
    return int(of_team), int(of_this_key)


async def find(connection: Connection, job_id: str, *, team_id: str | None) -> Job | None:
    """Read a job of a team; `team_id` None is for the engine and for operators, who see every team's."""
    if team_id is None:
        row = (await connection.execute(_FIND, {"job_id": job_id})).first()
    else:
        row = (await connection.execute(_FIND_OF_TEAM, {"job_id": job_id, "team_id": team_id})).first()
    return None if row is None else job_from(row_values(row))


async def find_several(connection: Connection, job_ids: Sequence[str], *, team_id: str | None) -> list[Job]:
    """Read those of these jobs that are a team's, in no order; `team_id` None is for operators."""
    if len(job_ids) == 1:
        job = await find(connection, job_ids[0], team_id=team_id)
        return [] if job is None else [job]
    values: dict[str, object] = {"job_ids": of_few_lengths(job_ids)}
    if team_id is None:
        rows = await connection.execute(_FIND_SEVERAL, values)
    else:
        rows = await connection.execute(_FIND_SEVERAL_OF_TEAM, values | {"team_id": team_id})
    return [job_from(row_values(row)) for row in rows]


async def lock(connection: Connection, job_id: str) -> tuple[Job, datetime] | None:
    """Read a job and keep everybody else from moving it until the transaction ends; with the database's time."""
    row = (await connection.execute(_LOCK, {"job_id": job_id})).first()
    return None if row is None else (job_from(row_values(row)), row.at)


async def lock_several(connection: Connection, job_ids: Sequence[str]) -> tuple[dict[str, Job], datetime]:
    """Lock those of these jobs whose rows are free, a lone one in any case; with the database's time."""
    if len(job_ids) == 1:
        found = await lock(connection, job_ids[0])
        return ({}, _NEVER) if found is None else ({found[0].id: found[0]}, found[1])
    wanted = of_few_lengths(sorted(set(job_ids)))
    rows = (await connection.execute(_LOCK_SEVERAL, {"job_ids": wanted})).all()
    return {row.id: job_from(row_values(row)) for row in rows}, rows[0].at if rows else _NEVER


async def move(
    connection: Connection, job: Job, step: Move, values: Mapping[str, Any], *, token: int | None
) -> Job | None:
    """Make one move of the lifecycle, guarded by the states it may leave and, where given, by the fence.

    The job as it is since; None when somebody else moved first. A final job is dated by the database's clock.
    """
    statement = _move(tuple(values), frozenset(step.leaves), step.reaches, is_fenced=token is not None)
    given = {**values, "job_id": job.id} | ({} if token is None else {"token": token})
    moved = (await connection.execute(statement, given)).first()
    return None if moved is None else job_from(row_values(moved))


@cache
def _move(names: Sequence[str], leaves: frozenset[Status], reaches: Status, *, is_fenced: bool) -> Executable:
    conditions = [jobs.c.id == bindparam("job_id"), has_status(*sorted(leaves))]
    if is_fenced:
        conditions.append(jobs.c.lease_token == bindparam("token"))
    changed: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in names}
    changed |= {"status": reaches.value, "revision": jobs.c.revision + 1}
    if reaches.is_final:
        changed["finished_at"] = now()
    return built_once(update(jobs).where(*conditions).values(changed).returning(*jobs.c))


async def change(
    connection: Connection, job_id: str, values: Mapping[str, Any], *, visible: bool = True
) -> None:
    """Change columns of a job that is locked by this transaction; its status stays."""
    await connection.execute(_change(tuple(values), visible=visible), {**values, "job_id": job_id})


@cache
def _change(names: Sequence[str], *, visible: bool) -> Executable:
    changed: dict[str, Any] = {name: bindparam(name, type_=jobs.c[name].type) for name in names}
    if visible:
        changed["revision"] = jobs.c.revision + 1
    return built_once(update(jobs).where(jobs.c.id == bindparam("job_id")).values(changed))


async def prolong(connection: Connection, job: Job) -> datetime:
    """Give a job whose pictures come after their own time as much time again, and return when it ends now."""
    life_s = (job.expires_at - job.created_at).total_seconds()
    statement = update(jobs).where(jobs.c.id == job.id).values(expires_at=from_now(life_s))
    expires_at: datetime = (await connection.execute(statement.returning(jobs.c.expires_at))).scalar_one()
    return expires_at


async def renew_leases(
    connection: Connection, held: Mapping[str, int], *, lease_s: float
) -> dict[str, Status]:
    """Renew the leases of jobs held with these tokens; those missing from the answer are lost."""
    statement = (
        update(jobs)
        .where(tuple_(jobs.c.id, jobs.c.lease_token).in_(list(held.items())), jobs.c.lease_until.is_not(None))
        .values(lease_until=from_now(lease_s))
        .returning(jobs.c.id, jobs.c.status)
    )
    return {row.id: Status(row.status) for row in await connection.execute(statement)}


async def statuses(connection: Connection, job_ids: Iterable[str]) -> dict[str, tuple[Status, int]]:
    """The status and revision of each of these jobs."""
    query = select(jobs.c.id, jobs.c.status, jobs.c.revision).where(jobs.c.id.in_(list(job_ids)))
    return {row.id: (Status(row.status), row.revision) for row in await connection.execute(query)}


async def list_jobs(
    connection: Connection,
    team_id: str | None,
    *,
    status: Status | None,
    model: str | None,
    metadata: Mapping[str, str],
    after: str | None,
    limit: int,
    upstream: str | None = None,
    api_key_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Sequence[Job]:
    """Read up to `limit` jobs, newest first, beginning after the job `after`; `upstream`: those that asked it.

    `since`, `until`: those created from then on, and before then.
    """
    listed, job_id, created_at = _listed(team_id, metadata)
    query = listed.order_by(created_at.desc(), job_id.desc()).limit(at_most(limit))
    if status is not None:
        query = query.where(_is_shown_as(status))
    if model is not None:
        query = query.where(jobs.c.model == model)
    if upstream is not None:
        query = query.where(_has_attempt(attempts.c.upstream == upstream))
    if api_key_id is not None:
        query = query.where(jobs.c.api_key_id == api_key_id)
        if team_id is None:
            # Jobs are found in their order by team, and a key is one team's.
            owner = select(api_keys.c.team_id).where(api_keys.c.id == api_key_id).scalar_subquery()
            query = query.where(jobs.c.team_id == owner)
    if since is not None:
        query = query.where(created_at >= since)
    if until is not None:
        query = query.where(created_at < until)
    if after is not None:
        known = [jobs.c.id == after, *([jobs.c.team_id == team_id] if team_id is not None else [])]
        anchor = select(jobs.c.created_at).where(*known).scalar_subquery()
        query = query.where(tuple_(created_at, job_id) < tuple_(anchor, literal(after)))
    return [job_from(row_values(row)) for row in await connection.execute(query)]


def _listed(
    team_id: str | None, metadata: Mapping[str, str]
) -> tuple[Select[Any], ColumnElement[str], ColumnElement[datetime]]:
    """The jobs with these pairs, and the columns of the index that holds them in order."""
    if not metadata:
        query = select(jobs, _IS_EXPIRED)
        if team_id is not None:
            query = query.where(jobs.c.team_id == team_id)
        return query, jobs.c.id, jobs.c.created_at
    first, *others = [job_metadata.alias() for _ in metadata]
    query = select(jobs, _IS_EXPIRED).join(first, first.c.job_id == jobs.c.id)
    for other in others:
        same = (other.c[name] == first.c[name] for name in ("team_id", "created_at", "job_id"))
        query = query.join(other, and_(*same))
    for table, (key, value) in zip((first, *others), metadata.items(), strict=True):
        query = query.where(table.c.pair == _pair(key, value))
        if team_id is not None:
            query = query.where(table.c.team_id == team_id)
    return query, first.c.job_id, first.c.created_at


def _is_shown_as(status: Status) -> ColumnElement[bool]:
    """The job has this status for clients, who see one whose pictures have had their time as expired."""
    if status not in {Status.SUCCEEDED, Status.EXPIRED}:
        return has_status(status)
    is_over = or_(jobs.c.purged_at.is_not(None), jobs.c.expires_at <= now())
    if status is Status.SUCCEEDED:
        return and_(has_status(status), ~is_over)
    return or_(has_status(status), and_(has_status(Status.SUCCEEDED), is_over))


def _pair(key: str, value: str) -> bytes:
    return hashlib.sha256(json.dumps([key, value]).encode()).digest()


async def attempts_of(connection: Connection, job_ids: Sequence[str]) -> list[Attempt]:
    """Read the attempts of these jobs, in order."""
    if len(job_ids) == 1:
        found = await connection.execute(_ATTEMPTS_OF_ONE, {"job_id": job_ids[0]})
        return [attempt_from(row_values(row)) for row in found]
    several = await connection.execute(_ATTEMPTS_OF, {"job_ids": of_few_lengths(job_ids)})
    return [attempt_from(row_values(row)) for row in several]


async def intents_at(connection: Connection, upstreams: Collection[str]) -> list[Attempt]:
    """Read the attempts at these upstreams of which nothing is known but that they may have been sent."""
    query = select(attempts).where(attempts.c.upstream.in_(sorted(upstreams)), has_state(AttemptState.INTENT))
    return [attempt_from(row_values(row)) for row in await connection.execute(query)]


async def insert_attempts(connection: Connection, intents: Sequence[Attempt]) -> None:
    """Write the intents to send paid calls."""
    if intents:
        rows = [{name: getattr(item, name) for name in _INTENT} for item in intents]
        await connection.execute(_INSERT_INTENT, rows)


async def begin_jobs(connection: Connection, jobs_begun: Sequence[Mapping[str, Any]]) -> None:
    """Lower what these jobs may still buy; `job_id`, `to_buy` and `started_at` of each."""
    if jobs_begun:
        await connection.execute(_change(("to_buy", "started_at"), visible=True), jobs_begun)


async def accept_attempt(
    connection: Connection, attempt_id: str, upstream: str, ticket: str, *, outcome_due_s: float
) -> bool:
    """Record the vendor's ticket; False when the ticket is another attempt's.

    An attempt that was written off meanwhile keeps its state; the ticket is kept for the books.
    """
    await serialise(connection, f"ticket:{upstream}:{ticket}")
    query = select(attempts.c.id).where(attempts.c.upstream == upstream, attempts.c.ticket == ticket)
    if (await connection.execute(query.where(attempts.c.id != attempt_id))).first() is not None:
        return False
    mine = update(attempts).where(attempts.c.id == attempt_id)
    await connection.execute(
        mine.where(has_state(AttemptState.INTENT)).values(
            state=AttemptState.ACCEPTED.value, ticket=ticket, outcome_due=from_now(outcome_due_s)
        )
    )
    await connection.execute(mine.where(has_state(AttemptState.UNKNOWN)).values(ticket=ticket))
    return True


async def succeed_attempt(
    connection: Connection,
    attempt_id: str,
    *,
    pictures: int,
    usage: Usage | None,
    resolved: Mapping[str, Json],
    cost_micros: int,
    certainty: Certainty,
    dearest_micros: int | None,
) -> Attempt | None:
    """Record that the pictures are in storage, and settle the attempt; None when it was not awaited any more."""
    values = {
        "attempt_id": attempt_id,
        "pictures": pictures,
        "usage": None if usage is None else _usage_to_json(usage),
        "resolved": dict(resolved),
        "cost_micros": cost_micros,
        "certainty": certainty.value,
        "dearest_micros": dearest_micros,
    }
    booked = (await connection.execute(_SUCCEED_ATTEMPT, values)).first()
    return None if booked is None else attempt_from(row_values(booked))


async def end_attempt(
    connection: Connection,
    attempt: Attempt,
    state: AttemptState,
    *,
    token: int | None,
    failure: FailureKind,
    detail: str,
    param: str | None,
) -> bool:
    """End an open attempt without pictures, and settle it; False when it had ended already.

    `token` restricts it to the attempt's own sender. An unknown outcome is booked as its whole hold.
    """
    unpaid = state is AttemptState.UNPAID
    priced = attempt.hold_micros is not None
    conditions = [attempts.c.id == attempt.id, is_open_attempt()]
    if token is not None:
        conditions.append(attempts.c.owner_token == token)
    statement = (
        update(attempts)
        .where(*conditions)
        .values(
            state=state.value,
            failure=failure.value,
            detail=detail,
            param=param,
            settled="released" if unpaid else "spent",
            cost_micros=0 if unpaid or not priced else attempt.hold_micros,
            certainty=_certainty_without_picture(unpaid=unpaid, priced=priced).value,
            finished_at=now(),
        )
        .returning(attempts.c.id)
    )
    return (await connection.execute(statement)).first() is not None


def _certainty_without_picture(*, unpaid: bool, priced: bool) -> Certainty:
    if unpaid:
        return Certainty.ACTUAL
    return Certainty.POSSIBLE if priced else Certainty.UNPRICED


async def traffic(connection: Connection, upstream: str) -> tuple[int, int, int]:
    """How busy an upstream is over all workers: calls in flight, calls and pictures of the last minute."""
    open_calls = await calls_in_flight(connection, upstream)
    calls, pictures = (await connection.execute(_RECENT_AT, {"upstream": upstream})).one()
    return open_calls, calls, int(pictures)


async def calls_in_flight(connection: Connection, upstream: str) -> int:
    """How many calls an upstream has in flight over all workers."""
    return int((await connection.execute(_OPEN_AT, {"upstream": upstream})).scalar_one())


async def serialise(connection: Connection, subject: str) -> None:
    """Let only one transaction at a time pass for `subject`; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(_SERIALISE, {"subject": subject})


async def try_serialise(connection: Connection, subject: str) -> bool:
    """Like `serialise`, but False at once when another transaction is there already."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(
        (
            await connection.execute(
                select(func.pg_try_advisory_xact_lock(func.hashtextextended(subject, 0)))
            )
        ).scalar_one()
    )


async def lapsed(connection: Connection, *, limit: int) -> list[Job]:
    """Lock up to `limit` jobs whose lease has run out."""
    query = (
        select(jobs).where(jobs.c.lease_until < now()).order_by(jobs.c.lease_until).limit(at_most(limit))
        .with_for_update(skip_locked=True)
    )  # fmt: skip
    return [job_from(row_values(row)) for row in await connection.execute(query)]


async def unsent(connection: Connection, team_id: str, api_key_id: str) -> list[str]:
    """The ids of a key's jobs that nobody was paid for, and no call is under way for, oldest first."""
    query = (
        select(jobs.c.id)
        .where(jobs.c.team_id == team_id, jobs.c.api_key_id == api_key_id)
        .where(has_status(Status.QUEUED, Status.IN_PROGRESS))
        .where(~_has_attempt(attempts.c.state != literal_column(f"'{AttemptState.UNPAID}'")))
        .order_by(jobs.c.created_at, jobs.c.id)
    )
    return list((await connection.execute(query)).scalars())


async def unfinished(connection: Connection) -> dict[Status, int]:
    """How many jobs of everybody wait, and how many are in progress."""
    query = (
        select(jobs.c.status, func.count())
        .where(has_status(Status.QUEUED, Status.IN_PROGRESS))
        .group_by(jobs.c.status)
    )
    found = {Status(status): count for status, count in await connection.execute(query)}
    return {status: found.get(status, 0) for status in (Status.QUEUED, Status.IN_PROGRESS)}


async def queue(connection: Connection) -> tuple[int, int, float]:
    """How many jobs of everybody wait, how many are in progress, and how many seconds ago the oldest of those that wait
    was submitted, 0 when none does.
    """
    waiting = select(func.count(), func.min(jobs.c.created_at), now()).where(has_status(Status.QUEUED))
    queued, oldest_at, at = (await connection.execute(waiting)).one()
    running = select(func.count()).select_from(jobs).where(has_status(Status.IN_PROGRESS))
    in_progress = (await connection.execute(running)).scalar_one()
    return queued, in_progress, 0.0 if oldest_at is None else max((at - oldest_at).total_seconds(), 0.0)


async def open_attempts(connection: Connection) -> dict[str, int]:
    """How many attempts of all workers have an outcome that is awaited, by upstream; none for one without any."""
    query = (
        select(attempts.c.upstream, func.count().label("attempts"))
        .where(is_open_attempt())
        .group_by(attempts.c.upstream)
    )
    return {row.upstream: row.attempts for row in await connection.execute(query)}


async def late(connection: Connection, *, limit: int) -> list[Job]:
    """Lock up to `limit` jobs that wait past their deadline, oldest deadline first."""
    query = (
        select(jobs).where(has_status(Status.QUEUED), jobs.c.deadline_at < now()).order_by(jobs.c.deadline_at)
    )
    return await _locked_free(connection, query, limit)


async def beyond_limit(connection: Connection, *, after_s: float, limit: int) -> list[Job]:
    """Lock up to `limit` open jobs past the time limit of their client, held ones only `after_s` seconds later."""
    query = (
        select(jobs)
        .where(has_status(Status.QUEUED, Status.IN_PROGRESS), jobs.c.cancel_at < now())
        .where(or_(has_status(Status.QUEUED), jobs.c.cancel_at < from_now(-after_s)))
        .order_by(jobs.c.cancel_at)
    )
    return await _locked_free(connection, query, limit)


async def undecided(connection: Connection, *, after_s: float, limit: int) -> list[Job]:
    """Lock up to `limit` jobs that are held, and are `after_s` seconds past their deadline all the same."""
    # Few jobs are in progress at any time, so no index on their deadline is worth its upkeep.
    query = select(jobs).where(has_status(Status.IN_PROGRESS), jobs.c.deadline_at < from_now(-after_s))
    return await _locked_free(connection, query, limit)


async def spent(connection: Connection, *, claims_max: int, limit: int) -> list[Job]:
    """Lock up to `limit` jobs that nobody holds and whose claims are used up: waiting ones, and followed ones.

    Not before the outcome of every call is due: a sender that is cut off from us may still be alive.
    """
    is_spent = and_(
        jobs.c.lease_until.is_(None),
        jobs.c.claims >= claims_max,
        ~_has_attempt(has_state(AttemptState.INTENT), attempts.c.outcome_due > now()),
    )
    # `claims > 0` is what the index says; the bound number alone would not prove it.
    waiting = select(jobs).where(has_status(Status.QUEUED), jobs.c.claims > literal_column("0"), is_spent)
    found = await _locked_free(connection, waiting, limit)
    followed = select(jobs).where(
        has_open_attempt(is_sqlite=connection.dialect.name == "sqlite"), has_status(*sorted(FINAL)), is_spent
    )
    return found + await _locked_free(connection, followed, limit - len(found))


def _has_attempt(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(attempts.c.job_id == jobs.c.id, *conditions)


async def _locked_free(connection: Connection, query: Select[Any], limit: int) -> list[Job]:
    query = query.limit(at_most(limit)).with_for_update(of=jobs, skip_locked=True)
    return [job_from(row_values(row)) for row in await connection.execute(query)]


async def purge_jobs(connection: Connection, *, limit: int) -> int:
    """Mark up to `limit` final jobs whose pictures have outlived their time; how many."""
    due = (
        select(jobs.c.id)
        .where(jobs.c.expires_at <= now(), jobs.c.purged_at.is_(None), jobs.c.finished_at.is_not(None))
        .limit(at_most(limit))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    marked = await connection.execute(
        update(jobs).where(jobs.c.id.in_(select(due.c.id))).values(purged_at=now()).returning(jobs.c.id)
    )
    return len(marked.all())


async def purge_idempotency_keys(connection: Connection, *, limit: int) -> int:
    """Delete up to `limit` idempotency keys past their life; how many."""
    table = idempotency_keys
    due = (
        select(table.c.team_id, table.c.key)
        .where(table.c.expires_at <= now())
        .limit(at_most(limit))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    mine = tuple_(table.c.team_id, table.c.key).in_(select(due.c.team_id, due.c.key))
    gone = await connection.execute(delete(table).where(mine).returning(table.c.key))
    return len(gone.all())


async def void_leases(connection: Connection) -> None:
    """Take back every lease, for the one process of the embedded default as it starts."""
    held = jobs.c.lease_until.is_not(None)
    free = {"lease_until": None, "lease_owner": None, "lease_token": jobs.c.lease_token + 1}
    in_progress = has_status(Status.IN_PROGRESS)
    await connection.execute(update(jobs).where(held, in_progress).values(**free, status=Status.QUEUED.value))
    await connection.execute(update(jobs).where(held).values(**free))
    await connection.execute(update(attempts).where(has_state(AttemptState.INTENT)).values(outcome_due=now()))
    await connection.execute(
        update(jobs).where(has_status(Status.QUEUED), jobs.c.available_at > now()).values(available_at=now())
    )


def _usage_to_json(usage: Usage) -> dict[str, Json]:
    return {name: getattr(usage, name) for name in Usage.__slots__}


def _upsert(connection: Connection, table: Any) -> Any:
    return upsert_on_sqlite(table) if connection.dialect.name == "sqlite" else upsert_on_postgres(table)
