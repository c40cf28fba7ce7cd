"""Moves money between what is held and what is spent, in the transactions that change jobs and attempts.

Budgets are locked in the order of their ids and always after the job, so that no two transactions wait for each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from app.db.connection import Connection
from app.domain.money import Certainty
from app.kit.ids import new_id
from app.kit.telemetry import get_logger
from app.ledger import repository
from app.ledger.budgets import Ceiling, refusal, without_room

LOG = get_logger(__name__)


class Reason(StrEnum):
    """Why a booked cost was corrected."""

    DELIVERED = "delivered"
    """The pictures of an attempt with an unknown outcome came after all."""
    RECONCILED = "reconciled"
    """A vendor's usage export said what it charged."""


async def open_budgets(connection: Connection, in_force: Sequence[Ceiling]) -> None:
    """Make the rows of these budgets that are not there yet; a limit set in mid-period counts what the period has cost.

    What jobs of this moment still hold counts as spent, for they will not be booked here.
    """
    by_id = {ceiling.id: ceiling for ceiling in in_force}
    known = {row.id for row in await repository.lock_budgets(connection, by_id)}
    for budget_id in sorted(by_id.keys() - known):
        opening = await repository.committed(connection, by_id[budget_id])
        await repository.insert_budget(connection, by_id[budget_id], opening)


async def take_out(connection: Connection, in_force: Sequence[Ceiling], micros: int) -> None:
    """Reserve `micros` for a new job on every budget that applies to it, or on none. Their rows are there.

    Raises:
        InsufficientQuota: one of them has no room; the caller lets the transaction fail.
    """
    if not in_force:
        return
    by_id = {ceiling.id: ceiling for ceiling in in_force}
    rows = []
    for row in await repository.lock_budgets(connection, by_id):
        limit_micros = by_id[row.id].limit_micros
        if row.limit_micros != limit_micros:
            await repository.set_limit(connection, row.id, limit_micros)
        rows.append(replace(row, limit_micros=limit_micros))
    full = without_room(rows, micros)
    if full is not None:
        LOG.info("budget.refused", budget=full.id, micros=micros, left_micros=full.left_micros)
        raise refusal(by_id[full.id], full, micros)
    await repository.reserve(connection, sorted(by_id), micros)


async def take_out_more(connection: Connection, budgets: Sequence[str], micros: int) -> bool:
    """Reserve more for a job that goes on, on all its budgets or on none; False when one has no room."""
    if not budgets or not micros:
        return True
    rows = await repository.lock_budgets(connection, budgets)
    full = without_room(rows, micros)
    if full is not None:
        LOG.warning("budget.refused", budget=full.id, micros=micros, left_micros=full.left_micros)
        return False
    await repository.reserve(connection, sorted(budgets), micros)
    return True


async def post(
    connection: Connection, budgets: Sequence[str], *, reserved_micros: int, spent_micros: int = 0
) -> None:
    """Change what a job holds and has cost on all its budgets. No room is asked for: money that is gone is gone."""
    if budgets and (reserved_micros or spent_micros):
        if len(budgets) > 1:
            await lock(connection, budgets)
        await repository.post(
            connection, sorted(budgets), reserved_micros=reserved_micros, spent_micros=spent_micros
        )


async def lock(connection: Connection, budgets: Iterable[str]) -> None:
    """Lock the budgets of several jobs at once, before the first of them is posted to."""
    ids = set(budgets)
    if ids and connection.dialect.name != "sqlite":
        await repository.lock_budgets(connection, ids)


async def correct(
    connection: Connection,
    attempt_id: str,
    *,
    reason: Reason,
    before_micros: int,
    after_micros: int,
    was: Certainty,
) -> None:
    """Write down that a booked cost is another one from now on."""
    values = {
        "id": new_id("entry"),
        "attempt_id": attempt_id,
        "reason": reason.value,
        "amount_micros": after_micros - before_micros,
        "cost_micros": after_micros,
        "was": was.value,
    }
    await repository.insert_entry(connection, values)
