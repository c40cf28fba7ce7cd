"""What operators can do with the books: read reports, and import what vendors really charged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.db.connection import Connection
from app.db.engine import Database
from app.db.witness import Witness, unwitnessed
from app.domain.errors import MissingParameter
from app.domain.money import Certainty
from app.ledger import books, repository
from app.ledger.errors import ReportTooLong
from app.ledger.exports import MAX_LINES, Booked, Charge, Finding, judge, matched
from app.ledger.spend import MAX_GROUPS, By, Group, Span

BATCH: Final = 50
"""Corrections booked together: their jobs are locked for a fraction of a second, and told in one audit entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What one line of an export, or an attempt that a complete export leaves out, meant for the books."""

    name: str
    """What the line calls its attempt."""
    attempt_id: str | None
    finding: Finding
    before_micros: int | None
    was: Certainty | None
    after_micros: int


class Ledger:
    """The books of all teams."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spend(self, by: Sequence[By], span: Span) -> list[Group]:
        """Report what was spent on the attempts opened in a span, in groups ordered by their keys.

        Raises:
            ReportTooLong: there are more than `MAX_GROUPS` groups.
            StoreUnavailable: the database did not answer in time.
        """
        async with self._database.reading() as connection:
            groups = await repository.spend(connection, by, span, limit=MAX_GROUPS + 1)
        if len(groups) > MAX_GROUPS:
            message = (
                f"This report has more than {MAX_GROUPS} lines. Ask for fewer groups, or for a shorter span."
            )
            raise ReportTooLong(message, param="by")
        return groups

    async def reconcile(
        self,
        charges: Sequence[Charge],
        *,
        upstream: str | None = None,
        complete: Span | None = None,
        is_dry_run: bool = False,
        witness: Witness[Sequence[Reconciled]] = unwitnessed,
    ) -> list[Reconciled]:
        """Book what a vendor charged where the books were not certain. An import that is repeated changes nothing.

        At most `BATCH` corrections are booked in one transaction; `witness` sees each transaction's lines.

        `upstream`: whose tickets the export names. `complete`: the export lists everything that this upstream charged
        for calls of the span, so what may have been paid for then, and is not in it, was not.

        Raises:
            MissingParameter: tickets, or a complete export, of nobody knows which upstream.
            StoreUnavailable: the database did not answer in time; import the same export again.
        """
        tickets = [charge.ticket for charge in charges if charge.attempt_id is None and charge.ticket]
        if upstream is None and (tickets or complete is not None):
            message = "Missing required parameter: 'upstream', whose tickets or complete bill this is."
            raise MissingParameter(message, param="upstream")
        ids = [charge.attempt_id for charge in charges if charge.attempt_id]
        async with self._database.reading() as connection:
            found = await repository.booked_by_id(connection, ids) if ids else []
            if upstream is not None and tickets:
                found += await repository.booked_by_ticket(connection, upstream, tickets)
            unbilled: list[Booked] = []
            if upstream is not None and complete is not None:
                unbilled = await repository.possible(connection, upstream, complete, limit=MAX_LINES)
        pairs = [(charge.name, charge.amount_micros, booked) for charge, booked in matched(charges, found)]
        named = {booked.id for _, _, booked in pairs if booked is not None}
        pairs += [(booked.id, 0, booked) for booked in unbilled if booked.id not in named]
        lines = [_judged(*pair) for pair in pairs]
        if not is_dry_run:
            by_id = {booked.id: booked for _, _, booked in pairs if booked is not None}
            lines = await self._book(lines, by_id, witness)
        return lines

    async def _book(
        self,
        lines: Sequence[Reconciled],
        by_id: Mapping[str, Booked],
        witness: Witness[Sequence[Reconciled]],
    ) -> list[Reconciled]:
        done: dict[str, Reconciled] = {}
        to_correct = [line for line in lines if line.finding is Finding.CORRECTED]
        others = [line for line in lines if line.finding is not Finding.CORRECTED]
        batches = [to_correct[start : start + BATCH] for start in range(0, len(to_correct), BATCH)] or [[]]
        for batch in batches:
            async with self._database.transaction() as connection:
                booked = await self._correct(connection, batch, by_id)
                # The last one also tells of the lines that changed nothing.
                told = [*booked, *others] if batch is batches[-1] else booked
                await witness(connection, None, told)
            done |= {line.name: line for line in booked}
        return [done.get(line.name, line) for line in lines]

    @staticmethod
    async def _correct(
        connection: Connection, batch: Sequence[Reconciled], by_id: Mapping[str, Booked]
    ) -> list[Reconciled]:
        pairs = [(line, by_id[line.attempt_id]) for line in batch if line.attempt_id is not None]
        # All jobs before any budget, and both in their order: whoever else holds a job waits for its budgets alone.
        jobs = sorted({booked.job_id for _, booked in pairs})
        budgets = {job_id: await repository.lock_job(connection, job_id) for job_id in jobs}
        await books.lock(connection, (budget for found in budgets.values() for budget in found))
        lines = []
        for line, booked in pairs:
            if not await repository.make_actual(connection, booked, line.after_micros):
                # Somebody has booked meanwhile: a late success, or the same import sent twice.
                lines.append(replace(line, finding=Finding.OPEN))
                continue
            await books.correct(
                connection,
                booked.id,
                reason=books.Reason.RECONCILED,
                before_micros=booked.cost_micros,
                after_micros=line.after_micros,
                was=Certainty(booked.certainty or Certainty.POSSIBLE),
            )
            change_micros = line.after_micros - booked.cost_micros
            await books.post(
                connection, budgets[booked.job_id], reserved_micros=0, spent_micros=change_micros
            )
            lines.append(line)
        return lines


def _judged(name: str, amount_micros: int, booked: Booked | None) -> Reconciled:
    return Reconciled(
        name=name,
        attempt_id=None if booked is None else booked.id,
        finding=judge(booked, amount_micros),
        before_micros=None if booked is None else booked.cost_micros,
        was=Certainty(booked.certainty) if booked is not None and booked.certainty else None,
        after_micros=amount_micros,
    )
