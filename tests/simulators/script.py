"""What is to go wrong, in one notation for tests, prompts and the control API.

A step is `kind[:argument][;delay=SECONDS][;billed|;free]`, for example `429:7` or `502;delay=90;billed`. In a
prompt it stands as `[[step]]`; `[[step|step|...]]` gives one to each call with that prompt and repeats the last;
`[[openai@step]]`, `[[poll@step]]` and `[[therouter.poll@step]]` say which simulator and which occasion is meant.
"""

import asyncio
import random
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from tests.simulators.ledger import Call

Occasion: TypeAlias = Literal["purchase", "poll", "file", "stream"]
"""A paid POST, a question after a job, a download, or the moment between partial and final pictures."""

OCCASIONS: Final[tuple[Occasion, ...]] = get_args(Occasion)
_MARKER: Final = re.compile(r"\[\[(?:([a-z._]+)@)?([^\[\]]+)\]\]")
PATIENCE_S: Final = 20.0
"""How long a test may wait for something to happen before it is taken to be stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to one call."""

    kind: str = "ok"
    argument: str | None = None
    delay_s: float = 0.0
    billed: bool | None = None
    """Whether the vendor charges for it; None: as the kind usually is."""
    text: str = "ok"

    def is_billed(self, *, usually: bool) -> bool:
        """Whether the vendor charges, given what this kind usually does."""
        return usually if self.billed is None else self.billed


def parse_step(text: str, kinds: frozenset[str]) -> Step:
    """Read a step.

    Raises:
        ValueError: the kind or an option is not known.
    """
    head, *options = text.strip().split(";")
    kind, colon, argument = head.partition(":")
    delay_s, billed = 0.0, None
    for option in options:
        match option.strip().partition("="):
            case ("delay", "=", value):
                delay_s = float(value)
            case ("billed", "", ""):
                billed = True
            case ("free", "", ""):
                billed = False
            case _:
                raise ValueError(f"the step {text!r} has an unknown option {option!r}")
    if kind not in kinds:
        raise ValueError(f"the step {text!r} is of no known kind; known are {', '.join(sorted(kinds))}")
    return Step(
        kind=kind, argument=argument if colon else None, delay_s=delay_s, billed=billed, text=text.strip()
    )


class Hold:
    """A place where one call stands still until the test lets it go."""

    def __init__(self) -> None:
        self._arrived: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._released = asyncio.Event()

    async def reached(self) -> "Call":
        """Wait until a call stands here, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self._arrived)

    def release(self) -> None:
        """Let the call go on, now or when it comes."""
        self._released.set()

    async def stop(self, call: "Call") -> None:
        """Stand here, as the call."""
        self._arrived.set_result(call)
        await self._released.wait()


@dataclass(slots=True)
class Script:
    """The steps still to be played. First the queue, then the prompt, then chance decide."""

    simulator: str
    kinds: frozenset[str]
    queues: dict[Occasion, deque[Step]] = field(default_factory=lambda: defaultdict(deque))
    holds: dict[Occasion, deque[Hold]] = field(default_factory=lambda: defaultdict(deque))
    chances: dict[Occasion, list[tuple[Step, float]]] = field(default_factory=lambda: defaultdict(list))
    _random: random.Random = field(default_factory=random.Random)
    _played: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, steps: Iterable[str], on: Occasion) -> None:
        """Queue one step for each of the next calls on this occasion; `ok` lets one pass."""
        self.queues[on].extend([parse_step(text, self.kinds) for text in steps])

    def set_chances(self, chances: Mapping[str, float], on: Occasion, seed: int) -> None:
        """Let each step happen with its probability, the same sequence for the same seed."""
        self._random = random.Random(seed)
        self.chances[on] = [(parse_step(text, self.kinds), chance) for text, chance in chances.items()]

    def peek(self, on: Occasion) -> Step | None:
        """The step that the queue holds for the next call."""
        return self.queues[on][0] if self.queues[on] else None

    def choose(self, on: Occasion, prompt: str) -> Step:
        """Take what happens to a call with this prompt."""
        if self.queues[on]:
            return self.queues[on].popleft()
        for step in self._marked(on, prompt):
            return step
        if self.chances[on]:
            left = self._random.random()
            for step, chance in self.chances[on]:
                left -= chance
                if left < 0:
                    return step
        return Step()

    def _marked(self, on: Occasion, prompt: str) -> Iterable[Step]:
        for scope, steps in _MARKER.findall(prompt):
            names = set(scope.split(".")) - {""}
            meant: set[str] = names & set(OCCASIONS) or {"purchase"}
            if names - set(OCCASIONS) - {self.simulator} or on not in meant:
                continue
            alternatives = steps.split("|")
            turn = self._played[on, steps, prompt]
            self._played[on, steps, prompt] += 1
            yield parse_step(alternatives[min(turn, len(alternatives) - 1)], self.kinds)
