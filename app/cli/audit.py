"""`darkroom audit`: what operators did. Over the admin API."""

import json
from typing import Annotated, Any

import typer

from app.cli.configuration import connect_as_admin
from app.cli.options import AdminKey, AdminUrl, AsJson
from app.cli.tables import moment, print_table

app = typer.Typer(add_completion=False)


@app.command()
def audit(
    subject: Annotated[
        str | None, typer.Option("--object", help="Only what was done to this id or name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List what operators did, newest first; --json holds how things stood before and after."""
    filters = {} if subject is None else {"object": subject}
    with connect_as_admin(base_url, api_key) as gateway:
        entries = gateway.audit(filters, limit)
    if as_json:
        print(json.dumps(entries, ensure_ascii=False))
        return
    rows = [
        (moment(entry.get("at")), _actor(entry), entry.get("action"), entry.get("object"))
        for entry in entries
    ]
    print_table(("at", "by", "action", "object"), rows)


def _actor(entry: Any) -> Any:
    actor = entry.get("actor") or {}
    return actor.get("key_name") or actor.get("key_id")
