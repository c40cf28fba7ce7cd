"""Every query on events, endpoints, deliveries and webhook secrets. Each function takes the caller's connection and
commits nothing.

Lock order: team, endpoint, delivery.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Select,
    bindparam,
    delete,
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

from app.db.connection import Connection, built_once
from app.db.engine import row_values
from app.db.tables.audit_entries import audit_entries
from app.db.tables.teams import teams
from app.db.tables.webhook_deliveries import webhook_deliveries as deliveries
from app.db.tables.webhook_endpoints import webhook_endpoints as endpoints
from app.db.tables.webhook_events import webhook_events as events
from app.db.tables.webhook_secrets import webhook_secrets as secrets
from app.db.types import from_now, now
from app.kit.json import JsonObject
from app.webhooks.records import (
    Claimed,
    Delivery,
    DeliveryStatus,
    DisabledReason,
    Endpoint,
    Event,
    EventType,
    StoredSecret,
    delivery_from,
    endpoint_from,
    event_from,
)
from app.webhooks.schedule import KEPT_S

GATEWAY: Final = "darkroom"
"""Who acted, in the audit log, when nobody's key did."""
_IN_USE: Final = (endpoints.c.disabled_at.is_(None), endpoints.c.deleted_at.is_(None))
_PENDING: Final = deliveries.c.status == DeliveryStatus.PENDING.value
_FREE: Final = or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now())


async def insert_event(
    connection: Connection, *, event_id: str, job_id: str, team_id: str, event: EventType
) -> bool:
    """Write the event of a job's end; False when the job has one."""
    row = {"id": event_id, "job_id": job_id, "team_id": team_id, "type": event.value}
    statement = _upsert(connection, events).values(row).on_conflict_do_nothing().returning(events.c.id)
    return (await connection.execute(statement)).first() is not None


async def insert_deliveries(
    connection: Connection, rows: Sequence[Mapping[str, Any]], *, span_s: float
) -> None:
    """Write deliveries to be tried at once, and given up after `span_s`."""
    fresh = {"status": DeliveryStatus.PENDING.value, "history": []}
    times = {"next_at": from_now(0.0), "ends_at": from_now(span_s)}
    for row in rows:
        await connection.execute(insert(deliveries).values({**row, **fresh, **times}))


async def backlog(connection: Connection) -> tuple[int, float]:
    """How many deliveries are to be tried, and how many seconds ago the next one was due, 0 when none is."""
    # Written out, for a partial index serves only what the planner sees.
    is_pending = deliveries.c.status == literal_column(f"'{DeliveryStatus.PENDING}'")
    query = select(func.count(), func.min(deliveries.c.next_at), now()).where(is_pending)
    pending, next_at, at = (await connection.execute(query)).one()
    return pending, 0.0 if next_at is None else max((at - next_at).total_seconds(), 0.0)


_OF_TEAM_IN_USE: Final = built_once(
    select(endpoints).where(endpoints.c.team_id == bindparam("team_id"), *_IN_USE).order_by(endpoints.c.id)
)


async def subscribed(connection: Connection, team_id: str, event: EventType) -> list[Endpoint]:
    """The team's endpoints that want this event."""
    rows = await connection.execute(_OF_TEAM_IN_USE, {"team_id": team_id})
    found = [endpoint_from(row_values(row)) for row in rows]
    return [endpoint for endpoint in found if event in endpoint.events]


async def claim(connection: Connection, *, limit: int, per_receiver: int, lease_s: float) -> list[Claimed]:
    """Take up to `limit` deliveries that are due, oldest first, and hold them for the lease.

    At most `per_receiver` are under way to one receiver, over all workers together; a receiver that is slow keeps
    nobody else waiting.
    """
    if connection.dialect.name == "postgresql":
        # Two that count at the same time would both find room.
        await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("webhooks", 0))))
    busy = (
        select(deliveries.c.receiver, func.count().label("calls"))
        .where(deliveries.c.lease_until > now())
        .group_by(deliveries.c.receiver)
        .cte("busy")
    )
    turn = func.row_number().over(
        partition_by=deliveries.c.receiver, order_by=(deliveries.c.next_at, deliveries.c.id)
    )
    due = (
        select(deliveries.c.id, deliveries.c.receiver, deliveries.c.next_at, turn.label("turn"))
        .where(_PENDING, deliveries.c.next_at <= now(), _FREE)
        .cte("due")
    )
    chosen = (
        select(due.c.id)
        .outerjoin(busy, busy.c.receiver == due.c.receiver)
        .where(due.c.turn + func.coalesce(busy.c.calls, 0) <= per_receiver)
        .order_by(due.c.next_at, due.c.id)
        .limit(limit)
        .cte("chosen")
    )
    locked = (
        select(deliveries.c.id)
        .where(deliveries.c.id.in_(select(chosen.c.id)), _PENDING, _FREE)
        .with_for_update(skip_locked=True)
        .cte("locked")
    )
    taken = (
        update(deliveries)
        .where(deliveries.c.id.in_(select(locked.c.id)))
        .values(claims=deliveries.c.claims + 1, lease_until=from_now(lease_s))
        .returning(deliveries.c.id)
    )
    ids = list((await connection.execute(taken)).scalars())
    if not ids:
        return []
    query = _with_event(now().label("at")).where(deliveries.c.id.in_(ids)).order_by(deliveries.c.next_at)
    rows = [row_values(row) for row in await connection.execute(query)]
    return [Claimed(delivery=delivery_from(row), event=_event_of(row), at=row["at"]) for row in rows]


async def find_delivery(
    connection: Connection, delivery_id: str, *, is_to_change: bool = False
) -> Delivery | None:
    """Read a delivery; `is_to_change` locks it."""
    query = _with_event().where(deliveries.c.id == delivery_id)
    if is_to_change:
        query = query.with_for_update(of=deliveries)
    row = (await connection.execute(query)).first()
    return None if row is None else delivery_from(row_values(row))


async def list_deliveries(
    connection: Connection,
    *,
    team_id: str | None,
    job_id: str | None,
    status: DeliveryStatus | None,
    after: str | None,
    limit: int,
) -> list[Delivery]:
    """Read up to `limit` deliveries, newest first, beginning after the delivery `after`."""
    query = _with_event().order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
    for column, wanted in ((deliveries.c.team_id, team_id), (deliveries.c.job_id, job_id)):
        if wanted is not None:
            query = query.where(column == wanted)
    if status is not None:
        query = query.where(deliveries.c.status == status.value)
    if after is not None:
        began = select(deliveries.c.created_at).where(deliveries.c.id == after).scalar_subquery()
        query = query.where(tuple_(deliveries.c.created_at, deliveries.c.id) < tuple_(began, literal(after)))
    return [delivery_from(row_values(row)) for row in await connection.execute(query)]


async def latest_deliveries(
    connection: Connection,
    *,
    team_id: str | None,
    status: DeliveryStatus | None,
    since: datetime,
    until: datetime,
    limit: int,
) -> list[Delivery]:
    """The last delivery to each receiver of the events from `since` up to, not including, `until`, oldest event first.

    Only those that have ended and whose receiver is in use; `status`: only those that ended so.
    """
    newer = deliveries.alias()
    is_last = ~(
        select(newer.c.id)
        .where(
            newer.c.event_id == deliveries.c.event_id,
            newer.c.receiver == deliveries.c.receiver,
            newer.c.url == deliveries.c.url,
            tuple_(newer.c.created_at, newer.c.id) > tuple_(deliveries.c.created_at, deliveries.c.id),
        )
        .exists()
    )
    query = (
        _with_event()
        .outerjoin(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(events.c.created_at >= since, events.c.created_at < until, is_last, ~_PENDING)
        # Holds too where there is no endpoint: both columns are NULL then.
        .where(*_IN_USE)
        .order_by(events.c.created_at, events.c.id, deliveries.c.id)
        .limit(limit)
    )
    if team_id is not None:
        query = query.where(deliveries.c.team_id == team_id)
    if status is not None:
        query = query.where(deliveries.c.status == status.value)
    return [delivery_from(row_values(row)) for row in await connection.execute(query)]


async def finish(
    connection: Connection,
    delivery_id: str,
    status: DeliveryStatus,
    *,
    history: Sequence[JsonObject],
    answer: str | None,
) -> bool:
    """End a delivery after a try; False when it had ended already."""
    values = {
        "status": status.value,
        "history": list(history),
        "answer": answer,
        "tries": deliveries.c.tries + 1,
        "finished_at": now(),
        "lease_until": None,
    }
    return await _change_pending(connection, delivery_id, values)


async def put_off(
    connection: Connection,
    delivery_id: str,
    next_at: datetime,
    *,
    history: Sequence[JsonObject],
    answer: str | None,
) -> bool:
    """Leave a delivery for a later try; False when it had ended already."""
    values = {
        "history": list(history),
        "answer": answer,
        "tries": deliveries.c.tries + 1,
        "next_at": next_at,
        "lease_until": None,
    }
    return await _change_pending(connection, delivery_id, values)


async def give_back(connection: Connection, delivery_id: str, *, claims: int) -> bool:
    """Give back a delivery whose try was broken off by us, so that another process sends it at once."""
    held = deliveries.c.claims == claims
    return await _change_pending(connection, delivery_id, {"lease_until": None, "next_at": now()}, held)


async def give_up_all(connection: Connection, endpoint_id: str) -> int:
    """End what waits for an endpoint that nothing more is sent to; how many."""
    given_up = await connection.execute(
        update(deliveries)
        .where(deliveries.c.endpoint_id == endpoint_id, _PENDING)
        .values(status=DeliveryStatus.FAILED.value, finished_at=now(), lease_until=None)
        .returning(deliveries.c.id)
    )
    return len(given_up.all())


async def count_pending(connection: Connection, endpoint_id: str) -> int:
    """How many deliveries wait for an endpoint."""
    query = select(func.count()).where(deliveries.c.endpoint_id == endpoint_id, _PENDING)
    return (await connection.execute(query)).scalar_one()


async def insert_endpoint(connection: Connection, values: Mapping[str, Any], *, owed_in_s: float) -> Endpoint:
    """Write an endpoint that every job is owed to from `owed_in_s` on."""
    statement = insert(endpoints).values({**values, "owed_from": from_now(owed_in_s)}).returning(endpoints)
    return endpoint_from(row_values((await connection.execute(statement)).one()))


async def find_endpoint(
    connection: Connection, endpoint_id: str, *, is_to_change: bool = False
) -> Endpoint | None:
    """Read an endpoint, a deleted one too; `is_to_change` locks it."""
    query = select(endpoints).where(endpoints.c.id == endpoint_id)
    if is_to_change:
        # Not against those who only refer to it: every job's end does.
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).first()
    return None if row is None else endpoint_from(row_values(row))


async def list_endpoints(
    connection: Connection, *, team_id: str | None, after: str | None, limit: int
) -> list[Endpoint]:
    """Read up to `limit` endpoints that are not deleted, newest first, beginning after the endpoint `after`."""
    query = (
        select(endpoints)
        .where(endpoints.c.deleted_at.is_(None))
        .order_by(endpoints.c.created_at.desc(), endpoints.c.id.desc())
        .limit(limit)
    )
    if team_id is not None:
        query = query.where(endpoints.c.team_id == team_id)
    if after is not None:
        began = select(endpoints.c.created_at).where(endpoints.c.id == after).scalar_subquery()
        query = query.where(tuple_(endpoints.c.created_at, endpoints.c.id) < tuple_(began, literal(after)))
    return [endpoint_from(row_values(row)) for row in await connection.execute(query)]


async def note_success(connection: Connection, endpoint_id: str) -> None:
    """Note that an endpoint works."""
    await _change_endpoint(connection, endpoint_id, {"failing_since": None})


async def note_failure(connection: Connection, endpoint_id: str) -> None:
    """Note that an endpoint has failed; since when is kept from the first failure on."""
    since = func.coalesce(endpoints.c.failing_since, now())
    await _change_endpoint(connection, endpoint_id, {"failing_since": since})


async def disable(connection: Connection, endpoint_id: str, reason: DisabledReason) -> None:
    """Send nothing more to an endpoint."""
    values = {"disabled_at": now(), "disabled_reason": reason.value}
    await _change_endpoint(connection, endpoint_id, values)


async def tell_operators(
    connection: Connection, entry_id: str, endpoint_id: str, reason: DisabledReason
) -> None:
    """Write into the audit log that an endpoint was disabled, and that nobody but the gateway did it."""
    values = {
        "id": entry_id,
        "actor_id": GATEWAY,
        "action": "webhook_endpoint.disabled",
        "object": endpoint_id,
        "after": {"disabled_reason": reason.value},
    }
    await connection.execute(insert(audit_entries).values(values))


async def enable(connection: Connection, endpoint_id: str, *, owed_in_s: float) -> None:
    """Send to an endpoint again."""
    values = {
        "disabled_at": None,
        "disabled_reason": None,
        "failing_since": None,
        "owed_from": from_now(owed_in_s),
    }
    await _change_endpoint(connection, endpoint_id, values)


async def delete_endpoint(connection: Connection, endpoint_id: str) -> None:
    """Take an endpoint out of use for good."""
    await _change_endpoint(connection, endpoint_id, {"deleted_at": now()})


async def has_team(connection: Connection, team_id: str, *, is_to_change: bool = False) -> bool:
    """Whether there is such a team; `is_to_change` lets nobody else change its secrets meanwhile."""
    query = select(teams.c.id).where(teams.c.id == team_id)
    if is_to_change:
        query = query.with_for_update(key_share=True)
    return (await connection.execute(query)).first() is not None


async def live_secrets(connection: Connection, team_id: str) -> list[StoredSecret]:
    """The secrets that a team's deliveries are signed with now, the newest first."""
    query = (
        select(secrets.c.id, secrets.c.team_id, secrets.c.sealed, secrets.c.shown_at)
        .where(secrets.c.team_id == team_id)
        .where(or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > now()))
        .order_by(secrets.c.expires_at.is_not(None), secrets.c.created_at.desc(), secrets.c.id.desc())
    )
    return [StoredSecret(**row_values(row)) for row in await connection.execute(query)]


async def live_seals(connection: Connection) -> list[bytes]:
    """The sealed secrets of all teams that sign now."""
    is_live = or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > now())
    return list((await connection.execute(select(secrets.c.sealed).where(is_live))).scalars())


async def insert_secret(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write a team's current secret, which nobody has seen; it must have none."""
    await connection.execute(insert(secrets).values(values))


async def mark_shown(connection: Connection, secret_id: str) -> None:
    """Note that an operator sees a secret."""
    await connection.execute(update(secrets).where(secrets.c.id == secret_id).values(shown_at=now()))


async def retire_secrets(connection: Connection, team_id: str, *, overlap_s: float) -> datetime | None:
    """End a team's current secret in `overlap_s`, and older ones at once; when it ends, None when there was none."""
    mine = update(secrets).where(secrets.c.team_id == team_id)
    await connection.execute(mine.where(secrets.c.expires_at > now()).values(expires_at=now()))
    retired = await connection.execute(
        mine.where(secrets.c.expires_at.is_(None))
        .values(expires_at=from_now(overlap_s))
        .returning(secrets.c.expires_at)
    )
    ends_at: datetime | None = retired.scalar_one_or_none()
    return ends_at


async def moment_in(connection: Connection, seconds: float) -> datetime:
    """The database's time in so many seconds."""
    at: datetime = (await connection.execute(select(from_now(seconds).label("at")))).scalar_one()
    return at


async def secrets_after(connection: Connection, secret_id: str, *, limit: int) -> list[StoredSecret]:
    """Read up to `limit` secrets, whoever's, in the order of their ids, after `secret_id`; locked until the commit."""
    query = (
        select(secrets.c.id, secrets.c.team_id, secrets.c.sealed, secrets.c.shown_at)
        .where(secrets.c.id > secret_id)
        .order_by(secrets.c.id)
        .limit(limit)
        .with_for_update()
    )
    return [StoredSecret(**row_values(row)) for row in await connection.execute(query)]


async def reseal(connection: Connection, secret_id: str, sealed: bytes) -> None:
    """Keep a secret under another seal."""
    await connection.execute(update(secrets).where(secrets.c.id == secret_id).values(sealed=sealed))


async def purge_deliveries(connection: Connection, *, limit: int) -> int:
    """Delete up to `limit` deliveries that ended `KEPT_S` ago, and each event with its last delivery; how many."""
    outlived = from_now(-KEPT_S)
    due = (
        select(deliveries.c.id, deliveries.c.event_id)
        # None ends before it is written: this is what the index knows, and the next line what counts.
        .where(deliveries.c.created_at <= outlived)
        .where(deliveries.c.finished_at <= outlived)
        .order_by(deliveries.c.created_at, deliveries.c.id)
        .limit(literal(limit, literal_execute=True))
        .with_for_update(skip_locked=True)
    )
    found = (await connection.execute(due)).all()
    if not found:
        return 0
    await connection.execute(delete(deliveries).where(deliveries.c.id.in_([row.id for row in found])))
    # Held while it is decided: no delivery is added meanwhile, and two who delete one each do not overlook the other.
    mine = events.c.id.in_(sorted({row.event_id for row in found}))
    await connection.execute(select(events.c.id).where(mine).order_by(events.c.id).with_for_update())
    left = select(deliveries.c.id).where(deliveries.c.event_id == events.c.id)
    await connection.execute(delete(events).where(mine, ~left.exists()))
    return len(found)


async def _change_pending(
    connection: Connection, delivery_id: str, values: Mapping[str, Any], *conditions: Any
) -> bool:
    statement = (
        update(deliveries)
        .where(deliveries.c.id == delivery_id, _PENDING, *conditions)
        .values(**values)
        .returning(deliveries.c.id)
    )
    return (await connection.execute(statement)).first() is not None


async def _change_endpoint(connection: Connection, endpoint_id: str, values: Mapping[str, Any]) -> None:
    await connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))


def _with_event(*columns: Any) -> Select[Any]:
    named = (events.c.type.label("event_type"), events.c.created_at.label("event_at"))
    return select(deliveries, *named, *columns).join(events, events.c.id == deliveries.c.event_id)


def _event_of(row: Mapping[str, Any]) -> Event:
    return event_from(
        {
            "id": row["event_id"],
            "job_id": row["job_id"],
            "team_id": row["team_id"],
            "type": row["event_type"],
            "created_at": row["event_at"],
        }
    )


def _upsert(connection: Connection, table: Any) -> Any:
    return upsert_on_sqlite(table) if connection.dialect.name == "sqlite" else upsert_on_postgres(table)
