"""Every query on upstream states, shared by all workers. Each function takes the caller's connection."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, case, exists, func, literal, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite

from app.db.connection import Connection, built_once
from app.db.engine import row_values
from app.db.tables.attempts import attempts
from app.db.tables.upstream_states import upstream_states as states
from app.db.types import from_now, now
from app.jobs.conditions import is_open_attempt
from app.routing.health import (
    DISPROVED_BY_SUCCESS,
    EJECT_S,
    PROBE_S,
    TRIP_AFTER,
    WHOLE,
    Setback,
    UpstreamState,
)

# Built once: every job asks these.
_ONE: Final = select(literal(1).label("one")).subquery()
_STATES_OF: Final = built_once(
    # A row at least, for the time.
    select(states, now().label("at")).select_from(
        _ONE.outerjoin(states, states.c.upstream.in_(bindparam("upstreams", expanding=True)))
    )
)
_STATE_OF: Final = select(states).where(states.c.upstream == bindparam("upstream"), states.c.model == WHOLE)


_IS_DISPROVED: Final = or_(
    states.c.away_for.in_([literal_column(f"'{kind}'") for kind in sorted(DISPROVED_BY_SUCCESS)]),
    states.c.away_until <= now(),
)
_SUCCESS: Final = built_once(
    update(states)
    .where(
        states.c.upstream == bindparam("upstream_is"),
        states.c.model.in_(bindparam("models", expanding=True)),
        or_(states.c.failures > 0, _IS_DISPROVED),
    )
    .values(
        failures=0,
        ejections=0,
        away_until=case((_IS_DISPROVED, None), else_=states.c.away_until),
        away_for=case((_IS_DISPROVED, None), else_=states.c.away_for),
        updated_at=now(),
    )
    .returning(states.c.upstream)
)


async def states_of(
    connection: Connection, upstreams: Collection[str]
) -> tuple[list[UpstreamState], datetime]:
    """What is known of these upstreams, and the database's time."""
    rows = (await connection.execute(_STATES_OF, {"upstreams": sorted(upstreams)})).all()
    return [_state(row) for row in rows if row.upstream is not None], rows[0].at


async def state_of(connection: Connection, upstream: str) -> UpstreamState | None:
    """What is known of an upstream as a whole, locked until the transaction ends."""
    row = (await connection.execute(_STATE_OF.with_for_update(), {"upstream": upstream})).first()
    return None if row is None else _state(row)


async def record_setback(connection: Connection, upstream: str, change: Setback, *, kind: str) -> None:
    """Write what a failure changed; a longer absence that is known already stays."""
    values = {"failures": change.failures, "ejections": change.ejections, "updated_at": now()}
    changed = dict(values)
    if change.away_s is not None:
        until = from_now(change.away_s)
        values |= {"away_until": until, "away_for": kind}
        is_longer = states.c.away_until > until
        changed = values | {
            "away_until": case((is_longer, states.c.away_until), else_=until),
            "away_for": case((is_longer, states.c.away_for), else_=kind),
        }
    upsert = upsert_on_sqlite if connection.dialect.name == "sqlite" else upsert_on_postgres
    row = {"upstream": upstream, "model": change.model, "switch": "on", **values}
    statement = (
        upsert(states).values(row).on_conflict_do_update(index_elements=["upstream", "model"], set_=changed)
    )
    await connection.execute(statement)


async def record_success(connection: Connection, upstream: str, model: str) -> bool:
    """Close the breaker and forget what was held against a pair that has just delivered; whether anything was.
    What the vendor asked for, or its word on our account, stays: a call that was sent before does not disprove it.
    """
    return (
        await connection.execute(_SUCCESS, {"upstream_is": upstream, "models": [WHOLE, model]})
    ).first() is not None


async def take_probe(connection: Connection, upstream: str) -> bool:
    """Take the one call that may probe a tripped upstream now; False when somebody else has it.

    As a last resort an upstream is probed every `EJECT_S`, however long it is ejected; whether it is one, the plan
    has said by naming it.
    """
    is_over = or_(states.c.away_until <= now(), states.c.updated_at <= from_now(-EJECT_S))
    statement = (
        update(states)
        .where(
            states.c.upstream == upstream, states.c.model == WHOLE, states.c.failures >= TRIP_AFTER, is_over
        )
        .values(away_until=from_now(PROBE_S), updated_at=now())
        .returning(states.c.upstream)
    )
    return (await connection.execute(statement)).first() is not None


async def repeats(connection: Connection, upstream: str) -> tuple[int, int]:
    """How many calls are in flight at an upstream, and how many of them ask it again for a job that it failed."""
    earlier = attempts.alias()
    is_repeat = exists().where(
        earlier.c.job_id == attempts.c.job_id,
        earlier.c.upstream == attempts.c.upstream,
        earlier.c.round < attempts.c.round,
    )
    query = select(func.count(), func.count(case((is_repeat, 1)))).where(
        attempts.c.upstream == upstream, is_open_attempt()
    )
    active, repeated = (await connection.execute(query)).one()
    return active, repeated


async def rows_of(connection: Connection, upstream: str) -> list[UpstreamState]:
    """What is known of an upstream and of its models, locked until the transaction ends."""
    query = select(states).where(states.c.upstream == upstream).order_by(states.c.model).with_for_update()
    return [_state(row) for row in await connection.execute(query)]


async def turn(connection: Connection, upstream: str, model: str, switch: str) -> None:
    """Write an operator's word: `on`, `off` or `draining`."""
    upsert = upsert_on_sqlite if connection.dialect.name == "sqlite" else upsert_on_postgres
    values = {"switch": switch, "updated_at": now()}
    row = {"upstream": upstream, "model": model, **values}
    statement = (
        upsert(states).values(row).on_conflict_do_update(index_elements=["upstream", "model"], set_=values)
    )
    await connection.execute(statement)


async def forget(connection: Connection, upstream: str, models: Collection[str] | None) -> None:
    """Forget what is held against an upstream: of these models, or all of it (None). The switch stays."""
    statement = update(states).where(states.c.upstream == upstream)
    if models is not None:
        statement = statement.where(states.c.model.in_(sorted(models)))
    await connection.execute(
        statement.values(failures=0, ejections=0, away_until=None, away_for=None, updated_at=now())
    )


def _state(row: object) -> UpstreamState:
    values = row_values(row)
    return UpstreamState(**{name: values[name] for name in UpstreamState.__slots__})
