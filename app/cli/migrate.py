"""`darkroom migrate`: the database's schema."""

import typer

from app.cli.configuration import load_settings
from app.cli.database import migrate as bring_up_to_date

app = typer.Typer(add_completion=False)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date; safe to repeat, and while the previous release still runs."""
    revision = bring_up_to_date(load_settings(make_secrets=False))
    print(f"The database is at the newest revision, {revision}.")
