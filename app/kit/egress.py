"""The egress guard: a network backend that opens connections to judged addresses only.

It sits below TLS and pooling, so certificates, SNI and the Host header stay those of the URL, every redirect and
reused connection passes it, and there is no second look-up that could answer otherwise.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Final, TypeAlias

import httpcore2

from app.kit.addresses import Network, is_named, is_reachable
from app.kit.tcp import Tcp

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> literal IP addresses, best first. Raises OSError where there are none."""

_DNS_TIMEOUT_S: Final = 5.0
_DIALLED_ADDRESSES: Final = 4


class Denied(httpcore2.ConnectError):
    """The guard's refusal, in the family that a connection pool expects of a network backend."""


class Guard(httpcore2.AsyncNetworkBackend):
    """Opens connections, to judged addresses only."""

    def __init__(
        self,
        resolver: Resolver,
        allow_networks: Sequence[Network],
        ports: frozenset[int] | None,
        trusted: tuple[str, int] | None,
    ) -> None:
        """`ports`: when given, no other is dialled. `trusted`: a host and port that may be anywhere."""
        self._resolver = resolver
        self._allow_networks = allow_networks
        self._ports = ports
        self._trusted = trusted
        self._tcp = Tcp()

    async def judged(self, host: str, port: int) -> list[str]:
        """Resolve a host and judge what it leads to; the addresses, best first. Nothing is dialled.

        Raises:
            Denied: the port or one of the addresses may not be reached.
            ConnectError, ConnectTimeout: the name leads nowhere.
        """
        is_trusted = (host, port) == self._trusted
        if self._ports is not None and port not in self._ports and not is_trusted:
            raise Denied(f"port {port} may not be reached")
        addresses = await self._addresses(host, port)
        # One bad address condemns the name: the next look-up could return that one alone.
        if not is_trusted and not all(is_reachable(address, self._allow_networks) for address in addresses):
            raise Denied(f"{host!r} leads to an address that may not be reached")
        return addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - none is ever named
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        is_trusted = (host, port) == self._trusted
        dialled = (await self.judged(host, port))[:_DIALLED_ADDRESSES]
        share_s = None if timeout is None else timeout / len(dialled)
        broken: Exception | None = None
        for address in dialled:
            try:
                stream = await self._tcp.connect(address, port, share_s, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                broken = exc
                continue
            if not is_trusted and not self._is_right_peer(stream):
                await stream.aclose()
                raise Denied(f"{host!r} leads to an address that may not be reached")
            return stream
        raise broken or httpcore2.ConnectError("no address")

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - refused whatever it is
        timeout: float | None = None,  # noqa: ARG002 - as above
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore2.AsyncNetworkStream:
        raise Denied("unix sockets may not be reached")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        if _is_literal(host):
            return [host]
        try:
            async with asyncio.timeout(_DNS_TIMEOUT_S):
                found = await self._resolver(host, port)
        except TimeoutError as exc:
            raise httpcore2.ConnectTimeout("the name server did not answer") from exc
        except (OSError, UnicodeError) as exc:
            raise httpcore2.ConnectError("the name could not be resolved") from exc
        if not found:
            raise httpcore2.ConnectError("the name has no address")
        return list(dict.fromkeys(found))

    def _is_right_peer(self, stream: httpcore2.AsyncNetworkStream) -> bool:
        peer, own = stream.get_extra_info("server_addr"), stream.get_extra_info("client_addr")
        if peer is None or is_named(peer[0], self._allow_networks):
            return True
        # A public address of this machine itself is dialled from that same address.
        return is_reachable(peer[0]) and (own is None or own[0] != peer[0])


def _is_literal(host: str) -> bool:
    """Whether a host is an address in its usual spelling, and needs no look-up."""
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return False
