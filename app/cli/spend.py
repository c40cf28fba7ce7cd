"""`darkroom spend`: what was spent. Over the admin API."""

import json
from typing import Annotated, Any, Final

import typer

from app.cli.configuration import connect_as_admin
from app.cli.options import AdminKey, AdminUrl, AsJson
from app.cli.tables import print_table

app = typer.Typer(add_completion=False)

_SUMS: Final = {
    "attempts": "calls",
    "pictures": "pictures",
    "certain_usd": "certain",
    "estimated_usd": "of it estimated",
    "possible_usd": "possible",
    "pending_usd": "pending",
    "unpriced_attempts": "unpriced",
    "saved_usd": "saved",
}


@app.command()
def spend(
    by: Annotated[
        str,
        typer.Option(help="Any of team, key, model, upstream, quality, day, with commas between them."),
    ] = "team",
    begins: Annotated[
        str | None,
        typer.Option("--from", help="The first day, such as 2027-01-01. [default: the first of this month]"),
    ] = None,
    ends: Annotated[
        str | None, typer.Option("--to", help="The first day that no longer belongs. [default: now]")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Report what was spent, in US dollars. A call counts on the day, in UTC, on which it was made.

    `saved` is what the pictures would have cost more at the dearest route that could have made them.
    """
    query = {"by": by}
    query.update({name: value for name, value in (("from", begins), ("to", ends)) if value is not None})
    with connect_as_admin(base_url, api_key) as gateway:
        if as_csv:
            print(gateway.spend_table(query).replace("\r\n", "\n"), end="")
            return
        report: Any = gateway.spend(query)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    rows = [
        [*(_label(group, name) for name in report["by"]), *(group.get(name) for name in _SUMS)]
        for group in report["data"]
    ]
    total = ["total", *[""] * (len(report["by"]) - 1), *(report["total"].get(name) for name in _SUMS)]
    print_table([*report["by"], *_SUMS.values()], [*rows, total])


def _label(group: Any, name: str) -> Any:
    """Teams and keys by name, where they have one."""
    return group.get(f"{name}_name") or group.get(name)
