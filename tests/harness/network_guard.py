"""Stops a test that reaches beyond loopback, by name or by address, before a packet leaves.

It sees what goes through Python's sockets in this process; libraries with sockets of their own and child processes
are not covered.
"""

import ipaddress
import socket
import sys
from collections.abc import Collection
from typing import Any, Final

_LOOK_UPS: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
_SENDS: Final = frozenset({"socket.connect", "socket.sendto"})


class BeyondLoopback(Exception):
    """A test tried to reach another machine. Not an OSError, so that no retry or fallback takes it for an outage."""


class NetworkGuard:
    """An audit hook; once installed it stays for the life of the process."""

    def __init__(self, also_allowed: Collection[str] = ()) -> None:
        """`also_allowed`: host names of test servers that the environment names; what they resolve to is allowed."""
        self._hosts = set(also_allowed)

    def install(self) -> None:
        """From now on, a connection or look-up beyond loopback raises BeyondLoopback."""
        for host in tuple(self._hosts):
            self._hosts |= addresses_of(host)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _SENDS:
            address = arguments[1]
            # A path or an abstract name is a socket of this machine.
            if isinstance(address, tuple) and not self._is_near(address[0]):
                raise BeyondLoopback(
                    f"a test tried to reach {address[0]!r}; serve what it needs on 127.0.0.1"
                )
        elif event in _LOOK_UPS:
            host = arguments[0]
            if host and not self._is_literal(host) and not self._is_near(host):
                raise BeyondLoopback(f"a test tried to look up {host!r}; hand the code a resolver of its own")

    def _is_near(self, host: object) -> bool:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name in self._hosts or name in {"", "localhost", "0.0.0.0", "::"} or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name.partition("%")[0]).is_loopback
        except ValueError:
            return False

    @staticmethod
    def _is_literal(host: object) -> bool:
        try:
            ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host).partition("%")[0])
        except ValueError:
            return False
        return True


def addresses_of(host: str) -> set[str]:
    """The addresses that a name stands for now."""
    return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
