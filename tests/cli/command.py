"""Runs the command in this process."""

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from app.cli.main import app


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, parsed."""
        return json.loads(self.out)


def darkroom(*arguments: str) -> Ended:
    """Run `darkroom` with these arguments; a bug in it is raised."""
    result = CliRunner().invoke(app, list(arguments), prog_name="darkroom")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)
