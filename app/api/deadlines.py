"""uvicorn's HTTP protocol with deadlines for what a client sends, and with bounds on how many connections it holds;
uvicorn itself would wait for ever, for everybody.

Only receiving is bounded: once the request is in, its answer may take minutes.
"""

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.connections import Connections
from app.api.resets import tell_reset
from app.kit.addresses import Network

MAX_HEADER_BYTES: Final = 16 * 1024
"""For uvicorn's `h11_max_incomplete_event_size`."""
_LONGEST_BODY_BYTES: Final = 200_000_000


class DeadlineH11(H11Protocol):
    """For `uvicorn.Config(http=DeadlineH11, ws="none")`: a client that dawdles is cut off, without an answer."""

    headers_within_s: ClassVar[float] = 5.0
    """From the connection's first moment, or a following request's first byte, to the end of its headers."""
    body_within_s: ClassVar[float] = 30.0
    """From the headers to the end of an empty body; a body's size adds to it."""
    slowest_bytes_per_s: ClassVar[float] = 1_000_000.0
    connections_held: ClassVar[Connections] = Connections()
    """Those of the server; by default of all in this process."""

    _deadline: asyncio.TimerHandle | None = None
    _counted: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start the clock; a connection that says nothing, or is one too many of its client, is not kept."""
        super().connection_made(transport)
        address = "" if self.client is None else self.client[0]
        if self.connections_held.counts(address):
            if not self.connections_held.take(address):
                transport.abort()
                return
            self._counted = address
        self._cut_off_in(self.headers_within_s)

    def data_received(self, data: bytes) -> None:
        """Take what came, and move the deadline on when a stage of the request is complete."""
        before = self.conn.their_state
        super().data_received(data)
        match self.conn.their_state:
            case h11.SEND_BODY if before is not h11.SEND_BODY:
                self._cut_off_in(self.body_within_s + self._announced_bytes() / self.slowest_bytes_per_s)
            # A body that was still coming when its request had been answered, or a following request.
            case h11.IDLE if before is not h11.IDLE or (
                self._deadline is None and self._has_partial_request()
            ):
                self._cut_off_in(self.headers_within_s)
            case h11.SEND_BODY | h11.IDLE:
                return
            case _:
                self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline together with the connection, and tell whom it concerns that it was reset."""
        self._stop_clock()
        if isinstance(exc, ConnectionError) and self.cycle is not None:
            tell_reset(self.scope["state"])
        if self._counted is not None:
            self.connections_held.give_back(self._counted)
            self._counted = None
        super().connection_lost(exc)

    def _has_partial_request(self) -> bool:
        return bool(self.conn.trailing_data[0])

    def _announced_bytes(self) -> int:
        given = next((value for name, value in self.headers if name == b"content-length"), b"")
        # A body in chunks does not say how long it is.
        return int(given) if given.isdigit() else _LONGEST_BODY_BYTES

    def _cut_off_in(self, seconds: float) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def bounded(proxies: Sequence[Network]) -> type[DeadlineH11]:
    """The protocol for a gateway behind these proxies, each of which stands for many clients."""
    return type("BoundedH11", (DeadlineH11,), {"connections_held": Connections(proxies=proxies)})
