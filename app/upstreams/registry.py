"""The adapters by name: every module in `vendors` is one, by being there."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from app.upstreams import vendors
from app.upstreams.contract import Adapter


class UnknownAdapter(LookupError):
    """No vendor module has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no adapter {name!r}; there are {', '.join(sorted(adapter_names()))}")


def adapter_names() -> frozenset[str]:
    """Return the names that a catalog may give under `adapter`."""
    return frozenset(_adapters())


def adapter(name: str) -> Adapter:
    """Return the adapter of that name; the same object every time.

    Raises:
        UnknownAdapter: no vendor module has this name.
    """
    try:
        return _adapters()[name]
    except KeyError as exc:
        raise UnknownAdapter(name) from exc


@cache
def _adapters() -> Mapping[str, Adapter]:
    return {
        module.name: importlib.import_module(f"{vendors.__name__}.{module.name}").ADAPTER
        for module in pkgutil.iter_modules(vendors.__path__)
    }
