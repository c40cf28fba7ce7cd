"""What must hold in every state and of every step of the job model, and the mutants that must break it."""

from collections.abc import Iterator
from enum import StrEnum, unique

from tests.model.world import OPEN, Attempt, World


@unique
class Rule(StrEnum):
    """Each value is the sentence that a failing test prints."""

    BILLED_TOO_OFTEN = "more pictures were billed than the policy allows"
    SENT_TWICE = "one intent was sent twice"
    SENT_WITHOUT_ROW = "a call was sent for which no attempt was ever committed"
    SENT_AFTER_WRITTEN_OFF = "a call was sent after its attempt had been ended by somebody else"
    BOUGHT_WHAT_IS_THERE = "the counter allows buying pictures that are in hand or on their way"
    BOUGHT_AFTER_REFUSAL = "an intent was opened although a final refusal was on record"
    FINAL_STATUS_CHANGED = "a final status changed"
    CANCELLED_SUCCEEDED = "a cancelled job became succeeded"
    SUCCEEDED_EMPTY = "a job succeeded without a picture in hand"
    PAID_PICTURES_WITHHELD = "a job failed or expired although a paid picture was in hand"
    EXPIRED_AFTER_ASKING = "a job expired, as if it had never been started, although a vendor was asked"
    PICTURES_DROPPED = "a run had pictures in its hands and did not record them"
    TICKET_ABANDONED = "an attempt with a known ticket was given up before its end and before the deadline"
    MOVED_BY_STRANGER = "a run that does not hold the job moved it, or opened an intent for it"
    FENCE_WENT_BACK = "the lease token became smaller"
    HOLDS_WRONG = (
        "the budget's reservation is not the price of what is to buy plus the holds of unsettled attempts"
    )
    BUDGET_OVERDRAWN = "what is spent and held together is more than the budget"
    BOOKS_BEHIND_BILL = "spent and held money together do not cover what the vendors billed"


@unique
class Mutant(StrEnum):
    """Ways to get the design wrong; each value says in one sentence why it is wrong."""

    SEND_BEFORE_INTENT = "after a crash nobody knows that something was sent, so it is sent again"
    RESEND_DANGLING_INTENT = (
        "an intent without an answer may have been sent, and sending it again may be paid twice"
    )
    DANGLING_INTENT_IS_UNPAID = (
        "raising the counter for an intent that may have been sent buys its pictures again"
    )
    TIMEOUT_IS_REFUSAL = "no answer is no proof that nothing was bought"
    COUNTER_NOT_LOWERED = "the next claim buys the same pictures beside the open attempt"
    COUNTER_RAISED_WITHOUT_SPARE = (
        "an unknown outcome may be paid, and only `spare` says how often that is risked"
    )
    COUNTER_RAISED_BY_EACH_POLLER = "two runs that see one vendor job fail give back the same pictures twice"
    COUNTER_RAISED_BY_SENDER_AND_SWEEPER = (
        "pictures written off as unknown and replaced are given back once more"
    )
    COUNTER_RAISED_WITHOUT_LIMIT = (
        "an unknown attempt may have delivered since, so there is less to buy than it covered"
    )
    LATE_SUCCESS_LEAVES_COUNTER = (
        "pictures whose attempt was written off and that came after all are bought again"
    )
    REFUSAL_DOES_NOT_LAST = (
        "the pictures of another attempt that come back are tried again although the request is refused"
    )
    CLOCK_NOT_CHECKED_BEFORE_SEND = "a run that wakes late sends what others have written off"
    WRITTEN_OFF_BEFORE_DUE = "the sender of an earlier run may still be about to send"
    POISON_BEFORE_DUE = "a run that lost its lease is no crash: it may still be about to send"
    FINAL_STATUS_OVERWRITTEN = "clients and webhooks have seen the final status"
    UNFENCED_FAILURE = "a run that lost its lease requeues the job under the hands of the new holder"
    UNFENCED_INTENT = "a run that lost its lease starts something new"
    NO_TOKEN_BUMP = "a run that lost its lease passes for the new holder"
    TOKEN_STARTS_AGAIN = "a run of long ago passes for the new holder"
    FENCED_SUCCESS = "pictures that a run brings after losing its lease are paid and thrown away"
    FENCED_TICKET = "a ticket that a run brings after losing its lease is lost, and the pictures with it"
    TICKET_FORGOTTEN = "pictures that are being made are written off"
    TICKET_DROPPED_AT_DEADLINE = "pictures that are being made, and paid, are never fetched"
    SETTLED_TWICE = "a late success after an unknown outcome books the money again"
    CLOSE_RELEASES_OPEN_HOLDS = (
        "what open attempts cost is not covered any more, so a budget can be overspent"
    )
    CLOSE_KEEPS_UNUSED_HOLD = "money is held for pictures that nobody will buy"
    CANCEL_KEEPS_UNUSED_HOLD = "the same, for a client that gave up before anything was bought"
    REFUSAL_KEEPS_HOLD = (
        "what an attempt held comes back to the budget, or to the pictures that are bought again"
    )
    FAILOVER_ASKS_FOR_NO_ROOM = (
        "what may have been paid stays booked, so buying again takes more, and others may have taken it"
    )
    EXPIRED_WITH_PICTURES = "a parked job that already has paid pictures must deliver them at its deadline"
    EXPIRED_WITH_CALLS_BEHIND_IT = (
        "what a vendor was asked for has a story, and may have a price, that `expired` denies"
    )
    SUCCEEDED_EMPTY_HANDED = "nothing left to buy is not the same as something to deliver"
    REFUSAL_FAILS_PARTLY_FILLED_JOB = "a final refusal of one attempt does not undo the pictures of another"
    NO_POISON_RULE = "a queued job whose claims are used up waits for ever for its open attempt"
    FINAL_JOB_NOT_FOLLOWED = "the open attempts of a cancelled job never end and keep their holds"
    FOLLOWED_WITHOUT_LIMIT = "a vendor job that never ends keeps its hold for ever"

    # The next two are weaker than the design, and still break nothing: either bump alone is enough.
    NO_TOKEN_BUMP_AT_CLAIM = "harmless: every end of a lease has raised the token already"
    NO_TOKEN_BUMP_AT_SWEEP = "harmless: a queued job accepts no run, and the next claim raises the token"


def broken_by_state(world: World, *, pictures: int, bill_limit: int) -> Iterator[Rule]:
    """The rules that one state breaks, for a job of `pictures` pictures."""
    if world.billed > bill_limit:
        yield Rule.BILLED_TOO_OFTEN
    if world.reserved != world.to_buy + world.unsettled:
        yield Rule.HOLDS_WRONG
    if world.left < 0:
        yield Rule.BUDGET_OVERDRAWN
    if world.spent + world.unsettled < world.billed:
        yield Rule.BOOKS_BEHIND_BILL
    if world.status == "succeeded" and world.in_hand == 0:
        yield Rule.SUCCEEDED_EMPTY
    if not world.is_final and world.to_buy > max(0, pictures - world.in_hand - world.on_the_way):
        yield Rule.BOUGHT_WHAT_IS_THERE


def broken_by_step(before: World, after: World, *, run: int | None, may_abandon: bool) -> Iterator[Rule]:
    """The rules that one step breaks; both worlds are as written, not in their canonical form.

    `run` is the slot of the run that takes the step, None for a client, a sweeper, a claim or a crash.
    `may_abandon` is whether the job's claims are used up, which ends even an attempt with a ticket.
    """
    if before.is_final and after.status != before.status:
        yield Rule.FINAL_STATUS_CHANGED
        if (before.status, after.status) == ("cancelled", "succeeded"):
            yield Rule.CANCELLED_SUCCEEDED
    if not before.is_final and after.status in {"failed", "expired"} and before.in_hand:
        yield Rule.PAID_PICTURES_WITHHELD
    if not before.is_final and after.status == "expired" and before.was_asked:
        yield Rule.EXPIRED_AFTER_ASKING
    if after.token < before.token:
        yield Rule.FENCE_WENT_BACK
    if len(after.attempts) > len(before.attempts) and before.is_refused:
        yield Rule.BOUGHT_AFTER_REFUSAL
    if run is not None and run != before.holder and _is_holders_move(before, after):
        yield Rule.MOVED_BY_STRANGER
    for old, new in zip(before.attempts, after.attempts, strict=False):
        if old.state == "accepted" and new.state == "unknown" and not (before.is_overdue or may_abandon):
            yield Rule.TICKET_ABANDONED
        if run is not None:
            yield from _broken_by_record(old, new, run)


def broken_by_send(attempt: Attempt) -> Iterator[Rule]:
    """The rules that sending one attempt breaks, judged on the row at that moment."""
    if attempt.was_sent:
        yield Rule.SENT_TWICE
    if attempt.state == "unwritten":
        yield Rule.SENT_WITHOUT_ROW
    elif attempt.state not in OPEN:
        yield Rule.SENT_AFTER_WRITTEN_OFF


def _is_holders_move(before: World, after: World) -> bool:
    """Whether the step is one that only the holder may take: all but a late success of an open job."""
    if before.is_final:
        return False
    opens = len(after.attempts) > len(before.attempts)
    moves = (after.status, after.token) != (before.status, before.token) and after.status != "succeeded"
    return opens or moves


def _broken_by_record(old: Attempt, new: Attempt, run: int) -> Iterator[Rule]:
    """What a run had in its hands before the step must be in the row after it."""
    held, holds = old.calls[run], new.calls[run]
    if held == "pictures" and holds != held and new.state != "succeeded":
        yield Rule.PICTURES_DROPPED
    if held == "ticket" and holds != held and old.state == "intent" and new.state != "accepted":
        yield Rule.TICKET_ABANDONED
