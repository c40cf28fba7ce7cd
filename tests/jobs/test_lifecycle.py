"""The lifecycle by enumeration: every move from every state, every kind of evidence and what follows from it."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.db.tables.jobs import jobs
from app.db.types import now
from app.domain.failures import CLASS_OF, FailureClass, FailureKind
from app.jobs import repository
from app.jobs.lifecycle import (
    FINAL,
    MOVES,
    AttemptFact,
    AttemptState,
    Buy,
    End,
    Ending,
    Move,
    Status,
    Verdict,
    Wait,
    conclude,
    diagram,
)
from tests.jobs.conftest import Store

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
S, U, K, I, A = (  # noqa: E741 - short, for tables
    AttemptState.SUCCEEDED,
    AttemptState.UNPAID,
    AttemptState.UNKNOWN,
    AttemptState.INTENT,
    AttemptState.ACCEPTED,
)


def columns(status: Status) -> dict[str, Any]:
    """What the schema wants of a job in this state."""
    return {
        "status": status.value,
        "lease_until": datetime.now(UTC) + timedelta(seconds=30) if status is Status.IN_PROGRESS else None,
        "finished_at": now() if status in FINAL else None,
        "result": {} if status is Status.SUCCEEDED else None,
    }


def _without_dates(values: dict[str, Any]) -> dict[str, Any]:
    """What a move is given: it dates the end, and names the state, by itself."""
    return {name: value for name, value in values.items() if name not in {"status", "finished_at"}}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("step", MOVES, ids=lambda step: step.name)
async def test_each_move_leaves_only_the_states_it_may(store: Store, step: Move, status: Status) -> None:
    job_id = await store.job()
    async with store.database.transaction() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(**columns(status)))
    job = await store.look(job_id)
    async with store.database.transaction() as connection:
        values = _without_dates(columns(step.reaches))
        moved = await repository.move(connection, job, step, values, token=None)
    assert (moved is not None) == (status in step.leaves)
    assert (await store.look(job_id)).status is (step.reaches if moved else status)


async def test_a_move_under_an_old_token_does_nothing(store: Store) -> None:
    job_id = await store.job()
    job = await store.claim()
    finish = next(step for step in MOVES if step.name == "fail")
    async with store.database.transaction() as connection:
        values = _without_dates(columns(Status.FAILED))
        assert not await repository.move(connection, job, finish, values, token=job.lease_token - 1)
    assert (await store.look(job_id)).status is Status.IN_PROGRESS


@pytest.mark.parametrize("status", Status)
def test_every_state_is_reached_and_only_final_ones_are_never_left(status: Status) -> None:
    assert status is Status.QUEUED or any(step.reaches is status for step in MOVES)
    assert status.is_final != any(status in step.leaves for step in MOVES)


def fact(state: AttemptState, *, round_number: int = 1, kind: FailureKind | None = None) -> AttemptFact:
    """An attempt of one picture; one that failed was busy, or timed out, if nothing else is said."""
    usual = {U: FailureKind.BUSY, K: FailureKind.TIMED_OUT}
    return AttemptFact(state=state, pictures=1, round=round_number, failure=kind or usual.get(state))


FAULT = fact(U, kind=FailureKind.REFUSED)
CASES: list[tuple[str, list[AttemptFact], int, bool, Verdict]] = [
    ("nothing was tried", [], 2, False, Buy(2, 1)),
    ("a call is in flight", [fact(I)], 1, False, Wait()),
    ("a call is in flight at the deadline", [fact(I)], 1, True, End(Ending.OUTCOME_UNKNOWN)),
    ("a call is in flight at the deadline, a part is there", [fact(I), fact(S)], 0, True, End(Ending.PICTURES)),
    ("a call is in flight at the deadline, another was refused", [fact(I), FAULT], 0, True, End(Ending.FAULT)),
    ("an order is open, all is bought", [fact(A)], 0, False, Wait()),
    ("an order is open, a part is to be bought again", [fact(A), fact(U)], 1, False, Buy(1, 2)),
    ("an order is open at the deadline", [fact(A)], 0, True, End(Ending.OUTCOME_UNKNOWN)),
    ("an order is open at the deadline, a part is there", [fact(A), fact(S)], 0, True, End(Ending.PICTURES)),
    ("all is there", [fact(S)], 0, False, End(Ending.PICTURES)),
    ("a part is there, the rest may be bought", [fact(S), fact(U)], 1, False, Buy(1, 2)),
    ("a part is there, its rest refused", [fact(S), FAULT], 0, False, End(Ending.PICTURES)),
    ("a part is there at the deadline", [fact(S), fact(U)], 1, True, End(Ending.PICTURES)),
    ("the request is at fault", [FAULT], 0, False, End(Ending.FAULT)),
    ("the request is at fault, though buying was allowed", [FAULT], 1, False, End(Ending.FAULT)),
    ("the request is at fault, an order is still open", [FAULT, fact(A)], 0, False, Wait()),
    ("the outcome is unknown", [fact(K)], 0, False, End(Ending.OUTCOME_UNKNOWN)),
    ("the outcome is unknown, failover allows one more", [fact(K)], 1, False, Buy(1, 2)),
    ("unknown once, then all failed", [fact(K), fact(U, round_number=4)], 1, False, End(Ending.OUTCOME_UNKNOWN)),
    ("attempts are used up", [fact(U, round_number=4)], 1, False, End(Ending.ALL_FAILED)),
    ("nothing was tried by the deadline", [], 2, True, End(Ending.NOT_STARTED)),
    ("attempts failed until the deadline", [fact(U)], 1, True, End(Ending.ALL_FAILED)),
]  # fmt: skip


@pytest.mark.parametrize(
    "facts, to_buy, is_due, verdict", [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_a_job_needs_next(facts: list[AttemptFact], to_buy: int, is_due: bool, verdict: Verdict) -> None:
    assert conclude(facts, to_buy=to_buy, max_rounds=4, is_due=is_due) == verdict


@pytest.mark.parametrize("kind", FailureKind)
def test_only_a_fault_of_the_request_ends_all_buying(kind: FailureKind) -> None:
    verdict = conclude([fact(U, kind=kind)], to_buy=1, max_rounds=4, is_due=False)
    assert isinstance(verdict, End) == (CLASS_OF[kind] is FailureClass.FINAL)


def test_whatever_the_evidence_pictures_are_delivered_and_the_deadline_kept() -> None:
    kinds: list[AttemptFact] = [fact(state) for state in AttemptState] + [FAULT]
    for size in range(4):
        for facts in itertools.combinations_with_replacement(kinds, size):
            for to_buy, is_due in itertools.product((0, 1), (False, True)):
                verdict = conclude(facts, to_buy=to_buy, max_rounds=4, is_due=is_due)
                states = {item.state for item in facts}
                if I in states and not is_due:
                    assert verdict == Wait()
                if isinstance(verdict, Buy):
                    assert to_buy
                    assert not is_due
                    assert FAULT not in facts
                if isinstance(verdict, End):
                    assert (verdict.ending is Ending.PICTURES) == (S in states)
                    assert (verdict.ending is Ending.NOT_STARTED) == (is_due and not facts)
                    assert is_due or A not in states
                if is_due:
                    assert isinstance(verdict, End)


def test_the_diagram_in_the_documents_is_the_lifecycle() -> None:
    assert f"```mermaid\n{diagram()}\n```" in ARCHITECTURE.read_text(encoding="utf-8")
