"""Every query on budgets and ledger entries. Each function takes the caller's connection and commits nothing.

Lock order everywhere: job, then attempts, then budgets in the order of their ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import row_values
from app.db.tables.attempts import attempts
from app.db.tables.budgets import budgets
from app.db.tables.jobs import jobs
from app.db.tables.ledger_entries import ledger_entries
from app.ledger.budgets import Budget, Ceiling, Scope, budget_from


class BudgetFull(Exception):
    """A budget that was looked at under its lock has no room after all, or is gone: a bug, and nothing is booked."""


async def lock_budgets(connection: AsyncConnection, ids: Iterable[str]) -> list[Budget]:
    """Read these budgets in the order of their ids, and keep others from changing them until the transaction ends."""
    query = select(budgets).where(budgets.c.id.in_(sorted(set(ids)))).order_by(budgets.c.id).with_for_update()
    return [budget_from(row_values(row)) for row in await connection.execute(query)]


async def insert_budget(connection: AsyncConnection, ceiling: Ceiling, opening_micros: int) -> None:
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


async def set_limit(connection: AsyncConnection, budget_id: str, limit_micros: int) -> None:
    """Let another limit hold for a budget that is locked by this transaction."""
    await connection.execute(
        update(budgets).where(budgets.c.id == budget_id).values(limit_micros=limit_micros)
    )


async def reserve(connection: AsyncConnection, ids: Sequence[str], micros: int) -> None:
    """Hold so much more on each of these budgets, which are locked by this transaction and known to have room.

    Raises:
        BudgetFull: one has none; the transaction has to fail.
    """
    has_room = budgets.c.spent_micros + budgets.c.reserved_micros + micros <= budgets.c.limit_micros
    reserved = await connection.execute(
        update(budgets)
        .where(budgets.c.id.in_(ids), has_room)
        .values(reserved_micros=budgets.c.reserved_micros + micros)
    )
    if reserved.rowcount != len(ids):
        raise BudgetFull(f"{micros} could not be held on all of {', '.join(ids)}")


async def post(
    connection: AsyncConnection, ids: Sequence[str], *, reserved_micros: int, spent_micros: int
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


async def committed(connection: AsyncConnection, ceiling: Ceiling) -> int:
    """What the owner's jobs of this period have cost and still hold, in micro-dollars."""
    mine = [
        jobs.c.team_id == ceiling.team_id,
        jobs.c.created_at >= ceiling.starts_at,
        jobs.c.created_at < ceiling.ends_at,
    ]
    if ceiling.scope is Scope.KEY:
        mine.append(jobs.c.api_key_id == ceiling.owner_id)
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


async def insert_entry(connection: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Write a correction down."""
    await connection.execute(insert(ledger_entries).values(**values))
