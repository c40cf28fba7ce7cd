"""`darkroom serve`: the HTTP API, and on the embedded default everything else too."""

import typer

from app.cli.banner import banner
from app.cli.catalog import CatalogMistakes, check_catalog
from app.cli.configuration import load_settings
from app.cli.database import migrate, require_tables
from app.cli.errors import CommandFailed
from app.cli.listening import check_free, when_listening
from app.cli.logs import start_logging
from app.main import AlreadyServed, run

app = typer.Typer(add_completion=False)


@app.command()
def serve() -> None:
    """Serve the HTTP API until Ctrl-C or SIGTERM. Without Redis it runs the workers too.

    With no DARKROOM_DATABASE_URL this is the embedded default: it keeps everything in the data directory, makes its
    own keys, and prints them with a first request to paste.
    """
    settings = load_settings()
    check_free(settings.host, settings.port, "DARKROOM_PORT")
    if settings.admin_address is not None:
        check_free(*settings.admin_address, "DARKROOM_ADMIN_LISTEN")
    try:
        checked = check_catalog(settings.config, settings)
    except CatalogMistakes as exc:
        raise CommandFailed(f"The catalog cannot be used:\n{exc}") from exc
    if settings.is_embedded:
        migrate(settings)
        # In production the keys are the operator's own, and standard output belongs to a log collector.
        when_listening(settings.host, settings.port, lambda: print(banner(settings, checked), flush=True))
    else:
        require_tables(settings)
    start_logging(settings, checked.keys_in_use)
    try:
        run(settings)
    except AlreadyServed as exc:
        raise CommandFailed(str(exc)) from exc
