"""What a repository is handed: something that runs one statement after the other, on whichever database there is."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, overload

from sqlalchemy import Dialect, Executable, Result
from sqlalchemy.sql.selectable import TypedReturnsRows

T = TypeVar("T", bound=tuple[Any, ...])
S = TypeVar("S", bound=Executable)
V = TypeVar("V")
Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Connection(Protocol):
    """A connection lent for one transaction, or for a look."""

    @property
    def dialect(self) -> Dialect:
        """Which SQL it speaks; its `name` is `postgresql` or `sqlite`."""
        ...

    @overload
    async def execute(
        self, statement: TypedReturnsRows[T], parameters: Parameters | None = None, /
    ) -> Result[T]: ...

    @overload
    async def execute(
        self, statement: Executable, parameters: Parameters | None = None, /
    ) -> Result[Any]: ...

    async def execute(self, statement: Executable, parameters: Parameters | None = None, /) -> Result[Any]:
        """Run a statement of SQLAlchemy's Core; with several sets of parameters, once for each and without rows."""
        ...


_BUILT_ONCE: Final[dict[int, Executable]] = {}


def of_few_lengths(values: Sequence[V]) -> Sequence[V]:
    """The same values for an `IN`, the last of them repeated until they are 1, 2, 4, 8, … long.

    Each length is a statement of its own, which every connection of the pool has to prepare.
    """
    missing = (1 << max(len(values) - 1, 0).bit_length()) - len(values)
    return [*values, *[values[-1]] * missing] if values else values


def built_once(statement: S) -> S:
    """Mark a statement that is built when its module is read, so that what it compiles to is kept with it.

    Every value that it takes is a `bindparam`, and each call names the same ones.
    """
    _BUILT_ONCE[id(statement)] = statement
    return statement


def is_built_once(statement: Executable) -> bool:
    """Whether a statement is one that stays as it is."""
    return id(statement) in _BUILT_ONCE
