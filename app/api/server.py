"""The server behind every listener of a process, with the bounds that all of them have."""

import contextlib
from collections.abc import Sequence
from typing import Final

import uvicorn
from fastapi import FastAPI

from app.api.deadlines import bounded
from app.kit.addresses import Network

_HEADER_BYTES: Final = 16_384
_CLOSE_WITHIN_S: Final = 20
"""How long answers that are being written may take once the process stops; held calls end at once."""


def server_of(app: FastAPI, host: str, port: int, proxies: Sequence[Network] = ()) -> uvicorn.Server:
    """Build a server that runs until `should_exit` is set, and leaves signals to its process.

    `proxies` are believed when they say for whom they ask.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=bounded(proxies),
        ws="none",
        lifespan="off",
        # Not uvicorn's default, which believes whatever comes from this machine.
        proxy_headers=bool(proxies),
        forwarded_allow_ips=[str(network) for network in proxies],
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
