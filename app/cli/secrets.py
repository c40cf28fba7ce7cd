"""`darkroom secrets`: what is stored sealed, and under which secret of the settings."""

import asyncio

import typer

from app.accounts.service import Accounts
from app.cli.configuration import load_settings
from app.cli.database import explained, require_tables
from app.cli.errors import CommandFailed
from app.db.engine import Database
from app.kit.sealing import SealBroken, Sealer
from app.settings import Settings
from app.webhooks.vault import Vault

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Move what is stored to another secret.")


@app.callback()
def _secrets() -> None:
    """Move what is stored to another secret."""


@app.command()
def rotate() -> None:
    """Move what is stored to the first of DARKROOM_SECRET_KEY, once every process has it; safe to repeat.

    Stored secrets are sealed under it, and API keys recognised by it: each when it is next used, for their text is not
    stored.
    """
    settings = load_settings(make_secrets=False)
    if not settings.secret_keys:
        raise CommandFailed("There is no DARKROOM_SECRET_KEY yet: start the gateway once, or set it.")
    require_tables(settings)
    changed, seen, left = asyncio.run(_move(settings))
    print(
        f"{changed} of {seen} stored secrets were sealed anew; all of them are under the newest secret now."
    )
    if left:
        print(
            f"{left} API keys are still recognised by an older secret, and follow when they are next used. Keep the "
            "older secret until `darkroom doctor` finds none of them left."
        )
    else:
        print("All API keys are recognised by the newest secret.")


async def _move(settings: Settings) -> tuple[int, int, int]:
    database = Database(settings.database_url, pool_size=1)
    try:
        with explained():
            changed, seen = await Vault(database, Sealer(settings.secret_keys)).reseal()
            accounts = Accounts(database, settings.secret_keys)
            left = await accounts.settle(
                settings.api_key.get_secret_value(), settings.admin_key.get_secret_value()
            )
    except SealBroken as exc:
        raise CommandFailed(
            f"Not every stored secret can be opened: {exc}. Add the older secret back."
        ) from exc
    finally:
        await database.close()
    return changed, seen, left
