"""The catalog in force, and the earlier ones that running jobs began with.

A catalog is replaced as a whole and never changed, so that a reader never sees a mixture of two.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from app.catalog.entries import Catalog

_KEPT: Final = 32
"""Earlier catalogs at hand; one that is wanted after so many changes is fetched."""


class CurrentCatalog:
    """Holds the catalog that new requests are served from, and finds those of running jobs."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        fetch: Callable[[str], Awaitable[Catalog | None]] | None = None,
        on_change: Callable[[Catalog], None] | None = None,
    ) -> None:
        """Put the first catalog in force.

        Args:
            catalog: the first one.
            fetch: finds a catalog by its version, elsewhere; None when there is none.
            on_change: told of each catalog right before it is put in force, the first one not included.
        """
        self._catalog = catalog
        self._known = {catalog.version: catalog}
        self._fetch = fetch
        self._on_change = on_change

    def get(self) -> Catalog:
        """The catalog in force at this moment."""
        return self._catalog

    def replace(self, catalog: Catalog) -> None:
        """Put another catalog in force, for requests from now on."""
        if self._on_change is not None:
            self._on_change(catalog)
        self._keep(catalog)
        self._catalog = catalog

    async def version(self, version: str) -> Catalog:
        """The catalog of this version; the one in force when nobody knows that version any more.

        Whatever `fetch` raises passes.
        """
        if version not in self._known and self._fetch is not None:
            found = await self._fetch(version)
            if found is not None:
                self._keep(found)
        return self._known.get(version, self._catalog)

    def _keep(self, catalog: Catalog) -> None:
        self._known.pop(catalog.version, None)
        self._known[catalog.version] = catalog
        while len(self._known) > _KEPT:
            oldest = next(version for version in self._known if version != self._catalog.version)
            del self._known[oldest]
