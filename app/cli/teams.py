"""`darkroom teams`: who pays. Over the admin API."""

import json
from typing import Annotated

import typer

from app.cli.configuration import connect_as_admin
from app.cli.options import AdminKey, AsJson, BaseUrl
from app.cli.tables import print_table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create and list teams.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The team's name.")],
    base_url: BaseUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a team."""
    with connect_as_admin(base_url, api_key) as gateway:
        team = gateway.create_team({"name": name})
    print(
        json.dumps(team, ensure_ascii=False)
        if as_json
        else f"The team {team['name']!r} has the id {team['id']}."
    )


@app.command("list")
def list_teams(base_url: BaseUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List every team."""
    with connect_as_admin(base_url, api_key) as gateway:
        teams = gateway.teams()
    if as_json:
        print(json.dumps(teams, ensure_ascii=False))
    else:
        print_table(("team", "name"), [(team["id"], team.get("name")) for team in teams])
