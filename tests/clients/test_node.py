"""Clients for Node, in the versions that `node/package.json` pins; `make test-clients` installs them."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.clients.features import shows
from tests.clients.pictures import looked_at, looked_at_base64, write_picture
from tests.clients.process import run
from tests.house import House
from tests.kitchen import API_KEY

SCRIPTS = Path(__file__).parent / "node"
PNG = ("PNG", (1024, 1024))

pytestmark = pytest.mark.clients


async def told(house: House, folder: Path, script: str) -> dict[str, Any]:
    """Run a script, and read what it prints."""
    write_picture(folder / "input.png")
    ended = await run(
        "node",
        str(SCRIPTS / script),
        folder=folder,
        variables={"OPENAI_BASE_URL": house.base_url, "OPENAI_API_KEY": API_KEY},
    )
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


@shows("openai-node", "pictures", "links", "stream", "edits", "chat", "chat-stream", "jobs", "errors")
async def test_openais_package_for_node_gets_everything(house: House, tmp_path: Path) -> None:
    found = await told(house, tmp_path, "openai.mjs")
    assert [looked_at_base64(item) for item in found["plain"]] == [PNG] * 2
    async with httpx2.AsyncClient() as anybody:
        assert looked_at((await anybody.get(found["link"])).content) == PNG
    assert [kind for kind, _ in found["events"]] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [looked_at_base64(item) for _, item in found["events"]] == [PNG] * 3
    assert looked_at_base64(found["edited"]) == PNG
    assert found["content"].startswith("![image](")
    assert found["said"].startswith("![image](")
    assert found["job"] == ["succeeded", 1]
    assert found["error"] == [True, "invalid_value", "size"]


@shows("ai-sdk", "pictures", "edits", "errors")
async def test_the_ai_sdk_makes_and_edits_pictures(house: House, tmp_path: Path) -> None:
    found = await told(house, tmp_path, "vercel.mjs")
    assert [looked_at_base64(item) for item in found["images"]] == [PNG] * 2
    assert found["warnings"] == 0
    assert looked_at_base64(found["edited"]) == PNG
    assert found["error"] == [True, 400, False]
