"""`darkroom teams`: who pays, and what they may do. Over the admin API."""

import json
from typing import Annotated, Any

import typer

from app.cli.configuration import connect_as_admin
from app.cli.errors import UsageMistake
from app.cli.limits import limits_text, read_limits
from app.cli.options import AdminKey, AdminUrl, AsJson, ChangedLimits, Limits
from app.cli.tables import moment, print_facts, print_table
from app.kit.json import JsonObject

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, list and change teams.")

Team = Annotated[str, typer.Argument(metavar="TEAM", help="The team's id or name.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The team's name.")],
    limits: Limits = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a team."""
    wanted: JsonObject = {"name": name, **({"limits": read_limits(limits)} if limits else {})}
    with connect_as_admin(base_url, api_key) as gateway:
        team = gateway.create_team(wanted)
    print(
        json.dumps(team, ensure_ascii=False)
        if as_json
        else f"The team {team['name']!r} has the id {team['id']}."
    )


@app.command("list")
def list_teams(base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List every team."""
    with connect_as_admin(base_url, api_key) as gateway:
        teams = gateway.teams()
    if as_json:
        print(json.dumps(teams, ensure_ascii=False))
        return
    rows = [(team["id"], team.get("name"), limits_text(team.get("limits"))) for team in teams]
    print_table(("team", "name", "limits"), rows)


@app.command()
def show(team: Team, base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """Show one team with its limits."""
    with connect_as_admin(base_url, api_key) as gateway:
        found = gateway.find_team(team)
    _print(found, as_json=as_json)


@app.command()
def update(
    team: Team,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    limits: ChangedLimits = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Rename a team, or change its limits. A changed limit holds for the next request."""
    changes: JsonObject = {} if name is None else {"name": name}
    if limits:
        changes["limits"] = read_limits(limits)
    if not changes:
        raise UsageMistake("There is nothing to change. Give --name or --limit.")
    with connect_as_admin(base_url, api_key) as gateway:
        changed = gateway.change_team(str(gateway.find_team(team)["id"]), changes)
    _print(changed, as_json=as_json)


def _print(team: JsonObject, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(team, ensure_ascii=False))
        return
    limits: Any = team.get("limits")
    print_facts(
        {
            "team": team["id"],
            "name": team.get("name"),
            "limits": limits_text(limits) or "none",
            "created": moment(team.get("created_at")),
        }
    )
