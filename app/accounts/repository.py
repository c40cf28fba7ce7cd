"""Every query on teams and API keys. Each function takes the caller's connection and commits nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, case, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite

from app.accounts.records import ApiKey, Team, key_from, team_from
from app.db.connection import Connection, built_once
from app.db.engine import row_values
from app.db.tables.api_keys import api_keys
from app.db.tables.switches import switches
from app.db.tables.teams import teams
from app.db.types import from_now, now
from app.kit.json import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key as authentication needs it, with the database's time of the look."""

    key: ApiKey
    lookup: str
    digest: bytes
    digested_by: str | None
    """The name of the pepper; None: nobody has looked yet."""
    at: datetime


_LIMITS_OF: Final = built_once(
    select(
        select(teams.c.limits).where(teams.c.id == bindparam("team_id")).scalar_subquery().label("team"),
        select(api_keys.c.limits)
        .where(api_keys.c.id == bindparam("api_key_id"))
        .scalar_subquery()
        .label("key"),
        select(api_keys.c.line_id)
        .where(api_keys.c.id == bindparam("api_key_id"))
        .scalar_subquery()
        .label("line_id"),
        now().label("at"),
    )
)


async def keys_by_lookup(connection: Connection, lookups: Sequence[str]) -> list[StoredKey]:
    """Read the keys with any of these lookups, revoked and expired ones too."""
    query = select(api_keys, now().label("at")).where(api_keys.c.lookup.in_(lookups))
    return [
        StoredKey(
            key=key_from(row_values(row)),
            lookup=row.lookup,
            digest=row.digest,
            digested_by=row.digested_by,
            at=row.at,
        )
        for row in await connection.execute(query)
    ]


async def limits_of(
    connection: Connection, team_id: str, api_key_id: str
) -> tuple[Mapping[str, Json], Mapping[str, Json], str, datetime]:
    """Read the limits of a team and of one of its keys, whose line that is, and the database's time.

    Limits are empty for what is not there.
    """
    row = (await connection.execute(_LIMITS_OF, {"team_id": team_id, "api_key_id": api_key_id})).one()
    return row.team or {}, row.key or {}, row.line_id or api_key_id, row.at


async def put_team(connection: Connection, team_id: str, name: str) -> None:
    """Write a team unless it is there."""
    row = {"id": team_id, "name": name, "limits": {}}
    await connection.execute(_upsert(connection, teams).values(row).on_conflict_do_nothing())


async def put_key(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write a key, in the place of the one that had its lookup, and whose life it does not take over."""
    replaced = {
        "digest": values["digest"],
        "digested_by": values["digested_by"],
        "hint": values["hint"],
        "revoked_at": None,
        "expires_at": None,
    }
    statement = _upsert(connection, api_keys).values(**values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["lookup"], set_=replaced))


async def digest_anew(connection: Connection, stored: StoredKey, digest: bytes, digested_by: str) -> None:
    """Keep a key under another digest, unless somebody else has done so."""
    same = (api_keys.c.id == stored.key.id, api_keys.c.digest == stored.digest)
    await connection.execute(update(api_keys).where(*same).values(digest=digest, digested_by=digested_by))


async def known_everywhere(connection: Connection, peppers: Sequence[str]) -> set[str]:
    """Those of these peppers that every process has, by an operator's word."""
    names = {_switch(name): name for name in peppers}
    query = select(switches.c.name).where(switches.c.name.in_(names), switches.c.is_on)
    return {names[name] for name in (await connection.execute(query)).scalars()}


async def note_known_everywhere(connection: Connection, pepper: str) -> None:
    """Keep the operator's word that every process has this pepper."""
    statement = _upsert(connection, switches).values(name=_switch(pepper), is_on=True)
    await connection.execute(statement.on_conflict_do_nothing())


async def count_digested_otherwise(connection: Connection, pepper: str) -> int:
    """How many keys that still work are not known to be digested with this pepper."""
    query = select(func.count()).where(
        api_keys.c.digested_by.is_distinct_from(pepper),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
    )
    return int((await connection.execute(query)).scalar_one())


async def count_digested_by_none(
    connection: Connection, peppers: Sequence[str], *, but: Sequence[str]
) -> int:
    """How many keys that still work are digested with none of these peppers; those with a lookup of `but` aside."""
    query = select(func.count()).where(
        api_keys.c.digested_by.not_in(peppers),
        api_keys.c.lookup.not_in(but),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
    )
    return int((await connection.execute(query)).scalar_one())


def _switch(pepper: str) -> str:
    return f"api_keys:{pepper}"


async def insert_team(connection: Connection, values: Mapping[str, Any]) -> Team | None:
    """Write a new team; None when its name is taken."""
    statement = _upsert(connection, teams).values(**values).on_conflict_do_nothing().returning(*teams.c)
    row = (await connection.execute(statement)).first()
    return None if row is None else team_from(row_values(row))


async def insert_key(connection: Connection, values: Mapping[str, Any]) -> ApiKey:
    """Write a new key."""
    statement = _upsert(connection, api_keys).values(**values).returning(*api_keys.c)
    return key_from(row_values((await connection.execute(statement)).one()))


async def find_team(connection: Connection, team_id: str, *, is_to_change: bool = False) -> Team | None:
    """Read a team; one that is to change is locked until the transaction ends."""
    query = select(teams).where(teams.c.id == team_id)
    row = (await connection.execute(query.with_for_update() if is_to_change else query)).first()
    return None if row is None else team_from(row_values(row))


async def find_key(connection: Connection, key_id: str, *, is_to_change: bool = False) -> ApiKey | None:
    """Read a key; one that is to change is locked until the transaction ends."""
    query = select(api_keys).where(api_keys.c.id == key_id)
    row = (await connection.execute(query.with_for_update() if is_to_change else query)).first()
    return None if row is None else key_from(row_values(row))


async def list_teams(connection: Connection, *, after: str | None, limit: int) -> list[Team]:
    """Read up to `limit` teams, newest first, beginning after the team `after`."""
    query = select(teams).order_by(teams.c.created_at.desc(), teams.c.id.desc()).limit(limit)
    if after is not None:
        began = select(teams.c.created_at).where(teams.c.id == after).scalar_subquery()
        query = query.where(tuple_(teams.c.created_at, teams.c.id) < tuple_(began, literal(after)))
    return [team_from(row_values(row)) for row in await connection.execute(query)]


async def list_keys(
    connection: Connection, team_id: str | None, *, after: str | None, limit: int
) -> list[ApiKey]:
    """Read up to `limit` keys of a team, or of all (None), newest first, beginning after the key `after`."""
    query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc()).limit(limit)
    if team_id is not None:
        query = query.where(api_keys.c.team_id == team_id)
    if after is not None:
        began = select(api_keys.c.created_at).where(api_keys.c.id == after).scalar_subquery()
        query = query.where(tuple_(api_keys.c.created_at, api_keys.c.id) < tuple_(began, literal(after)))
    return [key_from(row_values(row)) for row in await connection.execute(query)]


async def is_name_taken(connection: Connection, name: str, *, but: str) -> bool:
    """Whether a team other than `but` has this name."""
    query = select(teams.c.id).where(teams.c.name == name, teams.c.id != but)
    return (await connection.execute(query)).first() is not None


async def update_team(connection: Connection, team_id: str, values: Mapping[str, Any]) -> Team:
    """Change a team that is there."""
    statement = update(teams).where(teams.c.id == team_id).values(**values).returning(*teams.c)
    return team_from(row_values((await connection.execute(statement)).one()))


async def update_key(connection: Connection, key_id: str, values: Mapping[str, Any]) -> ApiKey:
    """Change a key that is there."""
    statement = update(api_keys).where(api_keys.c.id == key_id).values(**values).returning(*api_keys.c)
    return key_from(row_values((await connection.execute(statement)).one()))


async def lookup_of_key(connection: Connection, key_id: str) -> str | None:
    """What a key is found by; None when there is no such key."""
    query = select(api_keys.c.lookup).where(api_keys.c.id == key_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def time(connection: Connection) -> datetime:
    """The database's time."""
    at: datetime = (await connection.execute(select(now().label("at")))).scalar_one()
    return at


async def expire_key(connection: Connection, key_id: str, *, in_s: float) -> ApiKey | None:
    """Let a key that is alive expire in `in_s` seconds, or earlier if it does already; None: it is not alive."""
    ends_at = from_now(in_s)
    alive = (
        api_keys.c.id == key_id,
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
    )
    earlier = case((api_keys.c.expires_at < ends_at, api_keys.c.expires_at), else_=ends_at)
    statement = update(api_keys).where(*alive).values(expires_at=earlier).returning(*api_keys.c)
    row = (await connection.execute(statement)).first()
    return None if row is None else key_from(row_values(row))


async def revoke(connection: Connection, key_id: str) -> None:
    """End a key's life; the moment of an earlier revocation stands."""
    alive = (api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    await connection.execute(update(api_keys).where(*alive).values(revoked_at=now()))


def _upsert(connection: Connection, table: Any) -> Any:
    dialect_insert = upsert_on_sqlite if connection.dialect.name == "sqlite" else upsert_on_postgres
    return dialect_insert(table)
