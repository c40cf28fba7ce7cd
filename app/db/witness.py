"""How an act is written down in the act's own transaction, by whoever asked for it."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")

Witness: TypeAlias = Callable[[AsyncConnection, T | None, T | None], Awaitable[None]]
"""Called right before the commit with what was and what is; None where there was, or is, nothing."""


async def unwitnessed(_connection: AsyncConnection, _before: object, _after: object) -> None:
    """Write nothing down."""
