"""Workers broken on purpose, to show that a fault run sees what it is there to see. The product has no such switch.

`resend`: a dangling intent is treated as never sent. `refuse`: a call without an answer is treated as refused.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from app.cli.configuration import load_settings
from app.cli.logs import start_logging
from app.domain.failures import FailureKind, UpstreamFailure
from app.jobs import repository, transitions
from app.jobs.lifecycle import AttemptState
from app.jobs.records import Attempt, Job
from app.jobs.transitions import Transitions
from app.worker import run

VARIANTS: Final = ("resend", "refuse")


def command(variant: str) -> tuple[str, ...]:
    """How to start such a worker in any folder, in the place of `darkroom worker`."""
    # -P: this folder is no place for imports.
    return (sys.executable, "-P", str(Path(__file__).resolve()), "--variant", variant)


def _resend() -> None:
    as_it_should = Transitions._outcome_unknown  # noqa: SLF001 - breaking it is the point

    async def outcome_unknown(
        self: Transitions, connection: Any, job: Job, attempt: Attempt, failure: UpstreamFailure
    ) -> Job:
        if attempt.state is not AttemptState.INTENT or failure is not transitions._UNANSWERED:  # noqa: SLF001
            return await as_it_should(self, connection, job, attempt, failure)
        return await _unpaid(connection, job, attempt, failure)

    Transitions._outcome_unknown = outcome_unknown  # type: ignore[method-assign] # noqa: SLF001


def _refuse() -> None:
    async def lose_track(self: Transitions, attempt: Attempt, failure: UpstreamFailure) -> None:
        await self.refuse(attempt, UpstreamFailure(FailureKind.DOWN, failure.detail))

    Transitions.lose_track = lose_track  # type: ignore[method-assign]


async def _unpaid(connection: Any, job: Job, attempt: Attempt, failure: UpstreamFailure) -> Job:
    ended = await repository.end_attempt(
        connection,
        attempt,
        AttemptState.UNPAID,
        token=None,
        failure=FailureKind.DOWN,
        detail=failure.detail,
        param=None,
    )
    if not ended or job.status.is_final:
        return job
    to_buy = job.to_buy + attempt.pictures
    await repository.change(connection, job.id, {"to_buy": to_buy})
    return replace(job, to_buy=to_buy)


def main() -> None:
    """Break the worker, then run it."""
    parser = argparse.ArgumentParser(description="Run a worker that is broken on purpose.")
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    {"resend": _resend, "refuse": _refuse}[parser.parse_args().variant]()
    settings = load_settings()
    start_logging(settings, ())
    run(settings)


if __name__ == "__main__":
    main()
