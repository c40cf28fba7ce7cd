"""`darkroom maintenance`: whether new jobs are taken in. Over the admin API."""

import json

import typer

from app.cli.configuration import connect_as_admin
from app.cli.options import AdminKey, AdminUrl, AsJson
from app.cli.tables import moment
from app.kit.json import JsonObject

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Turn new jobs away for a while.")


@app.command()
def on(base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """Turn new jobs away with 503 `shutting_down`. Those that are there go on, and can be collected."""
    with connect_as_admin(base_url, api_key) as gateway:
        _print(gateway.turn_maintenance(is_on=True), as_json=as_json)


@app.command()
def off(base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """Take new jobs in again."""
    with connect_as_admin(base_url, api_key) as gateway:
        _print(gateway.turn_maintenance(is_on=False), as_json=as_json)


@app.command()
def show(base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """Tell how it stands, and how many jobs are still to be finished."""
    with connect_as_admin(base_url, api_key) as gateway:
        _print(gateway.maintenance(), as_json=as_json)


def _print(state: JsonObject, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(state, ensure_ascii=False))
        return
    since = moment(state.get("since"))
    said = (
        f"on since {since}: new jobs are turned away" if state.get("drain") else "off: new jobs are taken in"
    )
    print(f"Maintenance is {said}. {state.get('in_progress')} in progress, {state.get('queued')} queued.")
