"""How an act is written down in the act's own transaction, by whoever asked for it."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from app.db.connection import Connection

T = TypeVar("T")

Witness: TypeAlias = Callable[[Connection, T | None, T | None], Awaitable[None]]
"""Called right before the commit with what was and what is; None where there was, or is, nothing."""


async def unwitnessed(_connection: Connection, _before: object, _after: object) -> None:
    """Write nothing down."""
