"""A stock SDK repeats a call that broke, without an idempotency key. Its retry takes the place of the broken caller.

Reliability 3.5: same API key, same fingerprint, an answer that was not delivered, and a lower retry count. Should the
retry be written first, because the broken call was stuck on its way here, the broken call joins the retry's job.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, func, select, update

from app.db.connection import Connection, built_once, of_few_lengths
from app.db.tables.jobs import jobs
from app.db.types import from_now, now

_YOUNGER_THAN_S: Final = 900.0
"""An SDK repeats within seconds; a job older than this was not its own."""


_UNDELIVERED: Final = update(jobs).where(jobs.c.id == bindparam("job_id"), jobs.c.delivered_at.is_(None))
_DELIVERED: Final = built_once(
    update(jobs)
    .where(jobs.c.id.in_(bindparam("job_ids", expanding=True)), jobs.c.delivered_at.is_(None))
    .values(delivered_at=now())
)
_NOT_DELIVERED: Final = built_once(
    update(jobs).where(jobs.c.id == bindparam("job_id")).values(delivered_at=None, waited_until=now())
)
_CUT_OFF: Final = built_once(_UNDELIVERED.values(waited_until=now()))


async def adopt(
    connection: Connection, api_key_id: str, fingerprint: bytes, *, retry: int, held_s: float
) -> str | bool:
    """Take over the newest job whose caller was cut off: its id.

    True when there is none yet but a caller is still held, whose end we may not have noticed; False when there is no
    candidate at all.
    """
    candidate = (
        jobs.c.api_key_id == api_key_id,
        jobs.c.fingerprint == fingerprint,
        jobs.c.delivered_at.is_(None),
        jobs.c.caller_retry < retry,
        jobs.c.created_at > from_now(-_YOUNGER_THAN_S),
    )
    newest = (
        select(jobs.c.id)
        .where(*candidate, jobs.c.waited_until <= now())
        .order_by(jobs.c.created_at.desc())
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("newest")
    )
    taken = await connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(select(newest.c.id)))
        .values(caller_retry=retry, waited_until=from_now(held_s))
        .returning(jobs.c.id)
    )
    job_id: str | None = taken.scalar_one_or_none()
    if job_id is not None:
        return job_id
    held = await connection.execute(select(func.count()).select_from(jobs).where(*candidate))
    return held.scalar_one() > 0


async def overtaken_by(
    connection: Connection, api_key_id: str, fingerprint: bytes, *, retry: int, within_s: float
) -> str | None:
    """Find the job that a later repetition of a call started while the call itself, `within_s` old, was on its way."""
    query = (
        select(jobs.c.id)
        .where(
            jobs.c.api_key_id == api_key_id,
            jobs.c.fingerprint == fingerprint,
            jobs.c.caller_retry > retry,
            jobs.c.created_at > from_now(-within_s),
        )
        .order_by(jobs.c.created_at.desc())
        .limit(1)
    )
    job_id: str | None = (await connection.execute(query)).scalar_one_or_none()
    return job_id


async def mark_delivered(connection: Connection, job_ids: Sequence[str]) -> None:
    """The clients of these jobs have their answers."""
    await connection.execute(_DELIVERED, {"job_ids": of_few_lengths(job_ids)})


async def mark_not_delivered(connection: Connection, job_id: str) -> None:
    """The client turned out not to have the answer."""
    await connection.execute(_NOT_DELIVERED, {"job_id": job_id})


async def mark_cut_off(connection: Connection, job_id: str) -> None:
    """The client went away without the answer."""
    await connection.execute(_CUT_OFF, {"job_id": job_id})
