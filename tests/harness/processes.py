"""Starting, freezing and ending the servers that tests run against, as root or as anyone, without leaving any."""

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

# Every wait here ends by then; a loaded machine with two cores needs about a second.
DEADLINE_S: Final = 30.0
_POLL_S: Final = 0.005

# Below what kernels hand out to outgoing connections, so that a restarted server finds its port free.
_PORTS: Final = range(20000, 32000)

# Becomes another user, asks the kernel to end it when its parent ends, then turns into the server. Done in a process
# of its own because Popen's preexec_fn is unsafe, and deprecated, where threads run.
_LAUNCHER: Final = """
import ctypes, os, sys
uid, gid, on_parents_death, parent = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, on_parents_death)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
os.execv(sys.argv[5], sys.argv[5:])
"""


class ServerUnavailable(Exception):
    """A test server cannot be had or did not do as told; the message says why, and what would work."""


@dataclass(frozen=True, slots=True)
class Account:
    """A system user that a server runs as."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The user for servers that refuse to be root; None when we are not root, and they can run as we do."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def free_port() -> int:
    """A loopback port that nobody listens on now; somebody else may take it first, so be ready to ask again."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerUnavailable("a hundred ports tried, none free")


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    account: Account | None,
    on_parents_death: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Start a server as a direct child with its output in `log`; it ends with this process, however that ends."""
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    facts = [str(fact) for fact in (uid, gid, int(on_parents_death), os.getpid())]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [*launcher, *facts, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the tests, which then stop their servers in order
            )

    return _spawner.run(start)


class _Spawner:
    """One thread for the life of the process: Linux ends a child when the thread that started it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Call `start` on the lasting thread and hand back what it started."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="test-servers", daemon=True)
                self._thread.start()
        answers: SimpleQueue[subprocess.Popen[bytes] | Exception] = SimpleQueue()

        def job() -> None:
            try:
                answers.put(start())
            except Exception as exc:  # noqa: BLE001 - raised again on the thread that asked
                answers.put(exc)

        self._jobs.put(job)
        answer = answers.get(timeout=DEADLINE_S)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _work(self) -> None:
        while True:
            self._jobs.get()()


_spawner = _Spawner()


def descendants(pid: int) -> list[int]:
    """The living processes below `pid`, parents first."""
    parents = _parents()
    found: list[int] = []
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found.extend(level)
    return found


def _parents() -> dict[int, int]:
    """Every process that is not a zombie, with its parent."""
    if sys.platform != "linux":
        command = ["/bin/ps", "-A", "-o", "pid=,ppid=,stat="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = (line.split() for line in listing.stdout.splitlines())
        return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may itself hold spaces and brackets: state, parent.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    return parents


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs (or is frozen); a zombie does not."""
    return pid in _parents()


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until(is_so: Callable[[], bool], what: str, *, timeout_s: float = DEADLINE_S) -> None:
    """Return once `is_so()` holds.

    Raises:
        ServerUnavailable: it does not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"waited {timeout_s} s in vain: {what}")
        time.sleep(_POLL_S)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything below it at once, as a power cut would, and wait until all are gone."""
    # Frozen first, so that it cannot start another child between the listing and the kill.
    send([process.pid], signal.SIGSTOP)
    below = descendants(process.pid)
    send([process.pid, *below], signal.SIGKILL)
    process.wait(DEADLINE_S)
    wait_until(lambda: not set(below) & _parents().keys(), "killed processes are still there")
