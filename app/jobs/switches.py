"""Every query on the switches that operators share between all processes. Each takes the caller's connection."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert as upsert_on_postgres
from sqlalchemy.dialects.sqlite import insert as upsert_on_sqlite

from app.db.connection import Connection, built_once
from app.db.tables.switches import switches
from app.db.types import now

MAINTENANCE: Final = "maintenance"
"""While it is on, no new job is taken in."""


_SWITCH: Final = built_once(
    select(switches.c.is_on, switches.c.changed_at).where(switches.c.name == bindparam("name"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One row of `switches`; one that was never used is off."""

    is_on: bool
    changed_at: datetime | None


async def read(connection: Connection, name: str) -> Switch:
    """How a switch stands."""
    row = (await connection.execute(_SWITCH, {"name": name})).first()
    return Switch(is_on=False, changed_at=None) if row is None else Switch(is_on=row[0], changed_at=row[1])


async def turn(connection: Connection, name: str, *, is_on: bool) -> None:
    """Turn a switch; one that stands so already keeps its time."""
    upsert = upsert_on_sqlite if connection.dialect.name == "sqlite" else upsert_on_postgres
    values = {"is_on": is_on, "changed_at": now()}
    statement = upsert(switches).values(name=name, **values)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_=values, where=switches.c.is_on.is_not(is_on)
        )
    )
