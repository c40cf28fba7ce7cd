"""Logs of a whole gateway, to be searched for what may not be in them."""

import contextlib
import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.kit.telemetry import configure_logging


@pytest.fixture
def talkative() -> Iterator[io.StringIO]:
    """Logs as in production, at the level `debug`."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # Libraries, too, may say whatever they like, but those by which this test itself is a client.
    before = {name: item.level for name, item in _loggers().items()}
    with contextlib.redirect_stderr(io.StringIO()) as log:
        configure_logging("json", "debug")
    for name in ("httpx2", "httpcore2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yield log
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, was in before.items():
        logging.getLogger(name).setLevel(was)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _loggers() -> dict[str, logging.Logger]:
    known = logging.getLogger().manager.loggerDict
    return {name: item for name, item in known.items() if isinstance(item, logging.Logger)}
