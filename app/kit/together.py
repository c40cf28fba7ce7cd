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
        self._is_working = False
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Have a question answered. Whoever is cancelled while it waits may have been answered all the same."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if not self._is_working:
            self._is_working = True
            self._task = asyncio.create_task(self._work_off())
        return await answer

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                await self._work_on([self._waiting.popleft() for _ in range(self._next())])
        finally:
            # In the same breath as the last look at the queue, so that nobody is left in it.
            self._is_working = False
            for _, answer in self._waiting:  # this task was cancelled
                answer.cancel()

    def _next(self) -> int:
        return min(len(self._waiting), self._at_most)

    async def _work_on(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._work([question for question, _ in batch])
        except asyncio.CancelledError:
            for _, answer in batch:
                answer.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - it is handed to those who asked
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(exc)
            return
        for (_, answer), given in zip(batch, answers, strict=True):
            if not answer.done():
                answer.set_result(given)
