"""The image: built from the lock alone, run by nobody in particular, and laid out so that Darkroom finds its parts."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.settings import Settings
from tests.containers.dockerfile import ROOT, stages
from tests.harness.processes import free_port

ARGUMENTS, (BUILD, IMAGE) = stages()


def test_the_base_is_slim_and_can_be_pinned() -> None:
    assert ARGUMENTS["BASE"].endswith("-slim")
    assert {BUILD.base, IMAGE.base} == {"${BASE}"}


def test_what_is_copied_exists_and_gets_past_dockerignore() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in rules
    for source in BUILD.copied() + IMAGE.copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in rules, source
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {*BUILD.copied(), *IMAGE.copied()}


def test_every_list_of_the_lock_that_is_installed_is_checked_by_hash_and_holds_wheels_only() -> None:
    compiled = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = " ".join(run.text for run in BUILD.all("RUN")).split("&&")
    installs = [command.split() for command in commands if "install" in command.split()]
    lists = [command[command.index("-r") + 1] for command in installs if "-r" in command]
    assert lists == ["requirements/runtime.txt", "requirements/bootstrap.txt"]
    for command in installs:
        assert ("--require-hashes" in command) or {"--no-deps", "--no-index"} <= set(command)
    for listed in lists:
        assert f"-o {listed}" in compiled
    assert BUILD.environment()["PIP_ONLY_BINARY"] == ":all:"


def test_the_image_installs_nothing_by_itself() -> None:
    for run in IMAGE.all("RUN"):
        assert not {"apt-get", "pip", "curl", "wget", "gcc"} & set(run.words)


def test_the_process_is_no_root_and_owns_only_its_data() -> None:
    assert IMAGE.last("USER") == "10001:10001"
    made = " ".join(run.text for run in IMAGE.all("RUN"))
    assert "-o 10001 -g 10001 -m 0700 /data" in made
    assert IMAGE.environment()["DARKROOM_DATA_DIR"] == "/data"
    assert not any("chown" in copy.text for copy in IMAGE.all("COPY"))


def test_it_starts_a_command_that_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [entry] = json.loads(IMAGE.last("ENTRYPOINT"))
    assert entry in project["scripts"]
    assert CliRunner().invoke(app, [*json.loads(IMAGE.last("CMD")), "--help"]).exit_code == 0


def test_every_variable_is_a_setting_and_the_port_is_exposed() -> None:
    variables = IMAGE.environment()
    ours = {name.removeprefix("DARKROOM_").lower() for name in variables if name.startswith("DARKROOM_")}
    assert ours <= set(Settings.model_fields)
    assert IMAGE.last("EXPOSE") == variables["DARKROOM_PORT"]


class _Answers(BaseHTTPRequestHandler):
    """Says what its server's `status` is to whoever asks for /healthz."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/healthz" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as listening:
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def _is_healthy(port: int) -> bool:
    _, _, command = IMAGE.last("HEALTHCHECK").partition("CMD ")
    program, *arguments = json.loads(command)
    assert program == "python"
    surroundings = {"DARKROOM_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
    return not subprocess.run(
        [sys.executable, *arguments], env=surroundings, check=False, capture_output=True
    ).returncode


def test_the_health_check_tells_an_answer_from_a_failure_and_from_silence(server: HTTPServer) -> None:
    port = server.server_address[1]
    server.status = 200  # type: ignore[attr-defined]
    assert _is_healthy(port)
    server.status = 503  # type: ignore[attr-defined]
    assert not _is_healthy(port)
    assert not _is_healthy(free_port())


def test_in_the_layout_of_the_image_darkroom_finds_its_migrations(tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "app"
    source.mkdir()
    for name in ("app", "pyproject.toml", "LICENSE", "README.md"):
        whole = ROOT / name
        if whole.is_dir():
            shutil.copytree(whole, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(whole, source)
    for copied in IMAGE.copied():
        shutil.copytree(ROOT / copied, image / copied)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    wheels = tmp_path / "wheels"
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    [wheel] = wheels.iterdir()
    _run(*pip, "install", "--no-deps", "--no-index", "--target", str(image), str(wheel))

    shown = _run(
        sys.executable,
        "-c",
        "from app.db.migrate import MIGRATIONS, newest_revision; assert newest_revision(); print(MIGRATIONS)",
        folder=image,
    )
    assert shown.strip() == str(image / "migrations")
    assert _run(str(image / "bin" / "darkroom"), "--version", folder=image).startswith("darkroom ")


def _run(*command: str, folder: Path | None = None) -> str:
    surroundings = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder or "")}
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout
