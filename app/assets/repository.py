"""Every query on assets. Each function takes the caller's connection and commits nothing."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import (
    bindparam,
    case,
    delete,
    exists,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)

from app.assets.records import MADE, OUTPUT, Asset, AssetKind, Picture, asset_from
from app.db.connection import Connection, built_once, of_few_lengths
from app.db.engine import row_values
from app.db.tables.assets import assets
from app.db.tables.attempts import attempts
from app.db.tables.jobs import jobs
from app.db.types import Instant, from_now, now

LATE_LIFE: Final = timedelta(days=1)
"""How long a picture is kept at least that its job ended without: nobody expects it, so nobody hurries to fetch it."""

# Built once: every look at a job asks it.
_OF_JOBS: Final = built_once(
    select(assets)
    .where(
        assets.c.job_id.in_(bindparam("job_ids", expanding=True)),
        assets.c.kind.in_(bindparam("kinds", expanding=True)),
    )
    .order_by(assets.c.job_id, assets.c.index, assets.c.id)
)
_LIVING_OF_JOBS: Final = built_once(_OF_JOBS.where(assets.c.expires_at > now()))
_INSERT: Final = built_once(insert(assets))


async def insert_assets(
    connection: Connection,
    pictures: Sequence[Picture],
    *,
    kind: AssetKind,
    team_id: str,
    job_id: str | None,
    attempt_id: str | None,
    expires_at: datetime,
    first_index: int = 0,
    purpose: str = "vision",
    filename: str | None = None,
) -> None:
    """Write the rows of pictures that are in storage already, numbered from `first_index`.

    `filename` is what the client called it; None gives each a name of ours.
    """
    if not pictures:
        return
    rows = [
        {
            "id": picture.file_id,
            "team_id": team_id,
            "kind": kind.value,
            "job_id": job_id,
            "attempt_id": attempt_id,
            "index": index,
            "key": picture.key,
            "filename": filename or f"{picture.file_id}{picture.format.suffix}",
            "purpose": purpose,
            "format": picture.format.value,
            "width_px": picture.width_px,
            "height_px": picture.height_px,
            "size_bytes": picture.size_bytes,
            "sha256": picture.sha256,
            "expires_at": expires_at,
        }
        for index, picture in enumerate(pictures, start=first_index)
    ]
    for row in rows:
        await connection.execute(_INSERT, row)


async def assets_of_jobs(
    connection: Connection, job_ids: Sequence[str], kinds: Sequence[AssetKind], *, living: bool = False
) -> list[Asset]:
    """Read the pictures of these jobs, in each job's own order; `living`: only those that have not expired."""
    wanted = {"job_ids": of_few_lengths(job_ids), "kinds": [kind.value for kind in kinds]}
    query = _LIVING_OF_JOBS if living else _OF_JOBS
    return [asset_from(row_values(row)) for row in await connection.execute(query, wanted)]


async def find_asset(connection: Connection, file_id: str, *, team_id: str | None) -> Asset | None:
    """Read a picture of a team that has not expired; `team_id` None is for the engine and for signed links."""
    query = select(assets).where(assets.c.id == file_id, assets.c.expires_at > now())
    if team_id is not None:
        query = query.where(assets.c.team_id == team_id)
    row = (await connection.execute(query)).first()
    return None if row is None else asset_from(row_values(row))


async def search_assets(
    connection: Connection,
    team_id: str,
    *,
    purpose: str | None,
    after: Asset | None,
    limit: int,
    oldest_first: bool = False,
) -> list[Asset]:
    """Read up to `limit` files of a team that have not expired; inputs of jobs and coarse pictures are no files.

    `purpose` is the one that a file is shown with. `after` is the last file of the page before, in the same order.
    """
    made = [kind.value for kind in MADE if kind is not AssetKind.PARTIAL]
    shown = {None: [*made, AssetKind.UPLOAD.value], OUTPUT: made}.get(purpose, [AssetKind.UPLOAD.value])
    place = (assets.c.created_at, assets.c.id)
    query = (
        select(assets)
        .where(assets.c.team_id == team_id, assets.c.expires_at > now(), assets.c.kind.in_(shown))
        .order_by(*(column.asc() if oldest_first else column.desc() for column in place))
        .limit(limit)
    )
    if purpose not in (None, OUTPUT):
        query = query.where(assets.c.purpose == purpose)
    if after is not None:
        here, there = tuple_(*place), tuple_(literal(after.created_at, Instant), literal(after.id))
        query = query.where(here > there if oldest_first else here < there)
    return [asset_from(row_values(row)) for row in await connection.execute(query)]


async def move_to_late(connection: Connection, job_id: str, *, but: Sequence[str] = ()) -> None:
    """Keep what was made for a job that ends without it; `but` names the files that it ends with."""
    made = (assets.c.job_id == job_id, assets.c.kind == AssetKind.RESULT.value, assets.c.id.not_in(but))
    least = from_now(LATE_LIFE.total_seconds())
    expires_at = case((assets.c.expires_at < least, least), else_=assets.c.expires_at)
    await connection.execute(
        update(assets).where(*made).values(kind=AssetKind.LATE.value, expires_at=expires_at)
    )


async def prolong_results(connection: Connection, job_id: str, expires_at: datetime) -> None:
    """Keep the pictures that a job is about to end with until then."""
    made = (assets.c.job_id == job_id, assets.c.kind == AssetKind.RESULT.value)
    await connection.execute(update(assets).where(*made).values(expires_at=expires_at))


async def hand_on_inputs(connection: Connection, job_id: str, to_job_id: str, *, expires_at: datetime) -> int:
    """Give the inputs of a job that is final to another one; how many of them are still there."""
    inputs = (assets.c.job_id == job_id, assets.c.kind == literal_column("'input'"))
    statement = update(assets).where(*inputs).values(job_id=to_job_id, expires_at=expires_at)
    return len((await connection.execute(statement.returning(assets.c.id))).all())


async def expired_assets(connection: Connection, *, limit: int) -> list[Asset]:
    """Read up to `limit` pictures past their life, oldest first; those of a job that is not final are still wanted."""
    is_wanted = exists().where(jobs.c.id == assets.c.job_id, jobs.c.finished_at.is_(None))
    query = (
        select(assets)
        .where(assets.c.expires_at <= now(), ~is_wanted)
        .order_by(assets.c.expires_at)
        .limit(limit)
    )
    return [asset_from(row_values(row)) for row in await connection.execute(query)]


async def delete_assets(connection: Connection, file_ids: Sequence[str], *, team_id: str | None) -> None:
    """Forget pictures of a team whose bytes are gone from storage; `team_id` None is for retention."""
    statement = delete(assets).where(assets.c.id.in_(file_ids))
    if team_id is not None:
        statement = statement.where(assets.c.team_id == team_id)
    await connection.execute(statement)


async def finished_inputs(connection: Connection, *, limit: int) -> list[Asset]:
    """Read up to `limit` inputs of jobs that are final and followed no more."""
    open_attempt = exists().where(attempts.c.job_id == jobs.c.id, attempts.c.finished_at.is_(None))
    query = (
        select(assets)
        .join(jobs, jobs.c.id == assets.c.job_id)
        # Written out, for the index of inputs to serve a prepared statement.
        .where(assets.c.kind == literal_column("'input'"), jobs.c.finished_at.is_not(None), ~open_attempt)
        .limit(limit)
    )
    return [asset_from(row_values(row)) for row in await connection.execute(query)]
