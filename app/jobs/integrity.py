"""The promises about jobs as questions to the database: each finds the rows that break one.

The tests ask them after every step, the fault runs at their end, and `darkroom doctor --integrity` in production. They
read whole tables, so they belong on a connection whose statements may take minutes.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    true,
)

from app.db.connection import Connection
from app.db.tables.assets import assets
from app.db.tables.attempts import attempts
from app.db.tables.budgets import budgets
from app.db.tables.idempotency_keys import idempotency_keys
from app.db.tables.jobs import jobs
from app.db.tables.ledger_entries import ledger_entries
from app.db.tables.webhook_deliveries import webhook_deliveries
from app.db.tables.webhook_endpoints import webhook_endpoints
from app.db.tables.webhook_events import webhook_events
from app.db.types import from_now, now, texts_in
from app.jobs.conditions import has_state, has_status, is_open_attempt
from app.jobs.lifecycle import FINAL, OPEN, AttemptState, Status
from app.webhooks.schedule import KEPT_S as EVENTS_KEPT_S

IDS_MAX: Final = 10
"""How many offenders a violation names."""
OVERDUE_S: Final = 600.0
"""How long after its time something may still be under way; sweeps come every few seconds."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that some rows break."""

    name: str
    sentence: str
    ids: tuple[str, ...]
    """Ids of jobs, attempts, files or keys; `IDS_MAX` at most."""


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, and the query for the ids that break it."""

    name: str
    sentence: str
    offenders: Select[Any]


async def check_integrity(connection: Connection) -> list[Violation]:
    """Look for broken promises; empty when all hold."""
    violations = []
    for check in CHECKS:
        found = (await connection.execute(check.offenders.limit(IDS_MAX))).scalars().all()
        if found:
            violations.append(Violation(check.name, check.sentence, tuple(found)))
    return violations


def _sum(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """Pictures of the job's attempts of this kind."""
    return (
        select(func.coalesce(func.sum(attempts.c.pictures), 0))
        .where(attempts.c.job_id == jobs.c.id, *conditions)
        .scalar_subquery()
    )


def _kept() -> ColumnElement[bool]:
    """Retention has had no reason yet to delete the job's pictures."""
    return and_(jobs.c.purged_at.is_(None), jobs.c.expires_at > now())


def _results_of_job() -> ColumnElement[int]:
    return (
        select(func.count())
        .select_from(assets)
        .where(assets.c.job_id == jobs.c.id, assets.c.kind == "result")
        .scalar_subquery()
    )


def _booked() -> Subquery:
    """What the jobs of each budget hold and have cost, by the budget's id."""
    is_open = is_open_attempt()
    of_attempts = (
        select(
            attempts.c.job_id,
            func.sum(case((is_open, func.coalesce(attempts.c.hold_micros, 0)), else_=0)).label("held"),
            func.sum(case((attempts.c.settled == "spent", attempts.c.cost_micros), else_=0)).label("cost"),
        )
        .group_by(attempts.c.job_id)
        .subquery()
    )
    carried = texts_in(jobs.c.budgets).table_valued("value", joins_implicitly=True)
    unbought = jobs.c.to_buy * func.coalesce(jobs.c.picture_hold_micros, 0)
    return (
        select(
            carried.c.value.label("id"),
            func.sum(unbought + func.coalesce(of_attempts.c.held, 0)).label("reserved"),
            func.sum(func.coalesce(of_attempts.c.cost, 0)).label("spent"),
        )
        .select_from(jobs.join(carried, true()).outerjoin(of_attempts, of_attempts.c.job_id == jobs.c.id))
        .group_by(carried.c.value)
        .subquery()
    )


_BOOKED: Final = _booked()
_NEWEST_CORRECTION: Final = (
    select(ledger_entries.c.cost_micros)
    .where(ledger_entries.c.attempt_id == attempts.c.id)
    .order_by(ledger_entries.c.at.desc(), ledger_entries.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_IS_FINAL: Final = has_status(*sorted(FINAL))
_IS_OPEN: Final = has_status(*sorted(OPEN))
_MAY_BE_PAID: Final = ~has_state(AttemptState.UNPAID)
# The one attempt that failover may buy again is no larger than the largest.
_LARGEST: Final = (
    select(func.coalesce(func.max(attempts.c.pictures), 0))
    .where(attempts.c.job_id == jobs.c.id, _MAY_BE_PAID)
    .scalar_subquery()
)

CHECKS: Final = (
    Check(
        "bought_too_often",
        "more pictures may have been paid for than were asked for, and failover does not explain it",
        select(jobs.c.id).where(_sum(_MAY_BE_PAID) > jobs.c.n + case((jobs.c.spare == 0, _LARGEST), else_=0)),
    ),
    Check(
        "counter_too_high",
        "the counter allows buying pictures that are in hand or on their way",
        select(jobs.c.id).where(
            _IS_OPEN,
            jobs.c.to_buy > 0,
            jobs.c.to_buy + _sum(or_(is_open_attempt(), has_state(AttemptState.SUCCEEDED))) > jobs.c.n,
        ),
    ),
    Check(
        "hold_outlives_job",
        "a final job still holds money for pictures that nobody will buy",
        select(jobs.c.id).where(_IS_FINAL, jobs.c.to_buy > 0),
    ),
    Check(
        "not_settled",
        "an attempt has ended, and its money is neither spent nor released, or the wrong one of the two",
        select(attempts.c.id).where(
            or_(
                and_(
                    has_state(AttemptState.UNPAID),
                    or_(
                        attempts.c.settled.is_distinct_from("released"),
                        attempts.c.cost_micros.is_distinct_from(0),
                    ),
                ),
                and_(
                    has_state(AttemptState.SUCCEEDED, AttemptState.UNKNOWN),
                    or_(
                        attempts.c.settled.is_distinct_from("spent"),
                        attempts.c.cost_micros.is_(None),
                        attempts.c.cost_micros < 0,
                        attempts.c.certainty.is_(None),
                    ),
                ),
                and_(is_open_attempt(), attempts.c.settled.is_not(None)),
            )
        ),
    ),
    Check(
        "wrongly_dated",
        "a final job has no date of its end, or an open one has",
        select(jobs.c.id).where(
            or_(
                and_(_IS_FINAL, jobs.c.finished_at.is_(None)),
                and_(_IS_OPEN, jobs.c.finished_at.is_not(None)),
            )
        ),
    ),
    Check(
        "ended_without_reason",
        "a job failed or expired, and nothing says why",
        select(jobs.c.id).where(has_status(Status.FAILED, Status.EXPIRED), jobs.c.error.is_(None)),
    ),
    Check(
        "succeeded_empty",
        "a job succeeded, and has no picture",
        select(jobs.c.id).where(has_status(Status.SUCCEEDED), _kept(), _results_of_job() == 0),
    ),
    Check(
        "too_many_results",
        "a job has more result pictures than were asked for",
        select(jobs.c.id).where(has_status(Status.SUCCEEDED), _results_of_job() > jobs.c.n),
    ),
    Check(
        "result_misses_picture",
        "a job's result does not list one of its result pictures",
        select(assets.c.id)
        .join(jobs, jobs.c.id == assets.c.job_id)
        .where(
            has_status(Status.SUCCEEDED),
            assets.c.kind == "result",
            or_(jobs.c.result.is_(None), ~cast(jobs.c.result, Text).contains(assets.c.id)),
        ),
    ),
    Check(
        "picture_not_kept_as_late",
        "a job ended without pictures, and one that was made for it is not kept as late",
        select(assets.c.id)
        .join(jobs, jobs.c.id == assets.c.job_id)
        .where(has_status(Status.FAILED, Status.CANCELLED, Status.EXPIRED), assets.c.kind == "result"),
    ),
    Check(
        "picture_without_purchase",
        "a picture was made by an attempt that did not succeed",
        select(assets.c.id)
        .outerjoin(attempts, attempts.c.id == assets.c.attempt_id)
        .where(
            assets.c.kind.in_(["result", "late"]),
            or_(attempts.c.id.is_(None), ~has_state(AttemptState.SUCCEEDED)),
        ),
    ),
    Check(
        "picture_lost",
        "an attempt was paid for more pictures than are kept of it",
        select(attempts.c.id)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            has_state(AttemptState.SUCCEEDED),
            _kept(),
            attempts.c.pictures
            != select(func.count())
            .select_from(assets)
            .where(assets.c.attempt_id == attempts.c.id, assets.c.job_id == jobs.c.id)
            .scalar_subquery(),
        ),
    ),
    Check(
        "paid_pictures_withheld",
        "a job failed or expired although pictures came in time",
        select(jobs.c.id).where(
            has_status(Status.FAILED, Status.EXPIRED),
            exists().where(
                attempts.c.job_id == jobs.c.id,
                has_state(AttemptState.SUCCEEDED),
                attempts.c.finished_at < jobs.c.finished_at,
            ),
        ),
    ),
    Check(
        "fence_went_back",
        "an attempt was opened under a lease token that its job never reached",
        select(attempts.c.id)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.owner_token > jobs.c.lease_token),
    ),
    Check(
        "order_shared",
        "one order at a vendor answers two attempts",
        select(func.min(attempts.c.id))
        .where(attempts.c.ticket.is_not(None))
        .group_by(attempts.c.upstream, attempts.c.ticket)
        .having(func.count() > 1),
    ),
    Check(
        "key_astray",
        "an idempotency key stands for a job that is not there, is another team's, or is of another request",
        select(idempotency_keys.c.key)
        .outerjoin(jobs, jobs.c.id == idempotency_keys.c.job_id)
        .where(
            or_(
                jobs.c.id.is_(None),
                jobs.c.team_id != idempotency_keys.c.team_id,
                jobs.c.fingerprint != idempotency_keys.c.fingerprint,
            )
        ),
    ),
    Check(
        "picture_astray",
        "a picture belongs to a job of another team, or to one that is not there",
        select(assets.c.id)
        .outerjoin(jobs, jobs.c.id == assets.c.job_id)
        .where(assets.c.job_id.is_not(None), or_(jobs.c.id.is_(None), jobs.c.team_id != assets.c.team_id)),
    ),
    Check(
        "budget_astray",
        "a budget holds or has spent something else than its jobs do",
        select(budgets.c.id)
        .outerjoin(_BOOKED, _BOOKED.c.id == budgets.c.id)
        .where(
            or_(
                budgets.c.reserved_micros != func.coalesce(_BOOKED.c.reserved, 0),
                budgets.c.spent_micros != budgets.c.opening_micros + func.coalesce(_BOOKED.c.spent, 0),
            )
        ),
    ),
    Check(
        "budget_missing",
        "a job counts towards a budget that is not there",
        select(_BOOKED.c.id).outerjoin(budgets, budgets.c.id == _BOOKED.c.id).where(budgets.c.id.is_(None)),
    ),
    Check(
        "correction_astray",
        "an attempt costs something else than its last correction says",
        select(attempts.c.id).where(
            exists().where(ledger_entries.c.attempt_id == attempts.c.id),
            attempts.c.cost_micros.is_distinct_from(_NEWEST_CORRECTION),
        ),
    ),
    Check(
        "end_untold",
        "a job ended, and the outbox does not have it for somebody who wants to be told",
        select(jobs.c.id).where(
            _IS_FINAL,
            # Older ones may have been deleted since.
            jobs.c.finished_at > from_now(OVERDUE_S - EVENTS_KEPT_S),
            ~exists().where(webhook_events.c.job_id == jobs.c.id),
            or_(
                jobs.c.webhook_url.is_not(None),
                exists().where(
                    webhook_endpoints.c.team_id == jobs.c.team_id,
                    webhook_endpoints.c.owed_from < jobs.c.finished_at,
                    webhook_endpoints.c.disabled_at.is_(None),
                    webhook_endpoints.c.deleted_at.is_(None),
                    cast(webhook_endpoints.c.events, Text).contains("job." + jobs.c.status),
                ),
            ),
        ),
    ),
    Check(
        "end_mistold",
        "the outbox has an end of a job that is not final, ended otherwise, or is another team's",
        select(webhook_events.c.id)
        .join(jobs, jobs.c.id == webhook_events.c.job_id)
        .where(
            or_(
                webhook_events.c.type != "job." + jobs.c.status,
                webhook_events.c.team_id != jobs.c.team_id,
            )
        ),
    ),
    Check(
        "delivery_astray",
        "a delivery is of another job or team than its event, or goes to another team's endpoint",
        select(webhook_deliveries.c.id)
        .join(webhook_events, webhook_events.c.id == webhook_deliveries.c.event_id)
        .outerjoin(webhook_endpoints, webhook_endpoints.c.id == webhook_deliveries.c.endpoint_id)
        .where(
            or_(
                webhook_deliveries.c.job_id != webhook_events.c.job_id,
                webhook_deliveries.c.team_id != webhook_events.c.team_id,
                webhook_endpoints.c.team_id != webhook_events.c.team_id,
            )
        ),
    ),
    Check(
        "delivery_missing",
        "the outbox has the end of a job, and nobody is told of it",
        select(webhook_events.c.id).where(
            ~exists().where(webhook_deliveries.c.event_id == webhook_events.c.id)
        ),
    ),
    Check(
        "delivery_forgotten",
        "a delivery was due long ago, and nobody has tried it",
        select(webhook_deliveries.c.id).where(
            webhook_deliveries.c.status == "pending",
            webhook_deliveries.c.next_at < from_now(-OVERDUE_S),
            or_(
                webhook_deliveries.c.lease_until.is_(None),
                webhook_deliveries.c.lease_until < from_now(-OVERDUE_S),
            ),
        ),
    ),
    Check(
        "job_stuck",
        "a job is not final long after its deadline",
        select(jobs.c.id).where(_IS_OPEN, jobs.c.deadline_at < from_now(-OVERDUE_S)),
    ),
    Check(
        "attempt_forgotten",
        "an attempt is open long after its outcome was due",
        select(attempts.c.id).where(is_open_attempt(), attempts.c.outcome_due < from_now(-OVERDUE_S)),
    ),
    Check(
        "lease_forgotten",
        "a lease lapsed long ago, and nobody took the job on",
        select(jobs.c.id).where(jobs.c.lease_until < from_now(-OVERDUE_S)),
    ),
)
"""Each once; their names are stable, for alarms."""
