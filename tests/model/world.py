"""The state of the model: one job's rows, its runs, and what the vendors really did; no rule and no step lives here.

A *run* is one worker's hold of the job, from its claim until it has nothing more to do. A run whose lease was lost
lives on (frozen, or cut off from the database) for as long as one of its *calls* is under way. One run per slot;
slots are sorted again after each step, so in a counterexample "run 0" is whichever run claimed last.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple

Status = Literal["queued", "in_progress", "succeeded", "failed", "cancelled", "expired"]
AttemptState = Literal["unwritten", "intent", "accepted", "succeeded", "unpaid", "unknown"]
"""`unwritten` exists in a mutant only: a call is made for which no row was committed."""

Call = Literal["none", "unsent", "lost", "refused", "refused_finally", "ticket", "polling", "pictures"]
"""What one run holds in memory for one attempt: nothing, a request not sent yet, an answer not recorded yet
(`lost`: that there will be none), or a recorded ticket that it asks about (`polling`).
Asking is one step with recording what it brings: how the vendor's job ends is decided when it is submitted, so a pause
between the two is the same as a pause before."""

VendorJob = Literal["", "makes_pictures", "fails", "hangs"]
"""How the vendor's job behind a ticket ends; decided when it is submitted, seen when it is polled."""

FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled", "expired"})
OPEN: frozenset[AttemptState] = frozenset({"intent", "accepted"})
IN_HAND: frozenset[Call] = frozenset({"unsent", "lost", "refused", "refused_finally", "ticket", "pictures"})
"""A run that holds one of these has something to send or to write down; it does not give the job back."""

UNLEASED = -1
"""Nobody holds the job, and the row says so."""
ORPHANED = -2
"""The row still says that somebody holds the job, but that run has crashed."""
IDLE = 0
"""The token of a slot without a run; the job's own token starts at 1."""


class Attempt(NamedTuple):
    """One row of `attempts`, and the calls that living runs make for it."""

    pictures: int
    state: AttemptState
    owner_token: int
    calls: tuple[Call, ...]
    is_settled: bool = False
    is_due: bool = False
    """`outcome_due` has passed; only followed while it matters, that is until the attempt is sent or ended."""
    was_sent: bool = False
    """The truth, unknown to the product."""
    vendor_job: VendorJob = ""


class World(NamedTuple):
    """The job's row, its attempts, its runs, and the money."""

    status: Status
    token: int
    holder: int
    """The slot of the run that holds the lease, UNLEASED or ORPHANED."""
    claims: int
    to_buy: int
    spare: int
    is_refused: bool
    """A refusal that is final for the request is on record."""
    is_overdue: bool
    """The job's deadline has passed and was acted on."""
    was_asked: bool
    """An attempt was opened, whatever became of it; only followed while the job is open."""
    in_hand: int
    """Pictures that came while the job was open."""
    reserved: int
    """What this job takes up in the team's budget; money is counted in pictures."""
    spent: int
    left: int
    """What the team's budget has room for beside this job and all others."""
    billed: int
    """The truth: what the vendors charge."""
    runs: tuple[int, ...]
    """The token that each slot's run got at its claim."""
    attempts: tuple[Attempt, ...]

    @property
    def is_final(self) -> bool:
        """Whether the job has its last status."""
        return self.status in FINAL

    @property
    def has_open_attempt(self) -> bool:
        """Whether an attempt is still to end."""
        return any(attempt.state in OPEN for attempt in self.attempts)

    @property
    def on_the_way(self) -> int:
        """Pictures that open attempts cover."""
        return sum(attempt.pictures for attempt in self.attempts if attempt.state in OPEN)

    @property
    def unsettled(self) -> int:
        """Pictures whose attempts still keep their hold."""
        return sum(
            attempt.pictures
            for attempt in self.attempts
            if not attempt.is_settled and attempt.state != "unwritten"
        )


def new_world(pictures: int, spare: int, slot_count: int, *, room: int) -> World:
    """A job that was just created: everything is still to buy, the whole price is held, `room` is left."""
    return World(
        status="queued",
        token=1,
        holder=UNLEASED,
        claims=0,
        to_buy=pictures,
        spare=spare,
        is_refused=False,
        is_overdue=False,
        was_asked=False,
        in_hand=0,
        reserved=pictures,
        spent=0,
        left=room,
        billed=0,
        runs=(IDLE,) * slot_count,
        attempts=(),
    )


def post(world: World, *, reserved: int, spent: int = 0) -> World:
    """The world with so much more held and spent, and so much less left of the budget."""
    return world._replace(
        reserved=world.reserved + reserved,
        spent=world.spent + spent,
        left=world.left - reserved - spent,
    )


def set_counter(world: World, to_buy: int) -> World:
    """The world with another number of pictures to buy, whose price is what is held for them."""
    return post(world, reserved=to_buy - world.to_buy)._replace(to_buy=to_buy)


def with_call(attempt: Attempt, slot: int, call: Call) -> Attempt:
    """The attempt with one slot's call replaced."""
    calls = attempt.calls
    return attempt._replace(calls=(*calls[:slot], call, *calls[slot + 1 :]))


def replace_attempt(world: World, index: int, attempt: Attempt) -> World:
    """The world with one attempt replaced."""
    attempts = world.attempts
    return world._replace(attempts=(*attempts[:index], attempt, *attempts[index + 1 :]))


def update_attempts(world: World, change: Callable[[Attempt], Attempt]) -> World:
    """The world with the same change made to every attempt."""
    return world._replace(attempts=tuple(change(attempt) for attempt in world.attempts))


def canonical(world: World, *, trusts_design: bool) -> World:
    """The one world that stands for all that differ only in names and in what nothing can see any more.

    Ended attempts without a call are dropped (their pictures and money are in the job's totals), idle runs leave
    their slot, tokens are renumbered, slots and attempts are sorted. This is what keeps the state space finite.
    `trusts_design` also drops what nothing comes of in the design itself; a mutant may still act on it.
    """
    simpler = [_simplified(attempt, trusts_design) for attempt in world.attempts]
    attempts = [attempt for attempt in simpler if attempt is not None]
    # A run with the job's token stays even without lease and call: if the token is not raised, it will pass the fence.
    runs = [
        token if slot == world.holder or token == world.token or _has_call(attempts, slot) else IDLE
        for slot, token in enumerate(world.runs)
    ]
    order = tuple(sorted(range(len(runs)), key=lambda slot: -runs[slot]))
    numbers = {IDLE: IDLE}
    for token in sorted({world.token, *runs} - {IDLE}):
        numbers[token] = len(numbers)
    is_over = world.is_final and not any(attempt.state in OPEN for attempt in attempts)
    # A final job without an unsent call is billed no more: what counts from here is how far the books are ahead.
    is_fully_billed = (
        trusts_design and world.is_final and not any("unsent" in attempt.calls for attempt in attempts)
    )
    # Only a job that may buy again asks for room.
    asks_for_room = not trusts_design or (world.spare and not world.is_final)
    return world._replace(
        left=world.left if asks_for_room else min(world.left, 0),
        token=numbers[world.token],
        holder=order.index(world.holder) if world.holder >= 0 else world.holder,
        claims=0 if is_over else world.claims,
        spent=world.spent - world.billed if is_fully_billed else world.spent,
        billed=0 if is_fully_billed else world.billed,
        in_hand=min(world.in_hand, 1) if world.is_final else world.in_hand,
        is_overdue=world.is_overdue and not is_over,
        was_asked=world.was_asked and not world.is_final,
        runs=tuple(numbers[runs[slot]] for slot in order),
        attempts=tuple(
            sorted(_renamed(attempt, numbers.get(attempt.owner_token, IDLE), order) for attempt in attempts)
        ),
    )


@cache
def _simplified(attempt: Attempt, trusts_design: bool) -> Attempt | None:
    """The attempt as far as anything can still come of it; None when nothing can."""
    attempt = _forget_what_is_over(attempt)
    if trusts_design:
        attempt = _without_vain_calls(attempt)
    return None if attempt.state not in OPEN and _is_over(attempt) else attempt


@cache
def _renamed(attempt: Attempt, owner_token: int, order: tuple[int, ...]) -> Attempt:
    return attempt._replace(owner_token=owner_token, calls=tuple(attempt.calls[slot] for slot in order))


def _is_over(attempt: Attempt) -> bool:
    return all(call == "none" for call in attempt.calls) and (
        attempt.is_settled or attempt.state == "unwritten"
    )


def _forget_what_is_over(attempt: Attempt) -> Attempt:
    """Blank the fields that no step can tell apart any more."""
    may_send = "unsent" in attempt.calls
    asks_vendor = attempt.state == "accepted" or "polling" in attempt.calls or "ticket" in attempt.calls
    return attempt._replace(
        owner_token=attempt.owner_token if attempt.state == "intent" or may_send else IDLE,
        is_due=attempt.is_due and (attempt.state == "intent" or may_send),
        was_sent=attempt.was_sent and (attempt.state == "intent" or may_send),
        vendor_job=attempt.vendor_job if asks_vendor else "",
    )


def _without_vain_calls(attempt: Attempt) -> Attempt:
    return attempt._replace(
        calls=tuple("none" if _is_vain(call, attempt) else call for call in attempt.calls)
    )


def _is_vain(call: Call, attempt: Attempt) -> bool:
    """Whether nothing can come of a call: its attempt has ended in a way that the call's answer cannot change."""
    if call == "polling" and attempt.vendor_job == "hangs":
        return True
    match attempt.state:
        case "succeeded":
            return True
        case "unpaid":
            return call != "refused_finally"
        case "unknown":
            never_brings_pictures = call == "polling" and attempt.vendor_job == "fails"
            never_sends = call == "unsent" and attempt.is_due
            return never_brings_pictures or never_sends or call in {"lost", "refused"}
        case "intent" | "accepted" | "unwritten":
            return False


def _has_call(attempts: Sequence[Attempt], slot: int) -> bool:
    return any(attempt.calls[slot] != "none" for attempt in attempts)
