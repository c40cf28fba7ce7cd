"""The server behind every listener of a process, with the bounds that all of them have."""

import contextlib
from typing import Final

import uvicorn
from fastapi import FastAPI

from app.api.deadlines import DeadlineH11

_HEADER_BYTES: Final = 16_384
_CLOSE_WITHIN_S: Final = 20
"""How long answers that are being written may take once the process stops; held calls end at once."""


def server_of(app: FastAPI, host: str, port: int) -> uvicorn.Server:
    """Build a server that runs until `should_exit` is set, and leaves signals to its process."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=DeadlineH11,
        ws="none",
        lifespan="off",
        server_header=False,
        access_log=False,
        log_config=None,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_graceful_shutdown=_CLOSE_WITHIN_S,
    )
    server = uvicorn.Server(config)
    # Our own handlers, not uvicorn's: it would end the process as soon as it has closed its connections.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    return server
