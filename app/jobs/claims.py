"""The claim: which jobs a worker takes next. Fairly between teams, then by priority, then by age.

A team's turn is the number of its jobs in progress plus the place in its own queue, so a team with 10,000 waiting
jobs and one with a single job both have a first turn. Final jobs whose calls are still open are taken as well, to be
followed to their end.
"""

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Float,
    Integer,
    Select,
    Subquery,
    Text,
    Update,
    and_,
    bindparam,
    func,
    select,
    true,
    update,
)

from app.db.connection import Connection, built_once
from app.db.engine import row_values
from app.db.tables.jobs import jobs
from app.db.types import from_now, now
from app.jobs.conditions import has_open_attempt, has_status, seen_limit
from app.jobs.lifecycle import FINAL, Status, start
from app.jobs.records import Job, job_from

_MOST: Final = seen_limit("most")
_DEPTH: Final = seen_limit("depth")
_CLAIMS_MOST: Final = bindparam("claims_most", type_=Integer())


async def claim(
    connection: Connection,
    owner: str,
    *,
    limit: int,
    lease_s: float,
    claims_max: int,
    with_final: bool = True,
) -> list[Job]:
    """Take up to `limit` runnable jobs and hold each for `lease_s` seconds. Each `limit` is a statement of its own.

    Two workers never receive the same job: each row is locked and marked in one statement.
    """
    follow, begin = _statements(is_sqlite=connection.dialect.name == "sqlite")
    values = {"worker": owner, "lease_s": lease_s, "claims_most": claims_max}
    taken: list[Job] = []
    if with_final:
        found = await connection.execute(follow, values | {"most": limit})
        taken = [job_from(row_values(row)) for row in found]
    if (left := limit - len(taken)) > 0:
        wanted = values | {"most": left, "depth": left * 4}
        taken += [job_from(row_values(row)) for row in await connection.execute(begin, wanted)]
    return taken


@cache
def _statements(*, is_sqlite: bool) -> tuple[Update, Update]:
    """What takes final jobs to be followed, and what takes queued ones; built once, for that costs milliseconds."""
    held = {
        "lease_token": jobs.c.lease_token + 1,
        "lease_owner": bindparam("worker", type_=Text()),
        "lease_until": from_now(bindparam("lease_s", type_=Float())),
        "claims": jobs.c.claims + 1,
    }
    # Picked in a WITH of its own: as a plain subquery it may be run once per row, and pass its limit each time.
    unfollowed = _unfollowed(is_sqlite=is_sqlite).cte("picked")
    follow = update(jobs).where(jobs.c.id.in_(select(unfollowed.c.id))).values(**held).returning(*jobs.c)
    queued = _next_in_queue(is_sqlite=is_sqlite).cte("picked")
    begin = (
        update(jobs)
        .where(jobs.c.id.in_(select(queued.c.id)))
        .values(
            **held,
            status=start().reaches.value,
            revision=jobs.c.revision + 1,
        )
        .returning(*jobs.c)
    )
    return built_once(follow), built_once(begin)


def _unfollowed(*, is_sqlite: bool) -> Select[Any]:
    return (
        select(jobs.c.id)
        .where(
            has_open_attempt(is_sqlite=is_sqlite),
            has_status(*sorted(FINAL)),
            jobs.c.lease_until.is_(None),
            jobs.c.available_at <= now(),
            jobs.c.claims < _CLAIMS_MOST,
        )
        .order_by(jobs.c.created_at)
        .limit(_MOST)
        .with_for_update(of=jobs, skip_locked=True)
    )


def _next_in_queue(*, is_sqlite: bool) -> Select[Any]:
    runnable = and_(has_status(Status.QUEUED), jobs.c.available_at <= now(), jobs.c.claims < _CLAIMS_MOST)
    if is_sqlite:
        return select(_by_turn(_ranked(runnable), _MOST).subquery().c.id)
    # Looked at without locks, a few times as many as wanted, then locked in order: another worker that looks at the
    # same moment skips those that we lock, and still finds some.
    looked_at = _by_turn(_heads(runnable), _DEPTH).subquery()
    return (
        select(jobs.c.id)
        .join(looked_at, looked_at.c.id == jobs.c.id)
        .where(runnable)
        .order_by(looked_at.c.turn, looked_at.c.priority, looked_at.c.created_at)
        .limit(_MOST)
        .with_for_update(of=jobs, skip_locked=True)
    )


def _ranked(runnable: ColumnElement[bool]) -> Subquery:
    """Every waiting job with its place in its team's queue."""
    place = func.row_number().over(
        partition_by=jobs.c.team_id, order_by=(jobs.c.priority, jobs.c.created_at, jobs.c.id)
    )
    return (
        select(jobs.c.id, jobs.c.team_id, jobs.c.priority, jobs.c.created_at, place.label("place"))
        .where(runnable)
        .subquery()
    )


def _heads(runnable: ColumnElement[bool]) -> Subquery:
    """The first waiting jobs of each team, `depth` of them, by index only, however long its queue is."""
    queued = has_status(Status.QUEUED)
    first = select(jobs.c.team_id).where(queued).order_by(jobs.c.team_id).limit(1).subquery()
    teams = select(first.c.team_id).cte("teams", recursive=True)
    following = (
        select(jobs.c.team_id)
        .where(queued, jobs.c.team_id > teams.c.team_id)
        .order_by(jobs.c.team_id)
        .limit(1)
        .scalar_subquery()
    )
    teams = teams.union_all(select(following).where(teams.c.team_id.is_not(None)))
    head = (
        select(jobs.c.id, jobs.c.team_id, jobs.c.priority, jobs.c.created_at)
        .where(jobs.c.team_id == teams.c.team_id, runnable)
        .order_by(jobs.c.priority, jobs.c.created_at, jobs.c.id)
        .limit(_DEPTH)
        .lateral()
    )
    place = func.row_number().over(
        partition_by=head.c.team_id, order_by=(head.c.priority, head.c.created_at, head.c.id)
    )
    return (
        select(head.c.id, head.c.team_id, head.c.priority, head.c.created_at, place.label("place"))
        .select_from(teams.join(head, true()))
        .subquery()
    )


def _by_turn(waiting: Subquery, limit: BindParameter[int]) -> Select[Any]:
    busy = (
        select(jobs.c.team_id, func.count().label("jobs"))
        .where(has_status(Status.IN_PROGRESS))
        .group_by(jobs.c.team_id)
        .subquery()
    )
    turn = waiting.c.place + func.coalesce(busy.c.jobs, 0)
    return (
        select(waiting.c.id, turn.label("turn"), waiting.c.priority, waiting.c.created_at)
        .select_from(waiting.outerjoin(busy, busy.c.team_id == waiting.c.team_id))
        .order_by(turn, waiting.c.priority, waiting.c.created_at, waiting.c.id)
        .limit(limit)
    )
