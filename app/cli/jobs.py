"""`darkroom jobs`: what clients asked for, and what became of it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import connect, connect_as_admin
from app.cli.options import AdminKey, ApiKey, AsAdmin, AsJson, BaseUrl, EitherKey
from app.cli.pictures import bill, check_target, cost, duration, ended_badly, save_pictures
from app.cli.progress import wait_for
from app.cli.tables import moment, print_facts, print_table

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="List, show, watch, cancel and requeue jobs."
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, job_...")]


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs in this state, such as queued.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs for this model.")] = None,
    team: Annotated[
        str | None, typer.Option(help="Only jobs of this team, by id or name; as an operator.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Only jobs that asked this upstream; as an operator.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_admin: AsAdmin = False,
    base_url: BaseUrl = None,
    api_key: EitherKey = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs of the key's team; with --admin, --team or --upstream those of all teams."""
    chosen = {"status": status, "model": model, "upstream": upstream}
    filters = {name: value for name, value in chosen.items() if value is not None}
    if as_admin or team is not None or upstream is not None:
        with connect_as_admin(base_url, api_key) as gateway:
            if team is not None:
                filters["team_id"] = str(gateway.find_team(team)["id"])
            jobs = gateway.any_jobs(filters, limit)
    else:
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
            moment(job.get("created_at")),
        )
        for job in jobs
    ]
    print_table(("job", "status", "model", "upstream", "cost", "time", "handed in"), rows)


@app.command()
def show(
    job_id: JobId,
    as_admin: AsAdmin = False,
    base_url: BaseUrl = None,
    api_key: EitherKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one job with its attempts; with --admin, also what the vendors said."""
    job: Any
    if as_admin:
        with connect_as_admin(base_url, api_key) as gateway:
            job = gateway.any_job(job_id)
    else:
        with connect(base_url, api_key) as gateway:
            job = gateway.job(job_id)
    if as_json:
        print(json.dumps(job, ensure_ascii=False))
        return
    error = job.get("error") or {}
    print_facts(
        {
            "job": job["id"],
            "status": job["status"],
            "team": job.get("team_id"),
            "model": job.get("model"),
            "handed in": moment(job.get("created_at")),
            "time": duration(job),
            "cost": cost(job),
            "upstream": job.get("upstream"),
            "made again from": job.get("requeued_from"),
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
        _print_attempts(attempts, as_admin=as_admin)


@app.command()
def cancel(
    job_id: JobId,
    as_admin: AsAdmin = False,
    base_url: BaseUrl = None,
    api_key: EitherKey = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a job. One that has not been sent yet costs nothing; what was sent is followed to its end and booked."""
    if as_admin:
        with connect_as_admin(base_url, api_key) as gateway:
            job = gateway.cancel_any(job_id)
    else:
        with connect(base_url, api_key) as gateway:
            job = gateway.cancel(job_id)
    print(json.dumps(job, ensure_ascii=False) if as_json else f"The job {job['id']} is {job['status']}.")


@app.command()
def requeue(
    job_id: JobId, base_url: BaseUrl = None, api_key: AdminKey = None, as_json: AsJson = False
) -> None:
    """Have a final job's request made again, as an operator, on the account of its team. It is bought anew."""
    with connect_as_admin(base_url, api_key) as gateway:
        job = gateway.requeue(job_id)
    print(
        json.dumps(job, ensure_ascii=False)
        if as_json
        else f"The job {job['id']} makes the request of {job_id} again."
    )


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


def _print_attempts(attempts: Any, *, as_admin: bool) -> None:
    rows = []
    for each in attempts:
        cost_usd, lasted_ms = each.get("cost_usd"), each.get("duration_ms")
        row = [
            each.get("upstream"),
            each.get("outcome"),
            None if cost_usd is None else f"${cost_usd}",
            None if lasted_ms is None else f"{lasted_ms} ms",
        ]
        rows.append([*row, each.get("certainty"), each.get("id"), each.get("detail")] if as_admin else row)
    columns = ["attempt at", "outcome", "cost", "time"]
    print_table([*columns, "certainty", "attempt", "detail"] if as_admin else columns, rows)
