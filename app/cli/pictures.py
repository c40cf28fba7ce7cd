"""Where a job's pictures are saved, and what is said about a job that ended."""

import os
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.cli.client import Gateway
from app.cli.errors import CommandFailed, UsageMistake
from app.kit.json import JsonObject


def check_target(path: Path) -> None:
    """Make sure that pictures can be saved at `path`, before any is bought.

    Raises:
        UsageMistake: the folder is missing or not writable, or the path is a folder.
    """
    if path.is_dir():
        raise UsageMistake(
            f"{str(path)!r} is a folder. Name a file in it, such as {str(path / 'out.png')!r}."
        )
    if not path.absolute().parent.is_dir():
        raise UsageMistake(f"There is no folder {str(path.absolute().parent)!r} to save to.")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageMistake(f"The folder {str(path.absolute().parent)!r} is not writable.")


def save_pictures(gateway: Gateway, job: JsonObject, path: Path) -> list[Path]:
    """Save a succeeded job's pictures: one at `path`, several beside it as `out-1.png`, `out-2.png`, ..."""
    links: Any = job.get("unsigned_urls") or []
    if not links:
        raise CommandFailed(f"The job {job['id']} succeeded, but its pictures are no longer kept.")
    paths = [path] if len(links) == 1 else [_numbered(path, number) for number in range(1, len(links) + 1)]
    for link, target in zip(links, paths, strict=True):
        gateway.save(str(link), target)
    return paths


def ended_badly(job: JsonObject) -> CommandFailed | None:
    """What to say about a job that ended without pictures; None when it succeeded."""
    if job["status"] == "succeeded":
        return None
    error: Any = job.get("error")
    said = (
        f": {error['message']} ({error.get('code')})"
        if isinstance(error, dict) and error.get("message")
        else "."
    )
    verb = {"failed": "failed", "cancelled": "was cancelled", "expired": "expired"}.get(str(job["status"]))
    return CommandFailed(f"The job {job['id']} {verb or job['status']}{said}{_attempts(job)}")


def bill(job: JsonObject) -> str:
    """What the job cost, who made it, and how long it took: `$0.007152 from openai, 41.2 s (job_…)`."""
    upstream = job.get("upstream")
    return f"{cost(job)}{f' from {upstream}' if upstream else ''}, {duration(job)} ({job['id']})"


def cost(job: JsonObject) -> str:
    """A job's cost in US dollars, `~` before an estimate."""
    booked: Any = job.get("cost")
    amount = booked.get("usd") if isinstance(booked, dict) else None
    if amount is None:
        return "unpriced"
    return f"{'~' if booked.get('estimated') else ''}${Decimal(str(amount)).normalize():f}"


def duration(job: JsonObject) -> str:
    """How long a job has taken from being handed in, in seconds."""
    start, end = job.get("created_at"), job.get("completed_at")
    if not isinstance(start, int | float):
        return "?"
    return f"{(end if isinstance(end, int | float) else time.time()) - start:.0f} s"


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _attempts(job: JsonObject) -> str:
    attempts: Any = job.get("attempts") or []
    tried = [f"{each.get('upstream')}: {each.get('outcome')}" for each in attempts if isinstance(each, dict)]
    return f"\nTried {', '.join(tried)}." if tried else ""
