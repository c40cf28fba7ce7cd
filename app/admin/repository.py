"""Every query on the audit log. Each function takes the caller's connection and commits nothing."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, insert, literal, or_, select, tuple_

from app.admin.records import AuditEntry
from app.db.connection import Connection
from app.db.engine import row_values
from app.db.tables.api_keys import api_keys
from app.db.tables.audit_entries import audit_entries


async def insert_entry(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write an entry, with the name that the actor's key has now."""
    name = select(api_keys.c.name).where(api_keys.c.id == values["actor_id"]).scalar_subquery()
    await connection.execute(insert(audit_entries).values(**values, actor_name=name))


async def has_entry(connection: Connection, entry_id: str) -> bool:
    """Whether there is such an entry."""
    query = select(audit_entries.c.id).where(audit_entries.c.id == entry_id)
    return (await connection.execute(query)).first() is not None


async def list_entries(
    connection: Connection, *, subject: str | None, after: str | None, limit: int
) -> list[AuditEntry]:
    """Read up to `limit` entries, newest first, beginning after the entry `after`; of one object, or of all (None).

    A rotation puts a key in the place of another: it is found by both.
    """
    table = audit_entries
    query = select(table).order_by(table.c.at.desc(), table.c.id.desc()).limit(limit)
    if subject is not None:
        replaced = and_(table.c.action == "key.rotated", table.c.before["id"].as_string() == subject)
        query = query.where(or_(table.c.object == subject, replaced))
    if after is not None:
        began = select(table.c.at).where(table.c.id == after).scalar_subquery()
        query = query.where(tuple_(table.c.at, table.c.id) < tuple_(began, literal(after)))
    rows = [row_values(row) for row in await connection.execute(query)]
    return [AuditEntry(**{name: row[name] for name in AuditEntry.__slots__}) for row in rows]
