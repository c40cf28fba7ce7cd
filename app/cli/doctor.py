"""`darkroom doctor`: is everything there that a gateway depends on?"""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from app.cli.checks import Finding, Verdict, examine, unusable_settings
from app.cli.options import AsJson
from app.settings import Settings, SettingsInvalid

app = typer.Typer(add_completion=False)

Integrity = Annotated[
    bool, typer.Option("--integrity", help="Also look through all jobs and attempts for a broken promise.")
]

_COLOURS: Final = {
    Verdict.OK: "green",
    Verdict.OFF: "bright_black",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "red",
}


@app.command()
def doctor(as_json: AsJson = False, integrity: Integrity = False) -> None:
    """Check everything this gateway depends on, and say what to fix. Buys nothing; ends with 1 on a failure."""
    try:
        found = asyncio.run(examine(Settings.load(make_secrets=False), with_promises=integrity))
    except SettingsInvalid as exc:
        found = unusable_settings(exc.mistakes)
    failures = sum(finding.verdict is Verdict.FAIL for finding in found)
    if as_json:
        print(
            json.dumps(
                {"ok": not failures, "checks": [asdict(finding) for finding in found]}, ensure_ascii=False
            )
        )
    else:
        _print(found)
    if failures:
        raise typer.Exit(1)


def _print(found: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(finding.check) for finding in found)
    for finding in found:
        line = Text(f"{finding.verdict:<4}", _COLOURS[finding.verdict])
        line.append(f"  {finding.check:<{width}}  {finding.detail}", "default")
        console.print(line)
        if finding.fix:
            console.print(Text(f"{'':<{width + 8}}{finding.fix}"))
