"""The only place that knows the states of jobs and attempts, the moves between them, and when a job is over."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from app.domain.failures import CLASS_OF, FailureClass, FailureKind


class Status(StrEnum):
    """Where a job stands. The last four are final and never left."""

    QUEUED = "queued"
    """Waits for a worker; `start` moves it on."""
    IN_PROGRESS = "in_progress"
    """A worker holds its lease; it moves the job on, or the sweeper once the lease lapses or the deadline passes."""
    SUCCEEDED = "succeeded"
    """At least one picture was delivered."""
    FAILED = "failed"
    """No picture in time; `error` says why."""
    CANCELLED = "cancelled"
    """The client gave it up; calls already sent are followed to their end."""
    EXPIRED = "expired"
    """Its deadline came before any vendor was asked."""

    @property
    def is_final(self) -> bool:
        """Whether nothing will change this any more."""
        return self in FINAL


FINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})
OPEN: Final = frozenset({Status.QUEUED, Status.IN_PROGRESS})


class Lost(Exception):
    """The lease is somebody else's by now; nothing may be started for the job any more."""


class AttemptState(StrEnum):
    """Where an attempt stands. The last three end it; `unknown` may still turn into `succeeded`."""

    INTENT = "intent"
    """A call may be sent, or may have been."""
    ACCEPTED = "accepted"
    """The vendor gave a ticket; it is asked until it answers."""
    SUCCEEDED = "succeeded"
    """Its pictures are in storage and paid for."""
    UNPAID = "unpaid"
    """Proven by its own sender to have bought nothing."""
    UNKNOWN = "unknown"
    """May have been paid for; booked as if it was."""

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still awaited."""
        return self in OPEN_ATTEMPT


OPEN_ATTEMPT: Final = frozenset({AttemptState.INTENT, AttemptState.ACCEPTED})


@dataclass(frozen=True, slots=True)
class Move:
    """A named step of a job: which states it may leave, which it reaches, and the reason that is recorded."""

    name: str
    leaves: frozenset[Status]
    reaches: Status
    reason: str


def start() -> Move:
    """A worker takes the job and holds its lease."""
    return Move("start", frozenset({Status.QUEUED}), Status.IN_PROGRESS, "claimed by a worker")


def park() -> Move:
    """The holder gives the job back: nothing can be asked now, or its process is stopping."""
    return Move("park", frozenset({Status.IN_PROGRESS}), Status.QUEUED, "given back by its worker")


def rescue() -> Move:
    """The sweeper takes the job from a worker that no longer renews its lease."""
    return Move("rescue", frozenset({Status.IN_PROGRESS}), Status.QUEUED, "its worker's lease lapsed")


def finish() -> Move:
    """The pictures are in hand, whoever brings them."""
    return Move("finish", OPEN, Status.SUCCEEDED, "pictures delivered")


def fail() -> Move:
    """No picture will come, or none in time."""
    return Move("fail", OPEN, Status.FAILED, "no picture")


def cancel() -> Move:
    """The client gives the job up."""
    return Move("cancel", OPEN, Status.CANCELLED, "cancelled by the client")


def expire() -> Move:
    """The deadline came before any vendor was asked."""
    return Move("expire", OPEN, Status.EXPIRED, "not started by its deadline")


MOVES: Final = (start(), park(), rescue(), finish(), fail(), cancel(), expire())


def diagram() -> str:
    """The moves as a Mermaid state diagram; `docs/architecture.md` holds this very text."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for move in MOVES:
        lines += [f"    {state} --> {move.reaches}: {move.name}" for state in Status if state in move.leaves]
    lines += [f"    {state} --> [*]" for state in Status if state.is_final]
    return "\n".join(lines)


class Ending(StrEnum):
    """Why a job ended; each but the first has an error of contract 7."""

    PICTURES = "pictures"
    """At least one picture is there, and no more can come."""
    FAULT = "fault"
    """A vendor found fault with the request, or refused it."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """An attempt may have been paid for and brought nothing."""
    ALL_FAILED = "all_failed"
    """Attempts are used up, and none was paid for."""
    UNAVAILABLE = "unavailable"
    """There was no attempt, for no route can be asked."""
    NOT_STARTED = "not_started"
    """There was no attempt by the deadline."""
    POISONED = "poisoned"
    """It ended the process of every worker that took it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFact:
    """What `conclude` needs to know of an attempt."""

    state: AttemptState
    pictures: int
    """How many it was to make; once it succeeded, how many it made."""
    round: int
    failure: FailureKind | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Attempts are open; their outcome decides."""


@dataclass(frozen=True, slots=True)
class Buy:
    """So many pictures are missing, may be bought, and are to be bought in this round."""

    pictures: int
    round: int


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more will be bought."""

    ending: Ending


Verdict: TypeAlias = Wait | Buy | End


def conclude(attempts: Sequence[AttemptFact], *, to_buy: int, max_rounds: int, is_due: bool) -> Verdict:
    """Say what an open job needs next, from its attempts and the pictures that may still be bought.

    `is_due`: its deadline has passed. A call or an order that is still open then ends the job with an unknown outcome,
    unless pictures are in hand; it is followed on, as those of a cancelled job are.
    """
    open_states = {attempt.state for attempt in attempts if attempt.state.is_open}
    if AttemptState.INTENT in open_states and not is_due:
        return Wait()
    may_buy = to_buy > 0 and not is_due and _fault(attempts) is None
    rounds = max((attempt.round for attempt in attempts), default=0)
    if may_buy and rounds < max_rounds:
        return Buy(to_buy, rounds + 1)
    if open_states and not is_due:
        return Wait()
    return End(ending_of(attempts) or (Ending.NOT_STARTED if is_due else Ending.UNAVAILABLE))


def ending_of(attempts: Sequence[AttemptFact]) -> Ending | None:
    """What a job comes to that ends with these attempts; None when there was none."""
    states = {attempt.state for attempt in attempts}
    if AttemptState.SUCCEEDED in states:
        return Ending.PICTURES
    if _fault(attempts) is not None:
        return Ending.FAULT
    if states & {AttemptState.UNKNOWN, *OPEN_ATTEMPT}:
        return Ending.OUTCOME_UNKNOWN
    return Ending.ALL_FAILED if attempts else None


def _fault(attempts: Sequence[AttemptFact]) -> FailureKind | None:
    kinds = (attempt.failure for attempt in attempts if attempt.failure is not None)
    return next((kind for kind in kinds if CLASS_OF[kind] is FailureClass.FINAL), None)
