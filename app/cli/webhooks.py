"""`darkroom webhooks`: who is told of the ends of jobs, and what became of each delivery. Over the admin API."""

import json
from typing import Annotated, Any

import typer

from app.cli.configuration import connect_as_admin
from app.cli.options import AdminKey, AdminUrl, AsJson
from app.cli.tables import moment, print_table
from app.kit.json import JsonObject

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Say who is told of the ends of jobs; list deliveries, and send them again.",
)


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where events are sent.")],
    team: Annotated[str, typer.Option(help="Whose jobs are told of: the team's id or name.")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated: job.succeeded, job.failed, ... [default: every event]"),
    ] = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a URL told of the ends of a team's jobs. With a team's first one its secret is printed, this once."""
    wanted: JsonObject = {"url": url, **({"events": list(event)} if event else {})}
    with connect_as_admin(base_url, api_key) as gateway:
        wanted["team_id"] = gateway.find_team(team)["id"]
        endpoint = gateway.create_webhook_endpoint(wanted)
    if as_json:
        print(json.dumps(endpoint, ensure_ascii=False))
        return
    if endpoint.get("secret"):
        print(endpoint["secret"])
        typer.echo(
            f"The endpoint {endpoint['id']} is told; verify with this secret, shown this once.", err=True
        )
    else:
        typer.echo(f"The endpoint {endpoint['id']} is told; the team has its secret already.", err=True)


@app.command("list")
def list_endpoints(
    team: Annotated[str | None, typer.Option(help="Only this team's, by id or name.")] = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List the URLs that are told, disabled ones too."""
    with connect_as_admin(base_url, api_key) as gateway:
        filters = {} if team is None else {"team_id": str(gateway.find_team(team)["id"])}
        endpoints = gateway.webhook_endpoints(filters)
    if as_json:
        print(json.dumps(endpoints, ensure_ascii=False))
        return
    rows = [
        (
            each["id"],
            each.get("team_id"),
            each.get("url"),
            each.get("disabled_reason") or each.get("status"),
            moment(each.get("failing_since")),
        )
        for each in endpoints
    ]
    print_table(("endpoint", "team", "url", "state", "failing since"), rows)


@app.command()
def deliveries(
    status: Annotated[str | None, typer.Option(help="pending, succeeded or failed.")] = None,
    job: Annotated[str | None, typer.Option(help="Only of this job, by id.")] = None,
    team: Annotated[str | None, typer.Option(help="Only of this team's jobs, by id or name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List the newest deliveries, with how the last try of each went."""
    filters = {name: value for name, value in (("status", status), ("job_id", job)) if value is not None}
    with connect_as_admin(base_url, api_key) as gateway:
        if team is not None:
            filters["team_id"] = str(gateway.find_team(team)["id"])
        found = gateway.deliveries(filters, limit)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    rows = [
        (
            each["id"],
            each.get("event"),
            each.get("job_id"),
            each.get("status"),
            *_tries(each),
            moment(each.get("next_try_at")),
        )
        for each in found
    ]
    print_table(("delivery", "event", "job", "status", "tries", "last answer", "next try"), rows)


@app.command()
def resend(
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="A delivery's id, whd_...")],
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Send the event of a delivery to its receiver again, at once, under the same webhook-id."""
    with connect_as_admin(base_url, api_key) as gateway:
        again = gateway.resend(delivery_id)
    print(
        json.dumps(again, ensure_ascii=False)
        if as_json
        else f"The delivery {again['id']} sends {again.get('event')} of {again.get('job_id')} again."
    )


def _tries(delivery: Any) -> tuple[int, Any]:
    """How many there were, and the status or the error that the last one met."""
    tries = delivery.get("tries") or []
    last = tries[-1] if tries else {}
    return len(tries), last.get("status") or last.get("error")
