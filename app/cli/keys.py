"""`darkroom keys`: the API keys of teams. Over the admin API."""

import json
from typing import Annotated, Any

import typer

from app.cli.configuration import connect_as_admin
from app.cli.errors import UsageMistake
from app.cli.limits import limits_text, read_limits
from app.cli.options import AdminKey, AdminUrl, AsJson, ChangedLimits, Limits
from app.cli.tables import moment, print_table
from app.kit.json import JsonObject

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Create, list, change, rotate and revoke API keys."
)

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, not its text.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    team: Annotated[str, typer.Option(help="The team's id or name.")],
    role: Annotated[
        str | None,
        typer.Option(help="team, admin (an operator), or admin_read (may only look). [default: team]"),
    ] = None,
    limits: Limits = None,
    expires_at: Annotated[
        str | None, typer.Option(help="When it stops working, such as 2027-01-31T00:00:00Z. [default: never]")
    ] = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once."""
    wanted: JsonObject = {"name": name}
    chosen = {"role": role, "expires_at": expires_at}
    wanted.update({field: value for field, value in chosen.items() if value is not None})
    if limits:
        wanted["limits"] = read_limits(limits)
    with connect_as_admin(base_url, api_key) as gateway:
        wanted["team_id"] = gateway.find_team(team)["id"]
        key = gateway.create_key(wanted)
    if as_json:
        print(json.dumps(key, ensure_ascii=False))
        return
    print(key["key"])
    typer.echo(f"This is the key {key['id']}. It is shown this once; only a hash of it is kept.", err=True)


@app.command("list")
def list_keys(
    team: Annotated[str | None, typer.Option(help="Only keys of this team, by id or name.")] = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List keys, without their text."""
    with connect_as_admin(base_url, api_key) as gateway:
        filters = {} if team is None else {"team_id": str(gateway.find_team(team)["id"])}
        keys = gateway.keys(filters)
    if as_json:
        print(json.dumps(keys, ensure_ascii=False))
        return
    rows = [
        (
            key["id"],
            key.get("name"),
            key.get("team_id"),
            key.get("role"),
            key.get("hint"),
            _end(key),
            limits_text(key.get("limits")),
        )
        for key in keys
    ]
    print_table(("key", "name", "team", "role", "begins", "ends", "limits"), rows)


@app.command()
def update(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    limits: ChangedLimits = None,
    expires_at: Annotated[
        str | None, typer.Option(help="When it stops working, such as 2027-01-31; `never` lifts its expiry.")
    ] = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Rename a key, or change its expiry or its limits. They apply beside those of its team."""
    changes: JsonObject = {} if name is None else {"name": name}
    if limits:
        changes["limits"] = read_limits(limits)
    if expires_at is not None:
        changes["expires_at"] = None if expires_at == "never" else expires_at
    if not changes:
        raise UsageMistake("There is nothing to change. Give --name, --limit or --expires-at.")
    with connect_as_admin(base_url, api_key) as gateway:
        key: Any = gateway.change_key(key_id, changes)
    if as_json:
        print(json.dumps(key, ensure_ascii=False))
        return
    print(
        f"The key {key['id']} ({key.get('name')}) has the limits: {limits_text(key.get('limits')) or 'none'}."
    )


@app.command()
def rotate(
    key_id: KeyId,
    overlap_s: Annotated[
        float | None,
        typer.Option(
            "--overlap-s", min=0, help="Seconds for which the old key still works. [default: 86400, a day]"
        ),
    ] = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Put a new key like it in the place of a key, and print it, this once. Both work until the overlap is over."""
    with connect_as_admin(base_url, api_key) as gateway:
        key: Any = gateway.rotate_key(key_id, overlap_s)
    if as_json:
        print(json.dumps(key, ensure_ascii=False))
        return
    print(key["key"])
    old = key.get("replaces") or {}
    typer.echo(
        f"This is the key {key['id']}, shown this once. The old one, {old.get('id')}, works until "
        f"{moment(old.get('expires_at'))}.",
        err=True,
    )


@app.command()
def revoke(
    key_id: KeyId,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good. Its jobs that were not sent yet are cancelled; those sent are finished and booked."""
    with connect_as_admin(base_url, api_key) as gateway:
        answer = gateway.revoke_key(key_id)
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    cancelled = answer.get("cancelled_jobs")
    print(f"The key {key_id} is revoked.{f' {cancelled} of its jobs were cancelled.' if cancelled else ''}")


def _end(key: Any) -> str:
    if key.get("revoked_at"):
        return f"revoked {moment(key['revoked_at'])}"
    return moment(key.get("expires_at")) or "never"
