"""The vendors' keys: read from the environment once, kept apart from the catalog, which holds no secrets."""

from collections.abc import Mapping

from app.catalog.entries import Upstream


class Keyring:
    """Which upstreams have a key, and what it is. Its repr shows no key."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def add(self, variables: Mapping[str, str]) -> None:
        """Learn further variables, which a new catalog names."""
        self._variables = {**self._variables, **variables}

    def key(self, upstream: Upstream) -> str | None:
        """The upstream's key; None when it needs none or has none."""
        return self._variables.get(upstream.api_key_env or "") or None

    def missing(self, upstream: Upstream) -> str | None:
        """The name of the variable that would turn this upstream on; None when it is on."""
        if upstream.api_key_env is None or self.key(upstream) is not None:
            return None
        return upstream.api_key_env
