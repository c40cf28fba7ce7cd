"""Frameworks that bring their own `openai`, from the environment that `make test-clients` builds for them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.features import shows
from tests.clients.pictures import looked_at_base64, write_picture
from tests.clients.process import run
from tests.house import House
from tests.kitchen import API_KEY

PYTHON = Path(__file__).parents[2] / ".venv-clients" / "bin" / "python"
SCRIPTS = Path(__file__).parent / "frameworks"
PNG = ("PNG", (1024, 1024))

pytestmark = pytest.mark.clients


async def told(house: House, folder: Path, framework: str) -> dict[str, Any]:
    """Let a framework do what it can, and read what it prints."""
    write_picture(folder / "input.png")
    ended = await run(
        str(PYTHON),
        str(SCRIPTS / f"with_{framework}.py"),
        folder=folder,
        variables={
            "OPENAI_BASE_URL": house.base_url,
            "OPENAI_API_KEY": API_KEY,
            # Its prices are fetched from elsewhere otherwise.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    )
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    return found


@shows("litellm", "pictures", "edits", "chat", "errors")
async def test_litellm_makes_edits_and_talks(house: House, tmp_path: Path) -> None:
    found = await told(house, tmp_path, "litellm")
    assert [looked_at_base64(item) for item in found["pictures"]] == [PNG] * 2
    assert looked_at_base64(found["edited"]) == PNG
    assert found["content"].startswith("![image](")
    assert found["error"] == 400


@shows("langchain", "chat", "chat-stream")
async def test_langchains_chat_model_shows_pictures(house: House, tmp_path: Path) -> None:
    found = await told(house, tmp_path, "langchain")
    assert found["content"].startswith("![image](")
    assert found["said"].startswith("![image](")
