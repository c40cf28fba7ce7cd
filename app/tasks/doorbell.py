"""What arq calls when a job may be waiting: wake the engine of this process, and be done in a millisecond."""

from typing import Any


async def forward(context: dict[Any, Any], job_id: str) -> None:  # noqa: ARG001 - any job may be claimed, oldest first
    """Make the engine look for work; which job it takes is decided by the claim, not by this hint."""
    context["rung"].set()
