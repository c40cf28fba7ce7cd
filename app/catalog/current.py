"""The catalog in force: replaced as a whole and never changed, so that a reader never sees a mixture of two."""

from app.catalog.entries import Catalog


class CurrentCatalog:
    """Holds the catalog that new requests are served from."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def get(self) -> Catalog:
        """The catalog in force at this moment."""
        return self._catalog

    def replace(self, catalog: Catalog) -> None:
        """Put another catalog in force, for requests from now on."""
        self._catalog = catalog
