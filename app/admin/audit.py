"""The audit log: who did what, to what, what it was before and is since. Written in the transaction of the act.

No secret is ever in it: what is written down is what lists show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from fastapi import Request

from app.admin import repository
from app.admin.errors import EntryNotFound
from app.admin.records import AuditEntry
from app.api.authentication import caller_of
from app.db.connection import Connection
from app.db.engine import Database
from app.db.witness import Witness
from app.kit.ids import new_id
from app.kit.json import JsonObject

T = TypeVar("T")


PROCESS: Final = "process:"
"""Begins the id of an actor that is a process of the gateway, not a key."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts."""

    id: str
    """The key that was used, or a process."""
    request_id: str | None = None


def actor_of(request: Request) -> Actor:
    """The operator whose request this is."""
    return Actor(caller_of(request).api_key_id, request.scope["state"].get("request_id"))


def process_actor(name: str) -> Actor:
    """A process that does what a signal told it."""
    return Actor(f"{PROCESS}{name}")


class Audit:
    """Writes entries and shows them. Entries are never changed; the database refuses to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def witness(
        self,
        by: Request | Actor,
        action: str,
        *,
        subject: Callable[[T], str],
        render: Callable[[T], JsonObject],
    ) -> Witness[T]:
        """What writes one act down in its own transaction.

        Args:
            by: who acts; of a request, its caller.
            action: what is done, in the past tense.
            subject: the id or the name of what is acted on.
            render: the form in which it is kept; without secrets.
        """

        async def write(connection: Connection, before: T | None, after: T | None) -> None:
            acted_on = after if after is not None else before
            if acted_on is None:
                raise ValueError(f"{action}: neither before nor after")
            await self.write(
                connection,
                by,
                action,
                subject(acted_on),
                before=None if before is None else render(before),
                after=None if after is None else render(after),
            )

        return write

    async def write(
        self,
        connection: Connection,
        by: Request | Actor,
        action: str,
        subject: str,
        *,
        before: JsonObject | None = None,
        after: JsonObject | None = None,
    ) -> None:
        """Write an act down in the transaction of `connection`."""
        actor = actor_of(by) if isinstance(by, Request) else by
        values = {
            "id": new_id("audit"),
            "actor_id": actor.id,
            "action": action,
            "object": subject,
            "before": before,
            "after": after,
            "request_id": actor.request_id,
        }
        await repository.insert_entry(connection, values)

    async def note(
        self,
        by: Request | Actor,
        action: str,
        subject: str,
        *,
        before: JsonObject | None = None,
        after: JsonObject | None = None,
    ) -> None:
        """Write an act down that has no transaction, or not one."""
        async with self._database.transaction() as connection:
            await self.write(connection, by, action, subject, before=before, after=after)

    async def list(
        self, *, subject: str | None = None, after: str | None = None, limit: int = 20
    ) -> tuple[Sequence[AuditEntry], bool]:
        """Look at up to `limit` entries, newest first, of one object or of all; and whether there are more.

        Raises:
            EntryNotFound: `after` is no entry.
        """
        async with self._database.reading() as connection:
            if after is not None and not await repository.has_entry(connection, after):
                raise EntryNotFound(f"There is no audit entry {after!r}.", param="after")
            found = await repository.list_entries(connection, subject=subject, after=after, limit=limit + 1)
        return found[:limit], len(found) > limit
