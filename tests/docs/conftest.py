"""A gateway that really runs, as a reader of the documentation would have it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT
from tests.harness.processes import DEADLINE_S, free_port, kill_tree

_READY: Final = "Ctrl-C stops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running `darkroom serve` on the embedded default."""

    url: str
    api_key: str
    environment: dict[str, str]
    """For programs that use it: nothing of this machine's own settings or vendors' keys is in it."""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway of this worker's own, with an empty data directory."""
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, {"DARKROOM_CONFIG": str(ROOT / "config" / "gateway.yaml")}) as running:
        yield running


@contextmanager
def serving(folder: Path, settings: Mapping[str, str]) -> Iterator[Served]:
    """Serve on the embedded default with these settings, from `folder`, so that nobody's .env is read."""
    port = free_port()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DARKROOM_") and not name.endswith("_API_KEY")
    }
    data = folder / settings.get("DARKROOM_DATA_DIR", "data")
    own = {"PYTHONPATH": str(ROOT), "DARKROOM_PORT": str(port), **settings}
    command = [sys.executable, "-c", "from app.cli.main import main; main()", "serve"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=inherited | own, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        if not any(_READY in line.decode() for line in process.stdout):
            raise AssertionError(f"darkroom serve did not start:\n{(folder / 'log').read_text()}")
        api_key = json.loads((data / "secrets.json").read_text())["api_key"]
        url = f"http://127.0.0.1:{port}"
        given = {"DARKROOM_API_KEY": api_key, "DARKROOM_PUBLIC_URL": url}
        yield Served(url=url, api_key=api_key, environment=inherited | given)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            kill_tree(process)
        if process.stdout is not None:
            process.stdout.close()
