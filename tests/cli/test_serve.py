"""`darkroom serve` and `darkroom worker`, up to the moment when the server takes over."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from app.cli.listening import check_free
from tests.catalog.shipped import FILE
from tests.cli.command import darkroom
from tests.cli.test_config import PRODUCTION

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on 127.0.0.1 that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    return free_port()


def test_a_taken_port_is_a_sentence_that_says_what_to_set(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_PORT", str(taken))

    ended = darkroom("serve")

    assert ended.code == 1
    assert ended.err.startswith(f"Port {taken} on 127.0.0.1 is taken by another program")
    assert "DARKROOM_PORT=" in ended.err
    assert not ended.out


def test_a_taken_admin_port_names_its_own_setting(
    taken: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_PORT", str(free))
    monkeypatch.setenv("DARKROOM_ADMIN_LISTEN", f"127.0.0.1:{taken}")

    assert f"DARKROOM_ADMIN_LISTEN=127.0.0.1:{taken + 1}" in darkroom("serve").err


@pytest.mark.parametrize("host", ["203.0.113.9", "2001:db8::9"])
def test_an_address_of_another_machine_is_a_sentence(
    host: str, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_PORT", str(free))
    monkeypatch.setenv("DARKROOM_HOST", host)

    assert f"{host!r} is no address of this machine" in darkroom("serve").err


def test_a_port_is_free_again_once_its_listener_is_gone(free: int) -> None:
    check_free("127.0.0.1", free, "DARKROOM_PORT")
    check_free("127.0.0.1", free, "DARKROOM_PORT")


def test_a_bad_catalog_stops_the_start(folder: Path, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_PORT", str(free))
    monkeypatch.setenv("DARKROOM_CONFIG", str(folder / "none.yaml"))

    ended = darkroom("serve")

    assert ended.code == 1
    assert ended.err.startswith("The catalog cannot be used:")
    assert "DARKROOM_CONFIG" in ended.err


@pytest.mark.parametrize("missing", ["DARKROOM_API_KEY", "DARKROOM_ADMIN_KEY", "DARKROOM_SECRET_KEY"])
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_production_does_not_start_without_its_secrets(
    command: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)

    ended = darkroom(command)

    assert ended.code == 1
    assert f"{missing} is not set." in ended.err


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_production_does_not_start_on_a_database_that_is_gone_or_empty(
    command: str, empty_postgres_url: str, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"postgresql://darkroom:hunter2@127.0.0.1:{free}/darkroom"
    said = []
    for url in (gone, empty_postgres_url):
        others = {
            "DARKROOM_REDIS_URL": "redis://127.0.0.1:9",
            "DARKROOM_PORT": str(free),
            "DARKROOM_CONFIG": str(FILE),
        }
        for name, value in {**PRODUCTION, **others, "DARKROOM_DATABASE_URL": url}.items():
            monkeypatch.setenv(name, value)
        ended = darkroom(command)
        assert (ended.code, ended.out) == (1, "")
        said.append(ended.err.splitlines()[-1])

    assert said == [
        "The database does not answer. Is it running? Check DARKROOM_DATABASE_URL.",
        "The database has no tables yet. Run `darkroom migrate` first, with these settings.",
    ]


def test_a_worker_wants_a_redis() -> None:
    ended = darkroom("worker")

    assert ended.code == 1
    assert "DARKROOM_REDIS_URL is not set" in ended.err


def test_a_taken_port_of_a_worker_names_its_own_setting(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DARKROOM_REDIS_URL", "redis://127.0.0.1:9")
    monkeypatch.setenv("DARKROOM_WORKER_LISTEN", f"127.0.0.1:{taken}")

    assert f"DARKROOM_WORKER_LISTEN=127.0.0.1:{taken + 1}" in darkroom("worker").err


@pytest.mark.journey
def test_the_embedded_default_prints_a_first_picture_that_works(folder: Path, free: int) -> None:
    port = str(free)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DARKROOM_CONFIG": str(FILE),
        "DARKROOM_PORT": port,
    }
    command = [sys.executable, "-c", "from app.cli.main import main; main()"]
    with (folder / "log").open("w") as log:
        served = subprocess.Popen(
            [*command, "serve"], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert served.stdout is not None
        said = banner(served.stdout)
        assert f"http://127.0.0.1:{port}/v1" in said
        assert "Drawn by the sandbox" in said
        assert "OPENAI_API_KEY" in said
        second = subprocess.run(
            [*command, "serve"],
            env={**environment, "DARKROOM_PORT": str(free_port())},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert second.returncode == 1
        assert "Another Darkroom serves" in second.stderr.splitlines()[-1]
        if shutil.which("curl") is not None:
            first_picture = said[said.index("curl ") : said.index("  Data and keys")]
            drawn = subprocess.run(
                ["/bin/sh", "-c", first_picture], capture_output=True, text=True, check=False, timeout=60
            )
            assert (drawn.stdout, drawn.stderr) == ("Saved darkroom.png\n", "")
            assert (folder / "darkroom.png").read_bytes().startswith(b"\x89PNG")
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    assert served.returncode == 0
    keys = (folder / "data" / "secrets.json").read_text()
    log_text = (folder / "log").read_text()
    assert all(secret not in log_text for secret in keys.split('"')[3::4])


def banner(stream: IO[str]) -> str:
    """What is printed up to the banner's last line."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if "Ctrl-C stops" in line:
            break
    return "".join(lines)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
