"""`darkroom jobs`: what clients asked for, and what became of it."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import connect
from app.cli.options import ApiKey, AsJson, BaseUrl
from app.cli.pictures import bill, check_target, cost, duration, ended_badly, save_pictures
from app.cli.progress import wait_for
from app.cli.tables import print_facts, print_table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, show, watch and cancel jobs.")

JobId = Annotated[str, typer.Argument(help="A job's id, job_...")]


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs in this state, such as queued.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs of the key's team."""
    filters = {name: value for name, value in (("status", status), ("model", model)) if value is not None}
    with connect(base_url, api_key) as gateway:
        jobs = gateway.jobs(filters, limit)
    if as_json:
        print(json.dumps(jobs, ensure_ascii=False))
        return
    rows = [
        (
            job["id"],
            job["status"],
            job.get("model"),
            job.get("upstream"),
            cost(job),
            duration(job),
            _when(job),
        )
        for job in jobs
    ]
    print_table(("job", "status", "model", "upstream", "cost", "time", "handed in"), rows)


@app.command()
def show(job_id: JobId, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show one job with its attempts."""
    with connect(base_url, api_key) as gateway:
        job: Any = gateway.job(job_id)
    if as_json:
        print(json.dumps(job, ensure_ascii=False))
        return
    error = job.get("error") or {}
    print_facts(
        {
            "job": job["id"],
            "status": job["status"],
            "model": job.get("model"),
            "handed in": _when(job),
            "time": duration(job),
            "cost": cost(job),
            "upstream": job.get("upstream"),
            "error": f"{error.get('message')} ({error.get('code')})" if error else None,
            "pictures": "\n".join(job.get("unsigned_urls") or []) or None,
            "late pictures": "\n".join(each.get("url") or each["file_id"] for each in job.get("late") or [])
            or None,
            "metadata": json.dumps(job["metadata"], ensure_ascii=False) if job.get("metadata") else None,
        }
    )
    attempts = job.get("attempts") or []
    if attempts:
        print()
        rows = [
            (
                each.get("upstream"),
                each.get("outcome"),
                f"${each.get('cost_usd')}",
                f"{each.get('duration_ms')} ms",
            )
            for each in attempts
        ]
        print_table(("attempt at", "outcome", "cost", "time"), rows)


@app.command()
def cancel(job_id: JobId, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Cancel a job; one that has not been sent yet costs nothing."""
    with connect(base_url, api_key) as gateway:
        job = gateway.cancel(job_id)
    print(json.dumps(job, ensure_ascii=False) if as_json else f"The job {job['id']} is {job['status']}.")


@app.command()
def watch(
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to save its picture; none is saved without.")
    ] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Follow a job to its end, and save its pictures if asked to. Ends with 1 when the job failed."""
    if output is not None:
        check_target(output)
    with connect(base_url, api_key) as gateway:
        job = wait_for(gateway, gateway.job(job_id))
        failure = ended_badly(job)
        paths = save_pictures(gateway, job, output) if output is not None and failure is None else []
    if as_json:
        print(json.dumps({"job": job, "files": [str(path) for path in paths]}, ensure_ascii=False))
    if failure is not None:
        raise failure
    if not as_json:
        for path in paths:
            print(f"Saved {path}")
        print(bill(job))
        sys.stdout.flush()


def _when(job: Any) -> str | None:
    created_at = job.get("created_at")
    return None if not created_at else f"{datetime.fromtimestamp(created_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
