"""`darkroom config`: the catalog file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.catalog import CatalogMistakes, CheckedCatalog, check_catalog
from app.cli.configuration import load_settings
from app.cli.errors import CommandFailed

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Check the catalog of upstreams, models and prices."
)


@app.callback()
def _config() -> None:
    """Check the catalog of upstreams, models and prices."""


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
