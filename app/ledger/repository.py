"""Every query on budgets, on spend and on corrections. Each function takes the caller's connection and commits nothing.

Lock order everywhere: job, then attempts, then budgets in the order of their ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, case, cast, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite

from app.db.connection import Connection
from app.db.engine import row_values
from app.db.tables.api_keys import api_keys
from app.db.tables.attempts import attempts
from app.db.tables.budgets import budgets
from app.db.tables.jobs import jobs
from app.db.tables.ledger_entries import ledger_entries
from app.db.tables.teams import teams
from app.domain.money import Certainty
from app.ledger.budgets import Budget, Ceiling, Scope, budget_from
from app.ledger.exports import Booked
from app.ledger.spend import By, Group, Span, Spend


class BudgetFull(Exception):
    """A budget that was looked at under its lock has no room after all, or is gone: a bug, and nothing is booked."""


async def lock_budgets(connection: Connection, ids: Iterable[str]) -> list[Budget]:
    """Read these budgets in the order of their ids, and keep others from changing them until the transaction ends."""
    query = select(budgets).where(budgets.c.id.in_(sorted(set(ids)))).order_by(budgets.c.id).with_for_update()
    return [budget_from(row_values(row)) for row in await connection.execute(query)]


async def insert_budget(connection: Connection, ceiling: Ceiling, opening_micros: int) -> None:
    """Write a budget unless it is there."""
    dialect_insert = upsert_on_sqlite if connection.dialect.name == "sqlite" else upsert_on_postgres
    row = {
        "id": ceiling.id,
        "scope": ceiling.scope.value,
        "owner_id": ceiling.owner_id,
        "period": ceiling.period,
        "limit_micros": ceiling.limit_micros,
        "opening_micros": opening_micros,
        "reserved_micros": 0,
        "spent_micros": opening_micros,
    }
    await connection.execute(dialect_insert(budgets).values(row).on_conflict_do_nothing())


async def set_limit(connection: Connection, budget_id: str, limit_micros: int) -> None:
    """Let another limit hold for a budget that is locked by this transaction."""
    await connection.execute(
        update(budgets).where(budgets.c.id == budget_id).values(limit_micros=limit_micros)
    )


async def reserve(connection: Connection, ids: Sequence[str], micros: int) -> None:
    """Hold so much more on each of these budgets, which are locked by this transaction and known to have room.

    Raises:
        BudgetFull: one has none; the transaction has to fail.
    """
    has_room = budgets.c.spent_micros + budgets.c.reserved_micros + micros <= budgets.c.limit_micros
    reserved = await connection.execute(
        update(budgets)
        .where(budgets.c.id.in_(ids), has_room)
        .values(reserved_micros=budgets.c.reserved_micros + micros)
        .returning(budgets.c.id)
    )
    if len(reserved.all()) != len(ids):
        raise BudgetFull(f"{micros} could not be held on all of {', '.join(ids)}")


async def post(
    connection: Connection, ids: Sequence[str], *, reserved_micros: int, spent_micros: int
) -> None:
    """Add to what is reserved and to what is spent, on budgets that are locked by this transaction."""
    await connection.execute(
        update(budgets)
        .where(budgets.c.id.in_(ids))
        .values(
            reserved_micros=budgets.c.reserved_micros + reserved_micros,
            spent_micros=budgets.c.spent_micros + spent_micros,
        )
    )


async def committed(connection: Connection, ceiling: Ceiling) -> int:
    """What the owner's jobs of this period have cost and still hold, in micro-dollars."""
    mine = [
        jobs.c.team_id == ceiling.team_id,
        jobs.c.created_at >= ceiling.starts_at,
        jobs.c.created_at < ceiling.ends_at,
    ]
    if ceiling.scope is Scope.KEY:
        successors = select(api_keys.c.id).where(
            api_keys.c.team_id == ceiling.team_id, api_keys.c.line_id == ceiling.owner_id
        )
        mine.append(or_(jobs.c.api_key_id == ceiling.owner_id, jobs.c.api_key_id.in_(successors)))
    booked = (
        select(func.coalesce(func.sum(func.coalesce(attempts.c.cost_micros, attempts.c.hold_micros, 0)), 0))
        .select_from(attempts)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(*mine)
    )
    unbought = select(
        func.coalesce(func.sum(jobs.c.to_buy * func.coalesce(jobs.c.picture_hold_micros, 0)), 0)
    ).where(*mine, jobs.c.to_buy > 0)
    total = (await connection.execute(booked)).scalar_one() + (
        await connection.execute(unbought)
    ).scalar_one()
    return int(total)


async def insert_entry(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write a correction down."""
    await connection.execute(insert(ledger_entries).values(**values))


async def spend(connection: Connection, by: Sequence[By], span: Span, *, limit: int) -> list[Group]:
    """Add up the attempts opened in a span, in groups ordered by their keys; at most `limit` groups."""
    is_known = attempts.c.certainty.in_([Certainty.ACTUAL.value, Certainty.ESTIMATED.value])
    is_open = attempts.c.finished_at.is_(None)
    is_made = attempts.c.state == "succeeded"
    is_unpriced = or_(
        attempts.c.certainty == Certainty.UNPRICED.value, and_(is_open, attempts.c.hold_micros.is_(None))
    )
    measures = {
        "pictures": case((is_made, attempts.c.pictures)),
        "certain_micros": case((is_known, attempts.c.cost_micros)),
        "estimated_micros": case((attempts.c.certainty == Certainty.ESTIMATED.value, attempts.c.cost_micros)),
        "possible_micros": case((attempts.c.certainty == Certainty.POSSIBLE.value, attempts.c.cost_micros)),
        "pending_micros": case((is_open, attempts.c.hold_micros)),
        "unpriced_attempts": case((is_unpriced, 1)),
        "saved_micros": case((and_(is_made, is_known), attempts.c.dearest_micros - attempts.c.cost_micros)),
    }
    dimensions = _dimensions(connection)
    # Grouped outside: a bound value inside an expression is another one each time that it is written.
    each = (
        select(
            *(dimensions[item].label(item.value) for item in by),
            teams.c.name.label("team_name"),
            api_keys.c.name.label("key_name"),
            *(measure.label(name) for name, measure in measures.items()),
        )
        .select_from(attempts)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .outerjoin(teams, teams.c.id == jobs.c.team_id)
        .outerjoin(api_keys, api_keys.c.id == jobs.c.api_key_id)
        .where(attempts.c.opened_at >= span.begins_at, attempts.c.opened_at < span.ends_at)
        .subquery()
    )
    keys = [each.c[item.value] for item in by]
    query = (
        select(
            *keys,
            func.max(each.c.team_name).label("team_name"),
            func.max(each.c.key_name).label("key_name"),
            func.count().label("attempts"),
            *(func.coalesce(func.sum(each.c[name]), 0).label(name) for name in measures),
        )
        .group_by(*keys)
        .order_by(*keys)
        .limit(limit)
    )
    return [_group_from(row_values(row), by) for row in await connection.execute(query)]


def _dimensions(connection: Connection) -> dict[By, ColumnElement[Any]]:
    is_sqlite = connection.dialect.name == "sqlite"
    return {
        By.TEAM: jobs.c.team_id,
        By.KEY: jobs.c.api_key_id,
        By.MODEL: jobs.c.model,
        By.UPSTREAM: attempts.c.upstream,
        By.QUALITY: func.coalesce(
            attempts.c.resolved["quality"].as_string(), jobs.c.request["quality"].as_string(), "auto"
        ),
        By.DAY: (
            func.substr(cast(attempts.c.opened_at, Text), 1, 10)
            if is_sqlite
            else func.to_char(func.timezone("UTC", attempts.c.opened_at), "YYYY-MM-DD")
        ),
    }


def _group_from(row: Mapping[str, Any], by: Sequence[By]) -> Group:
    # Sums come as decimals from Postgres.
    measures = {name: int(row[name]) for name in Spend.__slots__}
    return Group(
        keys={item: row[item.value] for item in by},
        team_name=row["team_name"] if By.TEAM in by else None,
        key_name=row["key_name"] if By.KEY in by else None,
        spend=Spend(**measures),
    )


async def booked_by_id(connection: Connection, ids: Sequence[str]) -> list[Booked]:
    """What is booked on these attempts."""
    query = _booked().where(attempts.c.id.in_(ids))
    return [Booked(**row_values(row)) for row in await connection.execute(query)]


async def booked_by_ticket(connection: Connection, upstream: str, tickets: Sequence[str]) -> list[Booked]:
    """What is booked on the attempts that have these tickets of an upstream."""
    query = _booked().where(attempts.c.upstream == upstream, attempts.c.ticket.in_(tickets))
    return [Booked(**row_values(row)) for row in await connection.execute(query)]


async def possible(connection: Connection, upstream: str, span: Span, *, limit: int) -> list[Booked]:
    """The attempts at an upstream, opened in a span, that may have been paid for; at most `limit`."""
    query = _booked().where(
        attempts.c.upstream == upstream,
        attempts.c.certainty == Certainty.POSSIBLE.value,
        attempts.c.opened_at >= span.begins_at,
        attempts.c.opened_at < span.ends_at,
    )
    return [Booked(**row_values(row)) for row in await connection.execute(query.limit(limit))]


def _booked() -> Select[Any]:
    columns = attempts.c
    return select(
        columns.id,
        columns.job_id,
        columns.ticket,
        columns.settled,
        func.coalesce(columns.cost_micros, 0).label("cost_micros"),
        columns.certainty,
    )


async def lock_job(connection: Connection, job_id: str) -> Sequence[str]:
    """Keep everybody else from moving a job until the transaction ends; the budgets that it counts towards."""
    query = select(jobs.c.budgets).where(jobs.c.id == job_id).with_for_update()
    found: Sequence[str] | None = (await connection.execute(query)).scalar_one_or_none()
    return found or ()


async def make_actual(connection: Connection, booked: Booked, cost_micros: int) -> bool:
    """Book what the vendor charged, in the place of `booked`; False when that is not what is booked any more."""
    statement = (
        update(attempts)
        .where(
            attempts.c.id == booked.id,
            attempts.c.settled == "spent",
            attempts.c.certainty == booked.certainty,
            attempts.c.cost_micros == booked.cost_micros,
        )
        .values(cost_micros=cost_micros, certainty=Certainty.ACTUAL.value)
        .returning(attempts.c.id)
    )
    return (await connection.execute(statement)).first() is not None
