"""Visits every state that a small model can reach and keeps the shortest way to each broken rule.

It knows nothing about jobs: a model says where it starts, which steps leave a state, what is wrong with a state or a
step, and when it is done. Liveness is the backward question: from which states can a done state no longer be reached?
"""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

StateT = TypeVar("StateT", bound=Hashable)

STUCK = "no done state can be reached any more"


class Step(NamedTuple, Generic[StateT]):
    """One thing that can happen next."""

    label: str
    target: StateT
    broken: tuple[str, ...] = ()
    """Rules that the step itself breaks, whatever state it ends in."""
    is_fault: bool = False
    """A crash or somebody's whim: it may happen, but no progress may depend on it."""


class Model(Protocol[StateT]):
    """What the explorer asks of a model. States are values: equal states are visited once."""

    def initial(self) -> StateT:
        """The one state everything starts in."""
        ...

    def steps(self, state: StateT) -> Iterable[Step[StateT]]:
        """Everything that can happen in `state`."""
        ...

    def broken_rules(self, state: StateT) -> Sequence[str]:
        """The rules that do not hold in `state`."""
        ...

    def is_done(self, state: StateT) -> bool:
        """Whether `state` is a proper end: nothing is owed to anybody."""
        ...


class Report(NamedTuple):
    """What an exploration found."""

    state_count: int
    counterexamples: dict[str, list[str]]
    """Broken rule -> the labels of a shortest way to break it."""
    is_complete: bool
    """False when the exploration ended early, at the rule it was told to look for."""


class TooManyStates(Exception):
    """The model outgrew its limit; make it smaller, or its canonical form better."""


def explore(model: Model[StateT], *, look_for: str | None = None, state_limit: int = 1_000_000) -> Report:
    """Visit every reachable state, or stop at the first breach of `look_for`.

    Raises:
        TooManyStates: more than `state_limit` states were reached.
    """
    search = _Search(model)
    while search.queue:
        search.expand(search.queue.popleft())
        if look_for in search.counterexamples:
            return Report(len(search.states), search.counterexamples, is_complete=False)
        if len(search.states) > state_limit:
            raise TooManyStates(f"{len(search.states)} states, the limit is {state_limit}")
    stuck = search.first_stuck_state()
    if stuck is not None:
        search.counterexamples[STUCK] = search.path_to(stuck)
    return Report(len(search.states), search.counterexamples, is_complete=True)


class _Search(Generic[StateT]):
    """The bookkeeping of one breadth-first search; states are known by the order in which they were found."""

    def __init__(self, model: Model[StateT]) -> None:
        self.model = model
        self.states: list[StateT] = []
        self.counterexamples: dict[str, list[str]] = {}
        self.queue: deque[int] = deque()
        self._numbers: dict[StateT, int] = {}
        self._came_from: list[tuple[int, str]] = []
        self._progress_into: list[list[int]] = []
        self._visit(model.initial(), -1, "")

    def expand(self, number: int) -> None:
        """Take every step that leaves one state."""
        for step in self.model.steps(self.states[number]):
            target = self._numbers.get(step.target)
            if target is None:
                target = self._visit(step.target, number, step.label)
            if not step.is_fault:
                self._progress_into[target].append(number)
            for rule in step.broken:
                if rule not in self.counterexamples:
                    self.counterexamples[rule] = [*self.path_to(number), step.label]

    def path_to(self, number: int) -> list[str]:
        """The labels from the initial state to this one; the shortest, because the search is breadth-first."""
        labels: list[str] = []
        while number > 0:
            number, label = self._came_from[number]
            labels.append(label)
        return labels[::-1]

    def first_stuck_state(self) -> int | None:
        """The state nearest to the start from which no done state can be reached without a fault."""
        can_end = bytearray(len(self.states))
        to_visit = [number for number, state in enumerate(self.states) if self.model.is_done(state)]
        for number in to_visit:
            can_end[number] = 1
        while to_visit:
            for before in self._progress_into[to_visit.pop()]:
                if not can_end[before]:
                    can_end[before] = 1
                    to_visit.append(before)
        stuck = can_end.find(0)
        return None if stuck < 0 else stuck

    def _visit(self, state: StateT, came_from: int, label: str) -> int:
        number = len(self.states)
        self._numbers[state] = number
        self.states.append(state)
        self._came_from.append((came_from, label))
        self._progress_into.append([])
        self.queue.append(number)
        for rule in self.model.broken_rules(state):
            if rule not in self.counterexamples:
                self.counterexamples[rule] = self.path_to(number)
        return number
