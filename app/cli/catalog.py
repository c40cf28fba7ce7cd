"""The catalog for commands: read, checked as far as its file allows, and summed up for people."""

from dataclasses import dataclass
from pathlib import Path

from app.catalog.embedded import SANDBOX, with_sandbox
from app.catalog.entries import Catalog
from app.catalog.errors import CatalogInvalid
from app.catalog.keys import Keyring
from app.catalog.loader import load_catalog
from app.settings import Settings
from app.upstreams.registry import adapter_names
from app.upstreams.sandbox.options import SandboxOptions, SandboxOptionsInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCatalog:
    """A catalog without mistakes, and the keys that the environment holds for it."""

    catalog: Catalog
    keys: Keyring
    """Which upstreams are on."""
    stand_ins: tuple[str, ...]
    """Models that the sandbox serves because no key can buy them; only on the embedded default."""

    @property
    def missing(self) -> dict[str, str]:
        """Upstreams that are off -> the variable that turns each on."""
        found = {name: self.keys.missing(upstream) for name, upstream in self.catalog.upstreams.items()}
        return {name: variable for name, variable in found.items() if variable is not None}

    @property
    def keys_in_use(self) -> tuple[str, ...]:
        """The vendors' keys themselves, so that logs can leave them out."""
        found = (self.keys.key(upstream) for upstream in self.catalog.upstreams.values())
        return tuple(key for key in found if key is not None)

    @property
    def unserved(self) -> tuple[str, ...]:
        """Models that nothing can serve: every route's upstream is off."""
        return tuple(
            model.name
            for model in self.catalog.models.values()
            if model.name not in self.stand_ins
            and all(route.upstream.name in self.missing for route in model.routes)
        )


class CatalogMistakes(Exception):
    """The catalog cannot be used; each mistake is a line with its place and its fix."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def check_catalog(path: Path, settings: Settings) -> CheckedCatalog:
    """Read and check a catalog file against these settings.

    Raises:
        CatalogMistakes: with every mistake.
    """
    try:
        catalog = load_catalog(path, adapter_names())
    except CatalogInvalid as exc:
        raise CatalogMistakes(tuple(str(mistake) for mistake in exc.mistakes)) from exc
    mistakes: list[str] = []
    for name, upstream in catalog.upstreams.items():
        if upstream.adapter == SANDBOX:
            try:
                SandboxOptions.parse(upstream.options)
            except SandboxOptionsInvalid as exc:
                mistakes.append(f"{path.name}: upstreams.{name}.{exc}")
    if mistakes:
        raise CatalogMistakes(tuple(mistakes))
    names = {upstream.api_key_env for upstream in catalog.upstreams.values() if upstream.api_key_env}
    keys = Keyring(settings.variables(names))
    stand_ins: tuple[str, ...] = ()
    if settings.is_embedded:
        filled = with_sandbox(catalog, lambda upstream: keys.missing(upstream) is None)
        stand_ins = tuple(name for name, model in filled.models.items() if model is not catalog.models[name])
    return CheckedCatalog(catalog=catalog, keys=keys, stand_ins=stand_ins)
