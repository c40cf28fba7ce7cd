"""What a repository is handed: something that runs one statement after the other, on whichever database there is."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from sqlalchemy import Dialect, Executable, Result
from sqlalchemy.sql.selectable import TypedReturnsRows

T = TypeVar("T", bound=tuple[Any, ...])
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
