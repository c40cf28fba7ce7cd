"""The command in an empty folder, with an environment without settings, beside a gateway that plays its part."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.gateway import FakeGateway
from tests.harness.servers import POSTGRES_URL_VARIABLE


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder, and no setting in the environment."""
    prefix = POSTGRES_URL_VARIABLE.partition("TEST")[0]
    for name in list(os.environ):
        is_ours = name.startswith(prefix) and not name.startswith(f"{prefix}TEST_")
        if is_ours or name.endswith("_API_KEY") or name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A gateway on loopback that the environment points to, keys included."""
    with FakeGateway() as running:
        monkeypatch.setenv("DARKROOM_PUBLIC_URL", running.url)
        monkeypatch.setenv("DARKROOM_API_KEY", running.api_key)
        monkeypatch.setenv("DARKROOM_ADMIN_KEY", running.admin_key)
        yield running
