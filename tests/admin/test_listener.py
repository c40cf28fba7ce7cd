"""The operators' listener: their endpoints are there and nowhere else."""

from pathlib import Path

import httpx2
import pytest

from app.main import build_admin_app, build_app
from tests.admin.conftest import BASE_URL, offline_catalog
from tests.kitchen import ADMIN_KEY, API_KEY, open_kitchen, write_settings


async def _status(app: object, path: str, key: str) -> int:
    transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type] # an ASGI application
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        return (await client.get(path, headers={"authorization": f"Bearer {key}"})).status_code


async def test_with_a_listener_of_their_own_operators_are_served_there_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    settings = write_settings(
        monkeypatch,
        tmp_path,
        offline_catalog(),
        database_url=sqlite_url,
        ADMIN_LISTEN="127.0.0.1:9999",
    )
    async with open_kitchen(settings, is_working=False) as kitchen:
        public, operators = build_app(kitchen.parts), build_admin_app(kitchen.parts)
        assert await _status(public, "/admin/v1/teams", ADMIN_KEY) == 404
        assert await _status(public, "/v1/models", API_KEY) == 200
        assert await _status(operators, "/admin/v1/teams", ADMIN_KEY) == 200
        assert await _status(operators, "/admin/v1/teams", API_KEY) == 403
        assert await _status(operators, "/v1/models", API_KEY) == 404
        assert await _status(operators, "/healthz", API_KEY) == 200
