"""The address that `serve` listens on: free before the start, answering after it."""

import errno
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from app.cli.errors import CommandFailed

_PAUSE_S: Final = 0.05
_LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - recognised only


def check_free(host: str, port: int, setting: str) -> None:
    """Make sure that this process may listen there.

    Args:
        host: a name or an address of this machine.
        port: the TCP port.
        setting: the variable to name when the port is taken.

    Raises:
        CommandFailed: the port is taken or forbidden, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server does, so that connections that are still closing do not count as a listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as exc:
        raise CommandFailed(f"{host!r} is no address of this machine. Set DARKROOM_HOST to one.") from exc
    except OSError as exc:
        raise CommandFailed(_reason(exc, host, port, setting)) from exc


def when_listening(host: str, port: int, act: Callable[[], None]) -> None:
    """Call `act` once, from a thread of its own, as soon as connections to this address are taken."""
    address = (_LOOPBACKS.get(host, host), port)
    threading.Thread(target=_wait, args=(address, act), name="announcer", daemon=True).start()


def _wait(address: tuple[str, int], act: Callable[[], None]) -> None:
    while True:
        try:
            socket.create_connection(address, timeout=1.0).close()
        except OSError:
            time.sleep(_PAUSE_S)
        else:
            act()
            return


def _reason(exc: OSError, host: str, port: int, setting: str) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            return (
                f"Port {port} on {host} is taken by another program, perhaps another Darkroom. Stop that one, or set "
                f"{setting} to another port: {setting}={_another(port, setting, host)} darkroom serve"
            )
        case errno.EACCES:
            return f"Port {port} is reserved for the system. Set {setting} to a port from 1024 up."
        case _:
            return f"{host!r} is no address of this machine ({exc.strerror}). Set DARKROOM_HOST to one."


def _another(port: int, setting: str, host: str) -> str:
    other = str(port + 1 if port < 65535 else 8080)
    return other if setting == "DARKROOM_PORT" else f"{host}:{other}"
