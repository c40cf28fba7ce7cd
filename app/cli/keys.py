"""`darkroom keys`: the API keys of teams. Over the admin API."""

import json
from typing import Annotated

import typer

from app.cli.client import Gateway
from app.cli.configuration import connect_as_admin
from app.cli.errors import UsageMistake
from app.cli.options import AdminKey, AsJson, BaseUrl
from app.cli.tables import print_table
from app.kit.json import JsonObject

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, list and revoke API keys.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    team: Annotated[str, typer.Option(help="The team's id or name.")],
    expires_at: Annotated[
        str | None, typer.Option(help="When it stops working, such as 2027-01-31T00:00:00Z. [default: never]")
    ] = None,
    base_url: BaseUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once."""
    wanted: JsonObject = {"name": name}
    if expires_at is not None:
        wanted["expires_at"] = expires_at
    with connect_as_admin(base_url, api_key) as gateway:
        wanted["team_id"] = _team_id(gateway, team)
        key = gateway.create_key(wanted)
    if as_json:
        print(json.dumps(key, ensure_ascii=False))
        return
    print(key["key"])
    typer.echo(f"This is the key {key['id']}. It is shown this once; only a hash of it is kept.", err=True)


@app.command("list")
def list_keys(
    team: Annotated[str | None, typer.Option(help="Only keys of this team, by id or name.")] = None,
    base_url: BaseUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List keys, without their text."""
    with connect_as_admin(base_url, api_key) as gateway:
        team_id = None if team is None else _team_id(gateway, team)
        keys = [key for key in gateway.keys({}) if team_id is None or key.get("team_id") == team_id]
    if as_json:
        print(json.dumps(keys, ensure_ascii=False))
        return
    rows = [
        (key["id"], key.get("name"), key.get("team_id"), key.get("expires_at") or "never") for key in keys
    ]
    print_table(("key", "name", "team", "expires"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, not its text.")],
    base_url: BaseUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good."""
    with connect_as_admin(base_url, api_key) as gateway:
        answer = gateway.revoke_key(key_id)
    print(json.dumps(answer, ensure_ascii=False) if as_json else f"The key {key_id} is revoked.")


def _team_id(gateway: Gateway, named: str) -> str:
    teams = gateway.teams()
    found = [team for team in teams if team["id"] == named] or [
        team for team in teams if team.get("name") == named
    ]
    if len(found) != 1:
        known = ", ".join(str(team.get("name")) for team in teams) or "none"
        said = "There is no team" if not found else "Several teams are called"
        raise UsageMistake(f"{said} {named!r}. There are: {known}.")
    return str(found[0]["id"])
