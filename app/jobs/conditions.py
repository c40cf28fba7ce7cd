"""Conditions on the state of jobs and attempts, written into the statement instead of bound to it.

A partial index serves a query only if the planner sees the state in the text. A bound value is hidden from it as soon
as a prepared statement has a generic plan.
"""

from sqlalchemy import ColumnElement, literal_column

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
