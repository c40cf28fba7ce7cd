"""Waiting for a job with one live line: its status, the upstream at work, the time since it was handed in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.cli.client import FINAL, Gateway
from app.cli.errors import GatewayUnreachable, LeftWaiting
from app.kit.json import JsonObject

# Each answer may show a new status or upstream, so the line is at most this old.
_WAIT_S: Final = 1.0
# A gateway that restarts is back within this; the job waits for it.
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.5


def wait_for(gateway: Gateway, job: JsonObject) -> JsonObject:
    """Return the job once it is final, with a live line on standard error where that is a terminal.

    A gateway that goes away for up to a minute is waited for.

    Raises:
        LeftWaiting: Ctrl-C; the job goes on, and the message says how to collect it.
        GatewayUnreachable: the gateway stayed away; the message says the same.
    """
    job_id = str(job["id"])
    try:
        with _line(describe(job)) as line:
            return _followed(gateway, job_id, job, line)
    except KeyboardInterrupt as exc:
        raise LeftWaiting(f"The job {job_id} goes on without you.\n{_how_to_collect(job_id)}") from exc
    except GatewayUnreachable as exc:
        raise GatewayUnreachable(
            f"{exc}\nThe job {job_id} may be going on.\n{_how_to_collect(job_id)}"
        ) from exc


class _Line:
    def __init__(self, progress: Progress, text: str) -> None:
        self._progress = progress
        self._task = progress.add_task(text, total=None)

    def show(self, text: str) -> None:
        self._progress.update(self._task, description=text)


@contextmanager
def _line(text: str) -> Iterator[_Line]:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    console = Console(stderr=True)
    # Without a terminal rich would leave a dead line behind.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Line(progress, text)


def _followed(gateway: Gateway, job_id: str, job: JsonObject, line: _Line) -> JsonObject:
    away_since: float | None = None
    while job["status"] not in FINAL:
        line.show(describe(job))
        asked_at = time.monotonic()
        try:
            job = gateway.job(job_id, wait_s=_WAIT_S)
            away_since = None
        except GatewayUnreachable:
            away_since = away_since or asked_at
            if time.monotonic() - away_since > _PATIENCE_S:
                raise
            line.show(f"{job_id}  the gateway does not answer; still trying")
        # Whatever answers at once is not asked faster than this.
        if job["status"] not in FINAL and time.monotonic() - asked_at < _PAUSE_S:
            time.sleep(_PAUSE_S)
    return job


def describe(job: JsonObject) -> str:
    """Tell in a few words where a job stands: `job_…  in progress at openai`."""
    status = str(job["status"]).replace("_", " ")
    attempts = job.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else {}
    upstream = job.get("upstream") or (last.get("upstream") if isinstance(last, dict) else None)
    return f"{job['id']}  {status}{f' at {upstream}' if upstream else ''}"


def _how_to_collect(job_id: str) -> str:
    return (
        f"Collect it with:  darkroom jobs watch {job_id} -o out.png\n"
        f"Or give it up:    darkroom jobs cancel {job_id}"
    )
