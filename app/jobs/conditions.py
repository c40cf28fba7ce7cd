"""Conditions on the state of jobs and attempts, and limits, written into the statement instead of bound to it.

A partial index serves a query only if the planner sees the state in the text, and a limit that it does not see may be
a tenth of the table. A bound value is hidden from it as soon as a prepared statement has a generic plan.
"""

from sqlalchemy import BindParameter, ColumnElement, Integer, bindparam, func, literal, literal_column, select

from app.db.tables.attempts import attempts
from app.db.tables.jobs import jobs
from app.jobs.lifecycle import OPEN_ATTEMPT, AttemptState, Status


def has_status(*statuses: Status) -> ColumnElement[bool]:
    """The job has one of these states."""
    return jobs.c.status.in_([literal_column(f"'{status.value}'") for status in statuses])


def has_state(*states: AttemptState) -> ColumnElement[bool]:
    """The attempt has one of these states."""
    return attempts.c.state.in_([literal_column(f"'{state.value}'") for state in states])


def is_open_attempt() -> ColumnElement[bool]:
    """The attempt's outcome is still awaited."""
    return has_state(*sorted(OPEN_ATTEMPT))


def has_open_attempt(*, is_sqlite: bool) -> ColumnElement[bool]:
    """The job is one of those with an open attempt, found from the attempts: few are open at any time."""
    open_attempts = select(attempts.c.job_id).where(is_open_attempt())
    if is_sqlite:
        return jobs.c.id.in_(open_attempts)
    # As an array, or else the planner walks all jobs in the wanted order and expects to meet one of these soon.
    return jobs.c.id == func.any(func.array(open_attempts.scalar_subquery()))


def at_most(rows: int) -> BindParameter[int]:
    """A limit that the planner sees."""
    return literal(rows, literal_execute=True)


def seen_limit(name: str) -> BindParameter[int]:
    """The same, of a statement that is built once and given the limit by this name."""
    return bindparam(name, type_=Integer(), literal_execute=True)
