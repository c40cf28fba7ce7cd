"""`darkroom secrets`: what is stored sealed, and under which secret of the settings."""

import asyncio

import typer

from app.cli.configuration import load_settings
from app.cli.database import explained, require_tables
from app.cli.errors import CommandFailed
from app.db.engine import Database
from app.kit.sealing import SealBroken, Sealer
from app.settings import Settings
from app.webhooks.vault import Vault

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Seal stored secrets anew.")


@app.callback()
def _secrets() -> None:
    """Seal stored secrets anew."""


@app.command()
def rotate() -> None:
    """Seal every stored secret under the first of DARKROOM_SECRET_KEY; safe to repeat, and while the gateway runs."""
    settings = load_settings(make_secrets=False)
    if not settings.secret_keys:
        raise CommandFailed("There is no DARKROOM_SECRET_KEY yet: start the gateway once, or set it.")
    require_tables(settings)
    changed, seen = asyncio.run(_reseal(settings))
    print(f"{changed} of {seen} stored secrets were sealed anew; all are under the newest secret now.")


async def _reseal(settings: Settings) -> tuple[int, int]:
    database = Database(settings.database_url, pool_size=1)
    try:
        with explained():
            return await Vault(database, Sealer(settings.secret_keys)).reseal()
    except SealBroken as exc:
        raise CommandFailed(
            f"Not every stored secret can be opened: {exc}. Add the older secret back."
        ) from exc
    finally:
        await database.close()
