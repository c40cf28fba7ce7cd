"""What processes use, read from /proc: memory and CPU time of some processes and their children, all together.

Shared pages are divided among those that share them (PSS), so that the sum over processes counts each page once.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.harness.processes import descendants

_SAMPLE_EVERY_S: Final = 0.05
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def family(roots: Sequence[int]) -> list[int]:
    """These processes, and those that they started."""
    return [*roots, *(child for root in roots for child in descendants(root))]


def memory_bytes(pids: Sequence[int]) -> int:
    """The memory of these processes; one that has just ended counts nothing."""
    return sum(_pss_bytes(pid) for pid in pids)


def cpu_s(roots: Sequence[int]) -> float:
    """CPU seconds used by these processes and their children so far, ended ones included."""
    return sum(_cpu_s(pid) for pid in family(roots))


class PeakMemory:
    """Samples memory from a thread while it is open."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._pids = family(roots)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.idle_bytes = memory_bytes(self._pids)
        self.peak_bytes = self.idle_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def added_bytes(self) -> int:
        """The highest sum seen, less what was used before."""
        return self.peak_bytes - self.idle_bytes

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self._pids))


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _cpu_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # After the name in brackets, which may hold spaces; own time, and that of children that were waited for.
    used = text.rpartition(")")[2].split()[11:15]
    return sum(int(ticks) for ticks in used) / _TICKS_PER_S
