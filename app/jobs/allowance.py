"""What a team and its key are allowed when a job is handed in: rates, places, the length of the queue, and money.

Rates are counted before anything is written. Places and money are taken in the job's own transaction, so that no
number of requests at the same moment gets more than there is.
"""

from collections.abc import Sequence
from typing import Final

from app.accounts.limits import NEARLY_FULL, AccountLimits, Taken, Terms
from app.db.connection import Connection
from app.db.engine import Database
from app.jobs import repository
from app.jobs.records import Job
from app.ledger import books
from app.ledger.budgets import Ceiling, Scope, ceilings

_KNOWN_AT_MOST: Final = 10_000


def budgets_in_force(terms: Terms) -> list[Ceiling]:
    """The budgets that a job of this caller counts towards."""
    owners = ((Scope.KEY, terms.key_line_id, terms.key), (Scope.TEAM, terms.team_id, terms.team))
    return [
        ceiling
        for scope, owner_id, limits in owners
        for ceiling in ceilings(
            scope,
            owner_id,
            terms.team_id,
            day_micros=limits.budget_day_micros,
            month_micros=limits.budget_month_micros,
            at=terms.at,
        )
    ]


class Allowance:
    """Asks for a job whatever has to be asked for."""

    def __init__(self, database: Database, limits: AccountLimits) -> None:
        self._database = database
        self._limits = limits
        self._opened: set[str] = set()

    async def terms(self, team_id: str, api_key_id: str) -> Terms:
        """What holds for a caller now."""
        return await self._limits.terms(team_id, api_key_id)

    async def count_request(self, terms: Terms) -> Taken:
        """Count a request.

        Raises:
            RateLimitExceeded: there were too many within a minute.
        """
        return await self._limits.take(terms, requests=1)

    async def count_images(
        self, terms: Terms, images: int, *, idempotency_key: str | None, counted: Taken
    ) -> Taken:
        """Count the pictures that a request asks for, after `counted`; those of a job that is there already are not.

        Raises:
            RateLimitExceeded: there were too many within a minute.
            RateTooSmall: they are too many for any minute; the request counts no more, either.
        """
        if not terms.limits_images:
            return counted
        if idempotency_key is not None:
            async with self._database.reading() as connection:
                if await repository.is_key_bound(connection, terms.team_id, idempotency_key):
                    return counted
        return await self._limits.take(terms, images=images, counted=counted)

    async def give_back_images(self, taken: Taken) -> None:
        """Count the pictures out again, when no job has come of the request."""
        await self._limits.give_back_images(taken)

    async def open_budgets(self, in_force: Sequence[Ceiling]) -> None:
        """See that the rows of these budgets are there; asks the database once for each of them.

        Raises:
            StoreUnavailable: the database did not answer in time.
        """
        unknown = [ceiling for ceiling in in_force if ceiling.id not in self._opened]
        if not unknown:
            return
        async with self._database.transaction() as connection:
            await books.open_budgets(connection, unknown)
        if len(self._opened) >= _KNOWN_AT_MOST:
            self._opened.clear()
        self._opened.update(ceiling.id for ceiling in unknown)

    @staticmethod
    async def take(connection: Connection, job: Job, terms: Terms, in_force: Sequence[Ceiling]) -> None:
        """Take a place in the queue, a place among the jobs at once, and the money, in the job's transaction.

        Raises:
            QueueFull: too many jobs of the team or of the key wait.
            RateLimitExceeded: the team or the key has as many jobs at once as it may.
            InsufficientQuota: a budget has no room.
        """
        # Others that count the same jobs wait here until this one is committed, or is not.
        if terms.limits_jobs or terms.limits_queue:
            await repository.serialise(connection, f"jobs:{job.team_id}")
        waiting = await repository.count_waiting(connection, job.team_id)
        if waiting > NEARLY_FULL and not (terms.limits_jobs or terms.limits_queue):
            await repository.serialise(connection, f"jobs:{job.team_id}")
            waiting = await repository.count_waiting(connection, job.team_id)
        of_key = 0
        if terms.key.max_queued is not None:
            of_key = await repository.count_waiting_of_key(connection, job.team_id, job.api_key_id) - 1
        terms.check_queue(of_team=waiting - 1, of_key=of_key)
        if terms.limits_jobs:
            of_team, of_key = await repository.count_open(connection, job.team_id, job.api_key_id)
            terms.check_jobs(of_team=of_team, of_key=of_key)
        if in_force:
            if job.picture_hold_micros is None:
                raise ValueError(
                    f"{job.id}: a budget is in force, and the price of its pictures is not known"
                )
            await books.take_out(connection, in_force, job.picture_hold_micros * job.to_buy)
