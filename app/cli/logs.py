"""Logs of the processes that serve. A module of its own, because what writes them is slow to load for a client."""

from collections.abc import Sequence

from app.kit.telemetry import configure_logging
from app.settings import Settings


def start_logging(settings: Settings, keys: Sequence[str]) -> None:
    """Send this process's logs to standard error; no line holds a secret of the settings or one of these `keys`."""
    configure_logging(settings.log_format, settings.log_level, secrets=(*settings.secret_values(), *keys))
