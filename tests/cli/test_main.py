"""The command as a whole: its help, its version, and what it loads."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.cli.command import darkroom

COMMANDS = (
    *("serve", "worker", "migrate", "config", "secrets", "doctor", "generate", "edit", "jobs", "upstreams"),
    *("teams", "keys", "spend", "reconcile", "webhooks", "maintenance", "audit"),
)
HEAVY = ("alembic", "arq", "asyncpg", "fastapi", "redis", "sqlalchemy", "structlog", "uvicorn")
ROOT = Path(__file__).parents[2]


def modules_after(*arguments: str) -> set[str]:
    """The top-level packages that a process has loaded when the command ends."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('LOADED', *{name.partition('.')[0] for name in sys.modules}))\n"
        "from app.cli.main import main\n"
        "main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return set(ended.stdout.partition("LOADED")[2].split())


def test_the_help_names_every_command() -> None:
    ended = darkroom("--help")

    assert ended.code == 0
    positions = [ended.out.index(f" {name} ") for name in COMMANDS]
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    ended = darkroom(name, "--help")

    assert ended.code == 0
    assert f"darkroom {name}" in ended.out


def test_the_version_is_told() -> None:
    assert darkroom("--version").out.startswith("darkroom 0.")


def test_help_loads_nothing_of_the_server_or_of_http() -> None:
    loaded = modules_after("--help")

    assert "typer" in loaded
    assert not loaded & {*HEAVY, "httpx2", "pydantic"}


def test_a_client_command_loads_nothing_of_the_server() -> None:
    loaded = modules_after("jobs", "list", "--base-url", "http://127.0.0.1:9", "--api-key", "some-key")

    assert "httpx2" in loaded
    assert not loaded & set(HEAVY)


def test_the_documentation_knows_every_command() -> None:
    table = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("\n\n## ")[0]
    cells: dict[str, str] = {}
    for match in re.finditer(r"^\| (`darkroom (\w+).*?) \|", table, re.MULTILINE):
        cells[match[2]] = cells.get(match[2], "") + match[1]

    assert cells.keys() == set(COMMANDS)
    for name, cell in cells.items():
        for sub in subcommands(name):
            assert re.search(rf"`(darkroom {name} )?{sub}\b", cell), f"{name} {sub}"


def subcommands(name: str) -> list[str]:
    """What follows a command's name; nothing where it stands alone."""
    command = typer.main.get_command(importlib.import_module(f"app.cli.{name}").app)
    return list(getattr(command, "commands", {}))
