"""`darkroom reconcile`: what a vendor says that it charged is compared with the books. Over the admin API."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import connect_as_admin
from app.cli.errors import UsageMistake
from app.cli.options import AdminKey, AdminUrl, AsJson
from app.cli.tables import print_table

app = typer.Typer(add_completion=False)


@app.command()
def reconcile(
    export: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="CSV with the columns attempt_id or ticket, and amount_usd; or a .json file with `charges`.",
        ),
    ],
    upstream: Annotated[str | None, typer.Option(help="Whose tickets these are.")] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="It is the whole bill of --upstream between --from and --to: what it leaves out cost nothing.",
        ),
    ] = False,
    begins: Annotated[str | None, typer.Option("--from", help="The bill's first day.")] = None,
    ends: Annotated[str | None, typer.Option("--to", help="The first day that it no longer covers.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Book what a vendor charged, where the books were not certain. Repeating an import changes nothing."""
    query = {"complete": str(complete).lower(), "dry_run": str(dry_run).lower()}
    chosen = {"upstream": upstream, "from": begins, "to": ends}
    query.update({name: value for name, value in chosen.items() if value is not None})
    try:
        content = export.read_bytes()
    except OSError as exc:
        raise UsageMistake(f"{str(export)!r} cannot be read: {exc.strerror}.") from exc
    with connect_as_admin(base_url, api_key) as gateway:
        done: Any = gateway.reconcile(content, is_csv=export.suffix.lower() != ".json", query=query)
    if as_json:
        print(json.dumps(done, ensure_ascii=False))
        return
    rows = [
        (line["name"], line["finding"], line["before_usd"], line["was"], line["after_usd"])
        for line in done["data"]
    ]
    if rows:
        print_table(("charge", "finding", "booked", "as", "charged"), rows)
    counts = ", ".join(f"{count} {finding}" for finding, count in done["findings"].items() if count)
    would = "would change" if done["dry_run"] else "changed"
    print(f"{counts or 'nothing'}: the books {would} by {done['changed_usd']} USD.")
