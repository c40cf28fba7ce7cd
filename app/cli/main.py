"""The `darkroom` command. Each subcommand lives in a module of its own that is loaded when it is called, so that
`darkroom --help` and the client commands do not pay for the server's libraries.
"""

import importlib
import sys
from importlib.metadata import version
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from app.cli.errors import CommandFailed


class _Entry(NamedTuple):
    module: str
    summary: str


_ENTRIES: Final = {
    "serve": _Entry("app.cli.serve", "Serve the HTTP API; without Redis it runs the workers too."),
    "worker": _Entry("app.cli.worker", "Run a worker beside `serve`, on Postgres and Redis."),
    "migrate": _Entry("app.cli.migrate", "Bring the database's schema up to date."),
    "config": _Entry(
        "app.cli.config", "Check the catalog of upstreams, models and prices, and have it loaded again."
    ),
    "secrets": _Entry("app.cli.secrets", "Seal stored secrets under the newest secret of the settings."),
    "doctor": _Entry("app.cli.doctor", "Check everything this gateway depends on, and say what to fix."),
    "generate": _Entry("app.cli.generate", "Have a picture made, and save it."),
    "edit": _Entry("app.cli.edit", "Have pictures changed, and save what came of it."),
    "jobs": _Entry("app.cli.jobs", "List, show, watch, cancel and requeue jobs."),
    "upstreams": _Entry(
        "app.cli.upstreams", "List, check, enable, disable, drain and reset the vendors' accounts."
    ),
    "teams": _Entry("app.cli.teams", "Create, list and change teams, with their limits and budgets."),
    "keys": _Entry("app.cli.keys", "Create, list, change, rotate and revoke API keys."),
    "spend": _Entry("app.cli.spend", "Report what was spent, as a table, JSON or CSV."),
    "reconcile": _Entry("app.cli.reconcile", "Import what a vendor says that it charged."),
    "webhooks": _Entry(
        "app.cli.webhooks", "Say who is told of the ends of jobs; list deliveries, and resend."
    ),
    "maintenance": _Entry("app.cli.maintenance", "Turn new jobs away for a while."),
    "audit": _Entry("app.cli.audit", "List what operators did."),
}


class Commands(TyperGroup):
    """The group of all commands: names and summaries are known here, the rest when a command is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's signature
        """Name the commands in the order of a working day, not of the alphabet."""
        return list(_ENTRIES)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002 - as above
        """Find a command by name; for the list of all commands a stand-in with its summary is enough."""
        entry = _ENTRIES.get(cmd_name)
        return None if entry is None else TyperCommand(cmd_name, help=entry.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else _load(name), rest

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command; what it cannot do becomes a sentence and an exit code."""
        try:
            return super().main(*args, **options)
        except CommandFailed as exc:
            print(exc, file=sys.stderr)
            sys.exit(exc.exit_code)


# A traceback with local variables would show keys.
app = typer.Typer(
    cls=Commands,
    name="darkroom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"darkroom {version('darkroom')}")
        raise typer.Exit


@app.callback()
def _darkroom(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hand in a request, have it developed, collect the picture."""


def main() -> None:
    """Run the `darkroom` command."""
    app()


def _load(name: str) -> TyperCommand | TyperGroup:
    module = importlib.import_module(_ENTRIES[name].module)
    command = typer.main.get_command(module.app)
    assert isinstance(command, TyperCommand | TyperGroup)  # noqa: S101 - for the type checker
    command.name = name
    return command
