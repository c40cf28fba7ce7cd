"""Word that something changed, between tasks of a process and between processes. Hints only: any may be lost."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Events(Protocol):
    """Says that a subject changed, and wakes whoever listens for it."""

    def publish(self, subject: str) -> None:
        """Tell every process, without waiting; never raises."""
        ...

    def listen(self, subject: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `wake` on each change of `subject`, here or in another process, while the context is open."""
        ...


class LocalEvents:
    """Events within one process."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)

    def publish(self, subject: str) -> None:
        """Wake the listeners of this process."""
        for wake in tuple(self._listeners.get(subject, ())):
            wake()

    @contextmanager
    def listen(self, subject: str, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` on each change of `subject` while the context is open."""
        self._listeners[subject].add(wake)
        try:
            yield
        finally:
            self._listeners[subject].discard(wake)
            if not self._listeners[subject]:
                del self._listeners[subject]
