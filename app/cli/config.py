"""`darkroom config`: the catalog, a file that is checked here, or as a running gateway has it in force."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.catalog import CatalogMistakes, CheckedCatalog, check_catalog
from app.cli.configuration import connect_as_admin, load_settings
from app.cli.errors import CommandFailed
from app.cli.options import AdminKey, AdminUrl, AsJson

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Check the catalog of upstreams, models and prices, and have it loaded again.",
)


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The catalog. [default: DARKROOM_CONFIG, else config/gateway.yaml]")
    ] = None,
) -> None:
    """Check the catalog; print each mistake with its place and its fix, and end with 1 on any."""
    settings = load_settings(make_secrets=False)
    path = file or settings.config
    try:
        checked = check_catalog(path, settings)
    except CatalogMistakes as exc:
        print(exc, file=sys.stderr)
        count = len(exc.mistakes)
        raise CommandFailed(f"{count} mistake{'s' if count > 1 else ''} in {path}.") from exc
    print(
        f"{path} is fine: {len(checked.catalog.upstreams)} upstreams, {len(checked.catalog.models)} models."
    )
    for line in summary(checked):
        print(line)


@app.command()
def reload(base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """Have a running gateway read its catalog file again, in every process.

    A file with mistakes is refused, and the catalog in force stays. Jobs in flight finish on the one they began with.
    """
    with connect_as_admin(base_url, api_key) as gateway:
        loaded = gateway.reload_config()
    print(
        json.dumps(loaded, ensure_ascii=False)
        if as_json
        else f"The catalog {loaded['version']} is in force in every process."
    )


def summary(checked: CheckedCatalog) -> list[str]:
    """One line for each upstream and each model: what is on, what is off, and what would turn it on."""
    upstreams, models, missing = checked.catalog.upstreams, checked.catalog.models, checked.missing
    width = max(map(len, [*upstreams, *models]), default=0)
    lines = ["", "Upstreams"]
    lines += [f"  {name:<{width}}  {_state(missing.get(name))}" for name in upstreams]
    lines += ["", "Models"]
    for name, model in models.items():
        routes = [
            f"{each.upstream.name}{' (off)' if each.upstream.name in missing else ''}"
            for each in model.routes
        ]
        note = ", ".join(routes)
        if name in checked.stand_ins:
            note = f"served by the sandbox until a key is set; else {note}"
        elif name in checked.unserved:
            note = f"not available: {note}"
        lines.append(f"  {name:<{width}}  {note}")
    return lines


def _state(missing: str | None) -> str:
    return "on" if missing is None else f"off: set {missing}"
