"""One job, two workers, any crash, pause or lost lease: every step that the design allows, and those of its mutants.

Time is abstract: a lease may be lost, `outcome_due` and the deadline may pass at any moment. No progress may depend on
a crash, a cancellation or a living run losing its lease. Money is counted in pictures. What the model showed:

- How often a picture is billed never rests on a clock or a lease, only on the counter: without the check of the clock
  before a send, the one rule that breaks is that nobody sends what others have written off.
- An attempt that was written off and replaced may deliver after all. So the counter is raised to at most, and lowered
  by a late success to, what is neither in hand nor on its way.
- A final refusal sets the counter to nought and keeps it there; it does not close a job whose other attempts are open.
- At the deadline a job is final whatever is open; it has `expired` only if no vendor was ever asked for it.
- Every way to a final status but cancelling delivers the pictures in hand, at the deadline and for poison too.
- A vendor's job that reports its failure is unpaid, counted once however many runs ask.
- Following a final job needs an end: its claims are counted too, and after the deadline a ticket may be given up.
- Poison, too, waits for `outcome_due` of an intent. A ticket that arrives after its attempt was written off is kept
  for the books; only the run that brought it goes on asking.
- Raising the token at the end of a lease or at the claim is enough; the product does both.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.model.explorer import Step
from tests.model.rules import Mutant, Rule, broken_by_send, broken_by_state, broken_by_step
from tests.model.world import (
    IDLE,
    IN_HAND,
    OPEN,
    ORPHANED,
    UNLEASED,
    Attempt,
    Call,
    Status,
    VendorJob,
    World,
    canonical,
    new_world,
    post,
    replace_attempt,
    set_counter,
    update_attempts,
    with_call,
)


class Setting(NamedTuple):
    """Which job and which vendor are modelled."""

    pictures: int = 2
    is_async: bool = False
    """Whether the vendor answers with a ticket instead of pictures."""
    pictures_per_call: int = 2
    """The most that one attempt may cover."""
    spare: int = 0
    """0 under `on_unknown_outcome: fail`, 1 under `failover`."""
    claims_max: int = 2
    slots: int = 2
    """How many runs can live at once; each worker has one."""


class Sent(NamedTuple):
    """One thing that may happen to a call once it is sent."""

    what: str
    call: Call
    is_billed: bool
    vendor_job: VendorJob = ""


ANSWERS_NOW = (
    Sent("gets its pictures", "pictures", is_billed=True),
    Sent("is refused for now", "refused", is_billed=False),
    Sent("is refused for good", "refused_finally", is_billed=False),
    Sent("is billed, the answer is lost", "lost", is_billed=True),
    Sent("comes to nothing, unseen", "lost", is_billed=False),
)
ANSWERS_WITH_TICKET = (
    Sent("gets a ticket for pictures", "ticket", is_billed=True, vendor_job="makes_pictures"),
    Sent("gets a ticket that will fail", "ticket", is_billed=False, vendor_job="fails"),
    Sent("gets a ticket that never ends", "ticket", is_billed=True, vendor_job="hangs"),
    Sent("is refused for now", "refused", is_billed=False),
    Sent("is billed, the ticket is lost", "lost", is_billed=True),
)


class JobModel:
    """The lifecycle as specified, or with one mutant of it."""

    def __init__(self, setting: Setting, mutant: Mutant | None = None) -> None:
        self.setting = setting
        self.mutant = mutant
        self._room = setting.spare * min(setting.pictures, setting.pictures_per_call)
        self._answers = ANSWERS_WITH_TICKET if setting.is_async else ANSWERS_NOW

    # What the explorer asks.

    def initial(self) -> World:
        """The job as its creation commits it."""
        return new_world(self.setting.pictures, self.setting.spare, self.setting.slots, room=self._room)

    def is_done(self, world: World) -> bool:
        """Whether the job is final, each attempt has ended, and no money is held."""
        return world.is_final and not world.has_open_attempt and world.reserved == 0

    def broken_rules(self, world: World) -> list[Rule]:
        """Rules broken by a state; under failover the pictures of one unknown attempt may be bought again."""
        pictures = self.setting.pictures
        bill_limit = pictures + self.setting.spare * min(pictures, self.setting.pictures_per_call)
        return list(broken_by_state(world, pictures=pictures, bill_limit=bill_limit))

    def steps(self, world: World) -> Iterator[Step[World]]:
        """Everything that can happen next."""
        yield from self._client_steps(world)
        yield from self._clock_steps(world)
        yield from self._sweeper_steps(world)
        for slot, token in enumerate(world.runs):
            if token == IDLE:
                yield from self._claim_steps(world, slot)
                continue
            yield from self._fault_steps(world, slot)
            yield from self._call_steps(world, slot)
            if self._holds(world, slot):
                yield from self._holder_steps(world, slot)
            elif self.mutant is Mutant.UNFENCED_INTENT and world.status == "in_progress":
                yield from self._open_steps(world, slot)

    def _step(
        self,
        before: World,
        label: str,
        after: World,
        *,
        run: int | None = None,
        broken: tuple[Rule, ...] = (),
        is_fault: bool = False,
    ) -> Step[World]:
        may_abandon = before.claims >= self.setting.claims_max and before.holder == UNLEASED
        found = broken_by_step(before, after, run=run, may_abandon=may_abandon)
        if self.mutant is None:
            # Nobody asks for more room than this.
            after = after._replace(left=min(after.left, self._room))
        target = canonical(after, trusts_design=self.mutant is None)
        return Step(label, target, (*broken, *found), is_fault)

    def _holds(self, world: World, slot: int) -> bool:
        """What the fence checks: the row's token is mine, and the lease is still on it."""
        return world.runs[slot] == world.token and world.holder != UNLEASED

    # The client, the clock, the sweeper.

    def _client_steps(self, world: World) -> Iterator[Step[World]]:
        if not world.is_final:
            yield self._step(
                world,
                "the client cancels, by a call or by its time limit",
                self._close(world, "cancelled"),
                is_fault=True,
            )
        if self.setting.spare and world.left > 0:
            yield self._step(world, "other jobs take what is left", world._replace(left=0), is_fault=True)

    def _clock_steps(self, world: World) -> Iterator[Step[World]]:
        """`outcome_due` passes; it is only modelled where a step depends on it."""
        for index, attempt in enumerate(world.attempts):
            if not attempt.is_due and (attempt.state == "intent" or "unsent" in attempt.calls):
                due = replace_attempt(world, index, attempt._replace(is_due=True))
                yield self._step(world, f"outcome_due of {_name(attempt)} passes", due)

    def _sweeper_steps(self, world: World) -> Iterator[Step[World]]:
        if world.holder != UNLEASED:
            is_alive = world.holder != ORPHANED
            label = "a living run loses its lease" if is_alive else "the lease of a dead run lapses"
            yield self._step(world, label, self._end_lease(world), is_fault=is_alive)
        if not world.is_overdue and (world.has_open_attempt or not world.is_final):
            yield self._step(world, "the deadline passes", self._pass_deadline(world))
        if world.holder != UNLEASED:
            return
        if self._is_poisoned(world):
            yield self._step(world, "the claims are used up", self._poison(world))
        if world.is_final and self.mutant is not Mutant.FINAL_JOB_NOT_FOLLOWED:
            for index, attempt in enumerate(world.attempts):
                if attempt.state == "intent" and attempt.is_due:
                    yield self._step(
                        world, f"the sweeper writes {_name(attempt)} off", self._write_off(world, index)
                    )

    def _end_lease(self, world: World) -> World:
        """The job goes back to the queue; a final job only loses who followed it."""
        keeps_token = self.mutant in {Mutant.NO_TOKEN_BUMP, Mutant.NO_TOKEN_BUMP_AT_SWEEP}
        token = world.token if keeps_token else world.token + 1
        return world._replace(
            status=world.status if world.is_final else "queued",
            holder=UNLEASED,
            token=1 if self.mutant is Mutant.TOKEN_STARTS_AGAIN else token,
        )

    def _pass_deadline(self, world: World) -> World:
        """A job is final at its deadline; what is still open is followed."""
        is_partly_filled = world.in_hand > 0 and self.mutant is not Mutant.EXPIRED_WITH_PICTURES
        forgets = self.mutant is Mutant.EXPIRED_WITH_CALLS_BEHIND_IT
        status: Status = "failed" if world.was_asked and not forgets else "expired"
        after = self._close(world, "succeeded" if is_partly_filled else status)
        if self.mutant is Mutant.TICKET_DROPPED_AT_DEADLINE:
            after = self._write_all_off(after)
        return after._replace(is_overdue=after.has_open_attempt)

    def _is_poisoned(self, world: World) -> bool:
        """Crash after crash used the claims up, and what may still be sent has had its time."""
        if world.claims < self.setting.claims_max:
            return False
        if world.has_open_attempt and self.mutant is Mutant.NO_POISON_RULE:
            return False
        if self.mutant is not Mutant.POISON_BEFORE_DUE and any(
            attempt.state == "intent" and not attempt.is_due for attempt in world.attempts
        ):
            return False
        return world.has_open_attempt or not world.is_final

    def _poison(self, world: World) -> World:
        after = self._write_all_off(world)
        return self._close(after, self._outcome(after))

    # Claims, crashes, and what the holder decides.

    def _claim_steps(self, world: World, slot: int) -> Iterator[Step[World]]:
        """A claim takes a queued job, or a final one that still has something to follow."""
        follows = (
            world.is_final and world.has_open_attempt and self.mutant is not Mutant.FINAL_JOB_NOT_FOLLOWED
        )
        if world.holder != UNLEASED or world.claims >= self.setting.claims_max:
            return
        if world.status == "queued" or follows:
            keeps_token = self.mutant in {Mutant.NO_TOKEN_BUMP, Mutant.NO_TOKEN_BUMP_AT_CLAIM}
            token = world.token if keeps_token else world.token + 1
            after = world._replace(
                status=world.status if follows else "in_progress",
                token=token,
                holder=slot,
                claims=world.claims + 1,
                runs=(*world.runs[:slot], token, *world.runs[slot + 1 :]),
            )
            yield self._step(world, f"run {slot} claims", after)

    def _fault_steps(self, world: World, slot: int) -> Iterator[Step[World]]:
        after = update_attempts(world, lambda attempt: with_call(attempt, slot, "none"))
        after = after._replace(
            holder=ORPHANED if world.holder == slot else world.holder,
            runs=(*world.runs[:slot], IDLE, *world.runs[slot + 1 :]),
        )
        yield self._step(world, f"run {slot} crashes", after, is_fault=True)

    def _holder_steps(self, world: World, slot: int) -> Iterator[Step[World]]:
        """What a run may decide under its fence; a final job is only followed."""
        if world.status == "in_progress":
            yield from self._open_steps(world, slot)
            if not world.has_open_attempt:
                after = self._close(world, self._outcome(world))
                yield self._step(world, f"run {slot} closes the job", after, run=slot)
        for index, attempt in enumerate(world.attempts):
            yield from self._follow_steps(world, slot, index, attempt)
        if not any(attempt.calls[slot] in IN_HAND for attempt in world.attempts):
            after = self._end_lease(world)._replace(claims=max(0, world.claims - 1))
            after = update_attempts(after, lambda attempt: with_call(attempt, slot, "none"))
            yield self._step(world, f"run {slot} parks the job", after, run=slot)

    def _open_steps(self, world: World, slot: int) -> Iterator[Step[World]]:
        """The last transaction before any byte leaves: the counter is the lock."""
        for pictures in range(1, min(world.to_buy, self.setting.pictures_per_call) + 1):
            calls: list[Call] = ["none"] * self.setting.slots
            calls[slot] = "unsent"
            attempt = Attempt(pictures, "intent", world.runs[slot], tuple(calls))
            if self.mutant is Mutant.SEND_BEFORE_INTENT:
                after = world._replace(attempts=(*world.attempts, attempt._replace(state="unwritten")))
            else:
                after = self._commit_intent(world, attempt)
            yield self._step(world, f"run {slot} opens {_name(attempt)}", after, run=slot)

    def _commit_intent(self, world: World, attempt: Attempt) -> World:
        """Insert the row and lower the counter: what was held for the pictures is the attempt's from now on."""
        lowered = 0 if self.mutant is Mutant.COUNTER_NOT_LOWERED else attempt.pictures
        after = set_counter(world, max(0, world.to_buy - lowered))
        return post(
            after._replace(attempts=(*after.attempts, attempt), was_asked=True), reserved=attempt.pictures
        )

    def _follow_steps(self, world: World, slot: int, index: int, attempt: Attempt) -> Iterator[Step[World]]:
        """Bring attempts to their end that this run did not make, or that it asks the vendor about."""
        name = _name(attempt)
        if attempt.state == "accepted" and self.mutant is Mutant.TICKET_FORGOTTEN:
            yield self._step(world, f"run {slot} forgets {name}", self._write_off(world, index), run=slot)
        elif attempt.state == "accepted" and attempt.calls[slot] == "none":
            after = replace_attempt(world, index, with_call(attempt, slot, "polling"))
            yield self._step(world, f"run {slot} resumes {name}", after, run=slot)
        elif attempt.state == "intent" and attempt.owner_token != world.runs[slot]:
            yield from self._dangling_steps(world, slot, index, attempt)
        may_give_up = world.is_final and world.is_overdue and self.mutant is not Mutant.FOLLOWED_WITHOUT_LIMIT
        if attempt.state == "accepted" and may_give_up:
            yield self._step(world, f"run {slot} gives {name} up", self._write_off(world, index), run=slot)

    def _dangling_steps(self, world: World, slot: int, index: int, attempt: Attempt) -> Iterator[Step[World]]:
        """An intent of an earlier run may have been sent: it is written off, and only once nobody can send it."""
        name = _name(attempt)
        if self.mutant is Mutant.RESEND_DANGLING_INTENT:
            again = with_call(attempt._replace(owner_token=world.runs[slot]), slot, "unsent")
            yield self._step(
                world, f"run {slot} takes {name} over", replace_attempt(world, index, again), run=slot
            )
        elif self.mutant is Mutant.DANGLING_INTENT_IS_UNPAID and attempt.is_due:
            after = self._record_unpaid(world, index)
            yield self._step(world, f"run {slot} takes {name} for unsent", after, run=slot)
        elif attempt.is_due or self.mutant is Mutant.WRITTEN_OFF_BEFORE_DUE:
            yield self._step(world, f"run {slot} writes {name} off", self._write_off(world, index), run=slot)

    # Calls: they need no lease, and a frozen run may make the next step at any later time.

    def _call_steps(self, world: World, slot: int) -> Iterator[Step[World]]:
        for index, attempt in enumerate(world.attempts):
            match attempt.calls[slot]:
                case "none":
                    pass
                case "unsent":
                    yield from self._send_steps(world, slot, index, attempt)
                case "polling":
                    yield from self._poll_steps(world, slot, index, attempt)
                case "lost" | "refused" | "refused_finally" | "ticket" | "pictures" as held:
                    yield self._record_step(world, slot, index, held)

    def _send_steps(self, world: World, slot: int, index: int, attempt: Attempt) -> Iterator[Step[World]]:
        name = _name(attempt)
        if attempt.state != "unwritten":
            kept = self._record(world, slot, index, "refused")
            yield self._step(world, f"run {slot} does not send {name}", kept, run=slot)
        if attempt.is_due and self.mutant is not Mutant.CLOCK_NOT_CHECKED_BEFORE_SEND:
            return
        broken = tuple(broken_by_send(attempt))
        for sent in self._answers:
            after = with_call(attempt._replace(was_sent=True, vendor_job=sent.vendor_job), slot, sent.call)
            yield self._step(
                world,
                f"{name} of run {slot} {sent.what}",
                replace_attempt(world, index, after)._replace(
                    billed=world.billed + attempt.pictures * sent.is_billed
                ),
                run=slot,
                broken=broken,
            )

    def _poll_steps(self, world: World, slot: int, index: int, attempt: Attempt) -> Iterator[Step[World]]:
        name = _name(attempt)
        if attempt.vendor_job == "makes_pictures":
            after = self._record(world, slot, index, "pictures")
            yield self._step(world, f"run {slot} fetches and records {name}", after, run=slot)
        if attempt.vendor_job == "fails":
            after = self._record(world, slot, index, "refused")
            yield self._step(world, f"run {slot} sees {name} fail and records it", after, run=slot)
        if not self._holds(world, slot):
            after = replace_attempt(world, index, with_call(attempt, slot, "none"))
            yield self._step(world, f"run {slot} stops asking about {name}", after, run=slot)

    def _record_step(self, world: World, slot: int, index: int, held: Call) -> Step[World]:
        after = world
        if world.attempts[index].state == "unwritten":
            after = self._commit_intent(world, world.attempts[index]._replace(state="intent"))
            after = after._replace(attempts=(*after.attempts[:index], *after.attempts[index + 1 :]))
            index = len(after.attempts) - 1
        after = self._record(after, slot, index, held)
        return self._step(world, f"run {slot} records: {held}", after, run=slot)

    def _record(self, world: World, slot: int, index: int, held: Call) -> World:
        """Write down what a call brought; this is information, so it needs no fence."""
        is_mine = self._holds(world, slot)
        attempt = world.attempts[index]
        follow_up: Call = "polling" if held == "ticket" else "none"
        cleared = replace_attempt(world, index, with_call(attempt, slot, follow_up))
        match held:
            case "pictures" if is_mine or self.mutant is not Mutant.FENCED_SUCCESS:
                return self._record_success(cleared, index)
            case "ticket" if is_mine or self.mutant is not Mutant.FENCED_TICKET:
                return self._record_ticket(cleared, index)
            case "lost" if self.mutant is Mutant.TIMEOUT_IS_REFUSAL:
                return self._record_unpaid(cleared, index)
            case "lost" if attempt.state == "intent":
                return self._write_off(cleared, index)
            case "refused":
                return self._record_refusal(cleared, slot, index)
            case "refused_finally":
                return self._record_final_refusal(cleared, index)
            case _:
                return cleared

    # What the transactions do to the rows.

    def _record_success(self, world: World, index: int) -> World:
        """Pictures are welcome from anybody, at any time; they close an open job that has nothing left to wait for."""
        attempt = world.attempts[index]
        if attempt.state == "succeeded":
            return world
        after = self._settle(world, index, is_spent=True)
        after = replace_attempt(after, index, after.attempts[index]._replace(state="succeeded"))
        if world.is_final and self.mutant is not Mutant.FINAL_STATUS_OVERWRITTEN:
            return self._end_follow(after)
        after = after._replace(in_hand=after.in_hand + attempt.pictures)
        if self.mutant is not Mutant.LATE_SUCCESS_LEAVES_COUNTER:
            after = set_counter(after, min(after.to_buy, self._missing(after)))
        if after.to_buy == 0 and not after.has_open_attempt:
            return self._close(after, "succeeded")
        return after

    def _record_ticket(self, world: World, index: int) -> World:
        """A ticket for an attempt that was written off meanwhile is only kept for the books."""
        attempt = world.attempts[index]
        if attempt.state != "intent":
            return world
        return replace_attempt(world, index, attempt._replace(state="accepted"))

    def _record_refusal(self, world: World, slot: int, index: int) -> World:
        attempt = world.attempts[index]
        each_raises = {Mutant.COUNTER_RAISED_BY_EACH_POLLER, Mutant.COUNTER_RAISED_BY_SENDER_AND_SWEEPER}
        if attempt.state in OPEN:
            world = self._record_unpaid(world, index)
        elif self.mutant in each_raises and not world.is_final:
            world = self._raise_counter(world, attempt.pictures)
        if self.mutant is Mutant.UNFENCED_FAILURE and not world.is_final and world.holder != slot:
            world = self._end_lease(world)
        return world

    def _record_final_refusal(self, world: World, index: int) -> World:
        """The request itself is refused: nothing is bought any more, but what is open still counts."""
        after = world if world.is_final else set_counter(world, 0)._replace(is_refused=True)
        if after.attempts[index].state in OPEN:
            after = self._record_unpaid(after, index)
        if self.mutant is Mutant.REFUSAL_FAILS_PARTLY_FILLED_JOB and not after.is_final:
            after = self._close(after, "failed")
        return after

    def _record_unpaid(self, world: World, index: int) -> World:
        """On proof that nothing was paid: the pictures may be bought again."""
        attempt = world.attempts[index]
        after = self._settle(world, index, is_spent=False)
        after = replace_attempt(after, index, after.attempts[index]._replace(state="unpaid"))
        return self._end_follow(self._raise_counter(after, attempt.pictures))

    def _write_off(self, world: World, index: int) -> World:
        """The outcome stays unknown: booked as spent, and bought again only while there is a spare, and room for it."""
        attempt = world.attempts[index]
        after = self._settle(world, index, is_spent=True)
        after = replace_attempt(after, index, after.attempts[index]._replace(state="unknown"))
        if world.spare or self.mutant is Mutant.COUNTER_RAISED_WITHOUT_SPARE:
            raised = self._raise_counter(after, attempt.pictures)
            if raised.left >= 0 or self.mutant is Mutant.FAILOVER_ASKS_FOR_NO_ROOM or not world.spare:
                after = raised._replace(spare=max(0, world.spare - 1))
        return self._end_follow(after)

    def _write_all_off(self, world: World) -> World:
        after = world._replace(spare=0)
        for index, attempt in enumerate(world.attempts):
            if attempt.state in OPEN:
                after = self._write_off(after, index)
        return after

    def _raise_counter(self, world: World, pictures: int) -> World:
        """Never above what is missing: an attempt written off earlier may have delivered since."""
        if world.is_final or (world.is_refused and self.mutant is not Mutant.REFUSAL_DOES_NOT_LAST):
            return world
        raised = world.to_buy + pictures
        unlimited = {Mutant.COUNTER_RAISED_WITHOUT_LIMIT, Mutant.COUNTER_RAISED_BY_SENDER_AND_SWEEPER}
        return set_counter(world, raised if self.mutant in unlimited else min(raised, self._missing(world)))

    def _missing(self, world: World) -> int:
        return max(0, self.setting.pictures - world.in_hand - world.on_the_way)

    def _settle(self, world: World, index: int, *, is_spent: bool) -> World:
        """Move an attempt's hold once: to the money spent, or back to the budget."""
        attempt = world.attempts[index]
        if attempt.is_settled and self.mutant is not Mutant.SETTLED_TWICE:
            return world
        after = replace_attempt(world, index, attempt._replace(is_settled=True))
        if self.mutant is Mutant.REFUSAL_KEEPS_HOLD and not is_spent:
            return after
        return post(after, reserved=-attempt.pictures, spent=attempt.pictures * is_spent)

    def _outcome(self, world: World) -> Status:
        """Pictures that are paid are delivered, however few."""
        is_filled = world.in_hand > 0 or self.mutant is Mutant.SUCCEEDED_EMPTY_HANDED
        return "succeeded" if is_filled else "failed"

    def _close(self, world: World, status: Status) -> World:
        """The one way to a final status: the unused hold is released, open attempts keep theirs until they end."""
        if world.is_final and self.mutant is not Mutant.FINAL_STATUS_OVERWRITTEN:
            return self._end_follow(world)
        keeps_hold = self.mutant is Mutant.CLOSE_KEEPS_UNUSED_HOLD or (
            self.mutant is Mutant.CANCEL_KEEPS_UNUSED_HOLD and status == "cancelled"
        )
        after = world._replace(to_buy=0) if keeps_hold else set_counter(world, 0)
        after = after._replace(status=status, spare=0, is_refused=False)
        if self.mutant is Mutant.CLOSE_RELEASES_OPEN_HOLDS:
            for index, attempt in enumerate(after.attempts):
                if attempt.state in OPEN:
                    after = self._settle(after, index, is_spent=False)
        return self._end_follow(after)

    def _end_follow(self, world: World) -> World:
        """A final job without an open attempt needs nobody any more."""
        if world.is_final and not world.has_open_attempt and world.holder != UNLEASED:
            return world._replace(holder=UNLEASED, token=world.token + 1)
        return world


def _name(attempt: Attempt) -> str:
    return f"an attempt of {attempt.pictures}"
