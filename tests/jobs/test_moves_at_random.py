"""Hypothesis drives the real moves on a real Postgres, with workers that crash, sleep and come back.

The machine knows what the product cannot: what the vendors really sold. `make fuzz` runs it for longer.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import insert, text

from app.assets.records import Picture
from app.db.engine import Database
from app.db.tables.teams import teams
from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.money import Certainty
from app.domain.pictures import PictureFormat
from app.jobs import repository
from app.jobs.errors import IdempotencyKeyReused
from app.jobs.integrity import check_integrity
from app.jobs.lifecycle import FINAL, AttemptState, Lost, Status
from app.jobs.openings import NewAttempt, UpstreamLimits
from app.jobs.records import Attempt, Job
from app.jobs.service import JobService
from app.jobs.transitions import CLAIMS_MAX, FOLLOW_S, Transitions
from app.kit.ids import new_id
from tests.jobs.shop import CAREFUL, EAGER, front_door, submission

IS_LONG: Final = "DARKROOM_FUZZ_EXAMPLES" in os.environ
EXAMPLES: Final = int(os.environ.get("DARKROOM_FUZZ_EXAMPLES", "10"))
STEPS: Final = int(os.environ.get("DARKROOM_FUZZ_STEPS", "30"))
SEND_WITHIN_S: Final = 20.0
"""A sender that wakes later than this does not send."""
TIMEOUT_S: Final = 330.0
TEAM: Final = "team_1"
LIMITS: Final = UpstreamLimits(max_concurrency=6, requests_per_minute=None, images_per_minute=None)
BUSY: Final = UpstreamFailure(FailureKind.BUSY, "limits our rate")
REFUSED: Final = UpstreamFailure(FailureKind.REFUSED, "content policy")
TIMED_OUT: Final = UpstreamFailure(FailureKind.TIMED_OUT, "no answer")
TOO_LATE: Final = UpstreamFailure(FailureKind.DOWN, "not sent")
TABLES: Final = "jobs, job_metadata, attempts, assets, idempotency_keys, upstream_states, teams"
# They say that somebody should have come by; the machine decides when that is.
NEEDS_A_SWEEP: Final = {"job_stuck", "attempt_forgotten", "lease_forgotten"}

FATES: Final = st.sampled_from(
    ["pictures", "pictures", "fewer", "busy", "refused", "lost, billed", "lost, unbilled", "ticket"]
)
ORDER_FATES: Final = st.sampled_from(["makes pictures", "fails", "hangs"])

T = TypeVar("T")
Fate = Literal["pictures", "fewer", "busy", "refused", "lost, billed", "lost, unbilled", "ticket"]
OrderFate = Literal["makes pictures", "fails", "hangs"]


@dataclass
class Call:
    """What a worker holds in memory for one attempt."""

    attempt: Attempt
    age_s: float = 0.0
    fate: Fate | None = None
    """None: not sent yet."""
    order: OrderFate | None = None
    """Set once the ticket is written down: it is asked after."""


@dataclass
class Run:
    """One worker's hold of a job, from its claim until it crashes or has nothing more to do."""

    job: Job
    moves: Transitions
    calls: dict[str, Call] = field(default_factory=dict)


@dataclass
class Truth:
    """What really happened to a job, and what was seen of it."""

    n: int
    spare: int
    billed: int = 0
    token: int = 0
    ending: tuple[object, ...] | None = None


class World:
    """The database and the connections of everybody in it; shared by all examples of a run."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.Runner()
        self.workers = [Database(url, pool_size=2) for _ in range(3)]
        self.api = Database(url, pool_size=2)
        self.eyes = Database(url, pool_size=1)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do one thing to its end."""
        return self.loop.run(work)

    def close(self) -> None:
        """Leave the database."""
        for database in (*self.workers, self.api, self.eyes):
            self.run(database.close())
        self.loop.close()


class Moves(RuleBasedStateMachine):
    """Jobs, workers and vendors; each rule is something that can happen next."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.moves = [Transitions(database, lease_s=30.0) for database in self.world.workers]
        self.door: JobService = front_door(self.world.api)
        self.truths: dict[str, Truth] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.runs: list[Run] = []
        self.orders: dict[str, OrderFate] = {}
        self.again: Callable[[], Coroutine[Any, Any, object]] | None = None

    @initialize(
        orders=st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from([CAREFUL, EAGER])), min_size=1, max_size=2
        )
    )
    def begin(self, orders: list[tuple[int, str]]) -> None:
        """Each example starts with a job or two, held by workers."""

        async def work() -> None:
            async with self.world.eyes.transaction() as connection:
                await connection.execute(text(f"TRUNCATE {TABLES} CASCADE"))
                await connection.execute(insert(teams).values(id=TEAM, name="one", limits={}))

        self.world.run(work())
        for n, model in orders:
            self.submit(n, model, None, None)
        self.claim(len(orders), 1)

    # Clients.

    @rule(
        n=st.integers(1, 4),
        model=st.sampled_from([CAREFUL, EAGER]),
        key=st.sampled_from([None, None, "a", "b"]),
        cancel_after_s=st.sampled_from([None, None, 60.0]),
    )
    def submit(self, n: int, model: str, key: str | None, cancel_after_s: float | None) -> None:
        """A client asks for pictures, perhaps once more under the same key, perhaps within a time of its own."""
        if len(self.truths) >= 3 and key is None:
            return
        self.again = None
        wanted = submission(TEAM, model=model, n=n, idempotency_key=key, cancel_after_s=cancel_after_s)
        known = self.keys.get(key or "")
        try:
            done = self.world.run(self.door.submit(wanted))
        except IdempotencyKeyReused:
            assert known is not None
            assert known[1] != f"{model} {n}"
            return
        if known is not None:
            assert known == (done.job.id, f"{model} {n}")
            assert done.is_replay
            return
        assert not done.is_replay
        self.truths[done.job.id] = Truth(n=n, spare=1 if model == EAGER else 0)
        if key is not None:
            self.keys[key] = (done.job.id, f"{model} {n}")

    @precondition(lambda self: self.truths)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A client gives a job up."""
        job_id = data.draw(st.sampled_from(list(self.truths)))
        self._act(lambda: self.moves[0].cancel(job_id, TEAM))

    # Workers.

    @rule(workers=st.integers(1, 3), limit=st.integers(1, 2))
    def claim(self, workers: int, limit: int) -> None:
        """Some workers look for work at the same moment."""

        async def work() -> list[list[Job]]:
            return await asyncio.gather(
                *(moves.claim(f"worker-{number}", limit) for number, moves in enumerate(self.moves[:workers]))
            )

        self.again = None
        claimed: list[Run] = []
        for moves, taken in zip(self.moves, self.world.run(work()), strict=False):
            assert len(taken) <= limit
            claimed += [Run(job, moves) for job in taken]
        # Who of them got which job is chance, and must not decide what Hypothesis draws next.
        order = list(self.truths)
        self.runs += sorted(claimed, key=lambda run: order.index(run.job.id))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def decide(self, data: st.DataObject) -> None:
        """A run, or one that only thinks so, asks what to do, and takes orders up again."""
        run = self._run(data)
        followed = frozenset(run.calls)
        decision = self._act(
            lambda: run.moves.decide(run.job.id, run.job.lease_token, max_rounds=4, followed=followed)
        )
        for attempt in decision.resume if decision else ():
            run.calls[attempt.id] = Call(attempt, fate="ticket", order=self.orders[attempt.id])

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), split=st.booleans(), fates=st.lists(FATES, max_size=4), order=ORDER_FATES)
    def work(self, data: st.DataObject, split: bool, fates: list[Fate], order: OrderFate) -> None:
        """A run does all of its work at once: it buys, sends, and writes down most of what comes."""
        run = self._run(data)
        self._open(run, split=split, surplus=0, round_number=1)
        unsent = [call for call in run.calls.values() if call.fate is None]
        for call, fate in zip(unsent, fates, strict=False):
            self._send(run, call, fate, order)
            if fate != "fewer" and call.fate is not None:
                self._record(run, call)

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        split=st.booleans(),
        surplus=st.sampled_from([0, 0, 0, 1]),
        round_number=st.integers(1, 3),
    )
    def open(self, data: st.DataObject, split: bool, surplus: int, round_number: int) -> None:
        """A run buys what may be bought; with a surplus, or without the lease, it must not succeed."""
        self._open(self._run(data), split=split, surplus=surplus, round_number=round_number)

    @precondition(lambda self: self._calls(lambda call: call.fate is None))
    @rule(
        data=st.data(),
        fate=FATES,
        order=ORDER_FATES,
    )
    def send(self, data: st.DataObject, fate: Fate, order: OrderFate) -> None:
        """A call goes out, from whoever still has it in hand; the vendor does with it what it likes."""
        run, call = self._call(data, lambda call: call.fate is None)
        self._send(run, call, fate, order)

    @precondition(lambda self: self._calls(lambda call: call.fate is not None and call.order is None))
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """A run writes down what its call brought, with or without the lease."""
        run, call = self._call(data, lambda call: call.fate is not None and call.order is None)
        self._record(run, call)

    @precondition(lambda self: self._calls(lambda call: call.order not in {None, "hangs"}))
    @rule(data=st.data())
    def poll(self, data: st.DataObject) -> None:
        """A run asks after an order, and writes down how it ended."""
        run, call = self._call(data, lambda call: call.order not in {None, "hangs"})
        self._poll(run, call)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 5.0]))
    def park(self, data: st.DataObject, delay_s: float) -> None:
        """A run gives its job back; what it has in hand it would send or write down first."""
        run = self._run(data)
        if all(call.order is not None for call in run.calls.values()):
            self._act(lambda: run.moves.park(run.job.id, run.job.lease_token, delay_s=delay_s))
            self.runs.remove(run)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A run finds no route that can be asked."""
        run = self._run(data)
        self._act(lambda: run.moves.give_up(run.job.id, run.job.lease_token))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A heartbeat."""
        run = self._run(data)
        self._act(lambda: run.moves.renew({run.job.id: run.job.lease_token}))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A process dies with everything that it had in memory."""
        self.runs.remove(self._run(data))

    # Time, and whoever looks after what time does.

    @rule(seconds=st.sampled_from([5.0, 31.0, 31.0, 120.0, 400.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        """Everything in the tables becomes older."""
        self.again = None
        self._age(seconds)

    @rule()
    def sweep(self) -> None:
        """Two sweepers come by at the same moment."""

        async def work() -> None:
            await asyncio.gather(self.moves[0].rescue(), self.moves[1].rescue())
            await asyncio.gather(self.moves[0].call_off(), self.moves[1].call_off())
            await asyncio.gather(self.moves[0].end_overdue(), self.moves[1].end_overdue())

        self.again = None
        self.world.run(work())

    @precondition(lambda self: self.again is not None)
    @rule()
    def commit_again(self) -> None:
        """The answer to the last COMMIT was lost, and its transaction is made once more."""
        assert self.again is not None
        before = self._state()
        self._act(self.again)
        assert self._state() == before

    def _state(self) -> list[Any]:
        return [
            self._rows("SELECT id, status, to_buy, spare, claims FROM jobs ORDER BY id"),
            self._rows("SELECT id, state, settled, cost_micros, ticket FROM attempts ORDER BY id"),
            self._rows("SELECT id, kind FROM assets ORDER BY id"),
        ]

    # What must hold.

    @invariant()
    def the_books_are_right(self) -> None:
        """The promises as SQL, and against what the vendors really sold."""

        async def work() -> list[str]:
            async with self.world.eyes.reading() as connection:
                return [
                    f"{broken.sentence}: {broken.ids}"
                    for broken in await check_integrity(connection)
                    if broken.name not in NEEDS_A_SWEEP
                ]

        assert self.world.run(work()) == []
        for job_id, truth in self.truths.items():
            attempts = self._attempts(job_id)
            largest = max((item.pictures for item in attempts), default=0)
            assert truth.billed <= truth.n + truth.spare * largest, f"{job_id} was billed too often"
            not_unpaid = sum(item.pictures for item in attempts if item.state is not AttemptState.UNPAID)
            assert truth.billed <= not_unpaid, f"the books of {job_id} are behind the bill"
        self._check_history()

    def _check_history(self) -> None:
        rows = self._rows("SELECT id, lease_token, status, result::text, error::text FROM jobs")
        assert {row[0] for row in rows} == self.truths.keys()
        for job_id, token, status, *ending in rows:
            truth = self.truths[job_id]
            assert token >= truth.token
            truth.token = token
            seen = (status, *ending)
            assert truth.ending in {None, seen}, "a final job changed"
            if Status(status) in FINAL:
                truth.ending = seen

    def teardown(self) -> None:
        """However it was left, workers and sweepers bring everything to an end, and nobody buys for it."""
        if self.truths:
            self._bring_to_an_end()
        self.again = None

    def _bring_to_an_end(self) -> None:
        # Those that still have something in hand are cut off for good.
        self.runs.clear()
        open_rows = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
        open_calls = "SELECT count(*) FROM attempts WHERE finished_at IS NULL"
        for _ in range(4 * CLAIMS_MAX):
            self.claim(3, 2)
            for run in list(self.runs):
                self._carry_on(run)
            self._age(FOLLOW_S + TIMEOUT_S)
            self.sweep()
            if (self._rows(open_rows), self._rows(open_calls)) == ([(0,)], [(0,)]):
                break
        self._age(3 * FOLLOW_S)
        self.sweep()

        async def work() -> list[str]:
            async with self.world.eyes.reading() as connection:
                return [broken.sentence for broken in await check_integrity(connection)]

        assert self.world.run(work()) == []
        self.the_books_are_right()

    def _carry_on(self, run: Run) -> None:
        token = run.job.lease_token
        decision = self._act(lambda: run.moves.decide(run.job.id, token, max_rounds=4, followed=frozenset()))
        if decision is None:
            self.runs.remove(run)
            return
        for attempt in decision.resume:
            if self.orders[attempt.id] != "hangs":
                self._poll(run, Call(attempt, fate="ticket", order=self.orders[attempt.id]))
        self._act(lambda: run.moves.give_up(run.job.id, token))
        self._act(lambda: run.moves.decide(run.job.id, token, max_rounds=4, followed=frozenset()))
        self._act(lambda: run.moves.park(run.job.id, token, delay_s=0.0))
        self.runs.remove(run)

    # Hands.

    def _run(self, data: st.DataObject) -> Run:
        return self.runs[data.draw(st.integers(0, len(self.runs) - 1), label="run")]

    def _calls(self, fits: Callable[[Call], bool]) -> list[tuple[Run, Call]]:
        return [(run, call) for run in self.runs for call in run.calls.values() if fits(call)]

    def _call(self, data: st.DataObject, fits: Callable[[Call], bool]) -> tuple[Run, Call]:
        found = self._calls(fits)
        return found[data.draw(st.integers(0, len(found) - 1), label="call")]

    def _act(self, move: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Make a move, and remember it in case it is made once more; None when the fence stands in the way."""
        self.again = move
        try:
            return self.world.run(move())
        except Lost:
            return None

    def _open(self, run: Run, *, split: bool, surplus: int, round_number: int) -> None:
        [(to_buy,)] = self._rows(f"SELECT to_buy FROM jobs WHERE id = '{run.job.id}'")  # noqa: S608 - our own id
        pictures = to_buy + surplus
        if not pictures:
            return
        planned = [
            NewAttempt(id=new_id("att"), upstream="openai", target={"model": "m"}, pictures=share)
            for share in ([1] * pictures if split else [pictures])
        ]
        opened = self._act(
            lambda: run.moves.open_attempts(
                run.job.id,
                run.job.lease_token,
                planned,
                round_number=round_number,
                limits=LIMITS,
                timeout_s=TIMEOUT_S,
            )
        )
        assert not (opened and surplus), "bought more than may be bought"
        for attempt in opened or ():
            run.calls[attempt.id] = Call(attempt)

    def _send(self, run: Run, call: Call, fate: Fate, order: OrderFate) -> None:
        attempt = call.attempt
        if call.age_s > SEND_WITHIN_S:
            del run.calls[attempt.id]
            self._act(lambda: run.moves.refuse(attempt, TOO_LATE))
            return
        states = {item.id: item.state for item in self._attempts(attempt.job_id)}
        assert states[attempt.id] is AttemptState.INTENT, "sent although others had written it off"
        if fate == "fewer" and attempt.pictures == 1:
            fate = "pictures"
        call.fate = fate
        if fate == "ticket":
            self.orders[attempt.id] = order
        made = {
            "pictures": attempt.pictures,
            "fewer": attempt.pictures - 1,
            "lost, billed": attempt.pictures,
            "ticket": 0 if order == "fails" else attempt.pictures,
        }
        self.truths[attempt.job_id].billed += made.get(fate, 0)

    def _record(self, run: Run, call: Call) -> None:
        attempt = call.attempt
        match call.fate:
            case "ticket":
                assert self._act(lambda: run.moves.accept(attempt, f"order of {attempt.id}"))
                call.order = self.orders[attempt.id]
                return
            case "pictures" | "fewer":
                self._succeed(run, attempt, attempt.pictures - (call.fate == "fewer"))
            case "busy":
                self._act(lambda: run.moves.refuse(attempt, BUSY))
            case "refused":
                self._act(lambda: run.moves.refuse(attempt, REFUSED))
            case "lost, billed" | "lost, unbilled":
                self._act(lambda: run.moves.lose_track(attempt, TIMED_OUT))
            case None:
                raise AssertionError("never sent")
        del run.calls[attempt.id]

    def _poll(self, run: Run, call: Call) -> None:
        run.calls.pop(call.attempt.id, None)
        if call.order == "makes pictures":
            self._succeed(run, call.attempt, call.attempt.pictures)
        else:
            self._act(lambda: run.moves.refuse(call.attempt, BUSY))

    def _succeed(self, run: Run, attempt: Attempt, made: int) -> None:
        pictures = [
            Picture(
                file_id=new_id("file"),
                key=new_id("key"),
                format=PictureFormat.PNG,
                width_px=1024,
                height_px=1024,
                size_bytes=10,
                sha256=b"",
            )
            for _ in range(made)
        ]
        self._act(
            lambda: run.moves.succeed(
                attempt,
                pictures,
                usage=None,
                resolved={},
                cost_micros=made * 6000,
                certainty=Certainty.ESTIMATED,
                max_rounds=4,
            )
        )

    def _attempts(self, job_id: str) -> list[Attempt]:
        async def work() -> list[Attempt]:
            async with self.world.eyes.reading() as connection:
                return await repository.attempts_of(connection, [job_id])

        return self.world.run(work())

    def _rows(self, query: str) -> list[Any]:
        async def work() -> list[Any]:
            async with self.world.eyes.reading() as connection:
                return [tuple(row) for row in await connection.execute(text(query))]

        return self.world.run(work())

    def _age(self, seconds: float) -> None:
        # What is released never changes again, its age included.
        columns = {
            "jobs": "created_at started_at available_at deadline_at cancel_at lease_until finished_at",
            "attempts": "opened_at outcome_due finished_at",
        }
        frozen = {"attempts": " WHERE settled IS DISTINCT FROM 'released'"}

        async def work() -> None:
            async with self.world.eyes.transaction() as connection:
                for table, names in columns.items():
                    moved = ", ".join(f"{name} = {name} - interval '{seconds} s'" for name in names.split())
                    await connection.execute(text(f"UPDATE {table} SET {moved}{frozen.get(table, '')}"))  # noqa: S608 - our own words

        self.world.run(work())
        for _, call in self._calls(lambda call: call.fate is None):
            call.age_s += seconds


def test_no_order_of_moves_breaks_a_promise(postgres_url: str) -> None:
    world = World(postgres_url)
    try:
        run_state_machine_as_test(
            type("MovesHere", (Moves,), {"world": world}),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=not IS_LONG,
                database=None,
                # To shrink a failure takes minutes; `make fuzz` does it.
                phases=tuple(Phase) if IS_LONG else (Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        world.close()
