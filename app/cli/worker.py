"""`darkroom worker`: a process that forwards jobs, beside any number of others."""

import typer

from app.cli.catalog import CatalogMistakes, check_catalog
from app.cli.configuration import load_settings
from app.cli.database import require_tables
from app.cli.errors import CommandFailed
from app.cli.listening import check_free
from app.cli.logs import start_logging
from app.worker import run

app = typer.Typer(add_completion=False)


@app.command()
def worker() -> None:
    """Run a worker on Postgres and Redis until SIGTERM, which lets it finish what it has begun."""
    settings = load_settings()
    if settings.has_own_workers:
        raise CommandFailed(
            "DARKROOM_REDIS_URL is not set, so `darkroom serve` runs the workers itself. Set it to redis://HOST:6379, "
            "for `serve` too, to run workers of their own."
        )
    if settings.worker_address is not None:
        check_free(*settings.worker_address, "DARKROOM_WORKER_LISTEN")
    try:
        checked = check_catalog(settings.config, settings)
    except CatalogMistakes as exc:
        raise CommandFailed(f"The catalog cannot be used:\n{exc}") from exc
    require_tables(settings)
    start_logging(settings, checked.keys_in_use)
    run(settings)
