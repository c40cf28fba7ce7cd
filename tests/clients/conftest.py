"""A gateway as `make run` serves it, with the sandbox for every vendor, for clients in processes of their own."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.catalog.shipped import FILE
from tests.house import House, open_house

VENDOR_KEYS = (
    "OPENAI_API_KEY",
    "THE_ROUTER_API_KEY",
    "XAIROUTER_API_KEY",
    "IMAROUTER_API_KEY",
    "AI_GATEWAY_API_KEY",
)


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> AsyncIterator[House]:
    """The shipped catalog without any vendor's key."""
    catalog = _catalog(monkeypatch)
    async with open_house(monkeypatch, tmp_path, catalog, database_url=sqlite_url) as opened:
        yield opened


@pytest.fixture
async def slow_house(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> AsyncIterator[House]:
    """The same, whose sandbox takes some seconds for a picture."""
    catalog = _catalog(monkeypatch)
    catalog["upstreams"]["sandbox"]["options"] = {"delay_s": 3}
    async with open_house(monkeypatch, tmp_path, catalog, database_url=sqlite_url) as opened:
        yield opened


@pytest.fixture
async def bare_house(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> AsyncIterator[House]:
    """The embedded default on a catalog that names no sandbox."""
    catalog = _catalog(monkeypatch)
    del catalog["upstreams"]["sandbox"]
    async with open_house(monkeypatch, tmp_path, catalog, database_url=sqlite_url) as opened:
        yield opened


def _catalog(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in VENDOR_KEYS:
        monkeypatch.delenv(name, raising=False)
    catalog: dict[str, Any] = YAML(typ="safe").load(FILE)
    return catalog
