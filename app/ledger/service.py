"""What operators can do with the books: read reports, and import what vendors really charged."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.db.engine import Database
from app.domain.errors import MissingParameter
from app.domain.money import Certainty
from app.ledger import books, repository
from app.ledger.errors import ReportTooLong
from app.ledger.exports import MAX_LINES, Booked, Charge, Finding, judge, matched
from app.ledger.spend import MAX_GROUPS, By, Group, Span


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
    ) -> list[Reconciled]:
        """Book what a vendor charged where the books were not certain. An import that is repeated changes nothing.

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
        return [
            await self._reconcile_one(name, amount_micros, booked, is_dry_run=is_dry_run)
            for name, amount_micros, booked in pairs
        ]

    async def _reconcile_one(
        self, name: str, amount_micros: int, booked: Booked | None, *, is_dry_run: bool
    ) -> Reconciled:
        finding = judge(booked, amount_micros)
        is_to_correct = finding is Finding.CORRECTED and not is_dry_run
        if booked is not None and is_to_correct and not await self._correct(booked, amount_micros):
            # Somebody has booked meanwhile: a late success, or the same import sent twice.
            finding = Finding.OPEN
        return Reconciled(
            name=name,
            attempt_id=None if booked is None else booked.id,
            finding=finding,
            before_micros=None if booked is None else booked.cost_micros,
            was=Certainty(booked.certainty) if booked is not None and booked.certainty else None,
            after_micros=amount_micros,
        )

    async def _correct(self, booked: Booked, amount_micros: int) -> bool:
        async with self._database.transaction() as connection:
            budgets = await repository.lock_job(connection, booked.job_id)
            if not await repository.make_actual(connection, booked, amount_micros):
                return False
            await books.correct(
                connection,
                booked.id,
                reason=books.Reason.RECONCILED,
                before_micros=booked.cost_micros,
                after_micros=amount_micros,
                was=Certainty(booked.certainty or Certainty.POSSIBLE),
            )
            await books.post(
                connection, budgets, reserved_micros=0, spent_micros=amount_micros - booked.cost_micros
            )
            return True
