"""Does in one go what is asked for while the last go is under way, as a database does with commits."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Gathers questions of many tasks: a lone one is worked on at once, those that come meanwhile together."""

    def __init__(
        self, work: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]], *, at_most: int
    ) -> None:
        """`work` answers up to `at_most` questions, in their order; what it raises is raised to all who asked."""
        self._work = work
        self._at_most = at_most
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Have a question answered. Whoever is cancelled while it waits may have been answered all the same."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work_off())
            self._working.add_done_callback(self._ended)
        return await answer

    async def _work_off(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._at_most))]
            try:
                answers = await self._work([question for question, _ in batch])
            except Exception as exc:  # noqa: BLE001 - it is handed to those who asked
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(exc)
                continue
            for (_, answer), given in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(given)

    def _ended(self, _working: asyncio.Task[None]) -> None:
        self._working = None
        for _, answer in self._waiting:  # only when the loop is closing
            answer.cancel()
