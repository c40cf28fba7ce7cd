"""The examples on vendors' pages, word for word but for the address and the key."""

import sys
from pathlib import Path

import httpx2
import pytest

from tests.clients.features import shows
from tests.clients.pictures import looked_at, write_picture
from tests.clients.process import run
from tests.house import House
from tests.kitchen import API_KEY

PAGES = Path(__file__).parent / "pages"


def snippet(name: str, **changes: str) -> str:
    """A snippet of a page with some of its words changed, each of which must be there."""
    text = (PAGES / f"{name}.txt").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def at(house: House, vendor: str, *, key: str | None = None) -> dict[str, str]:
    """The changes that turn a vendor's customer into one of the gateway's."""
    return {vendor: house.base_url, **({} if key is None else {key: API_KEY})}


@shows("llm-reference", "chat")
async def test_llm_references_example_shows_a_picture_in_its_content(house: House, tmp_path: Path) -> None:
    ended = await run(
        sys.executable,
        "-c",
        snippet("llm-reference-python"),
        folder=tmp_path,
        variables={"OPENAI_BASE_URL": house.base_url, "OPENAI_API_KEY": API_KEY},
    )
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"![image]({house.address}")
    link = ended.out.strip().removeprefix("![image](").removesuffix(")")
    async with httpx2.AsyncClient() as anybody:
        assert looked_at((await anybody.get(link)).content)[0] == "PNG"


@shows("xairouter", "pictures")
async def test_xairouters_python_example_draws_its_poster(house: House, tmp_path: Path) -> None:
    code = snippet("xairouter-python", **at(house, "https://api.xairouter.com/v1", key="your-api-key"))
    ended = await run(sys.executable, "-c", code, folder=tmp_path, variables={})
    assert ended.code == 0, ended.err
    assert looked_at((tmp_path / "poster.png").read_bytes()) == ("PNG", (1024, 1536))


@pytest.mark.clients
async def test_xairouters_shell_example_draws_its_poster(house: House, tmp_path: Path) -> None:
    code = snippet("xairouter-shell", **at(house, "https://api.xairouter.com/v1", key="YOUR_API_KEY"))
    ended = await run("bash", "-c", code, folder=tmp_path, variables={})
    assert ended.code == 0, ended.err
    assert looked_at((tmp_path / "poster.png").read_bytes()) == ("PNG", (1024, 1536))


@shows("therouter", "pictures", "edits", "links", "jobs")
@pytest.mark.clients
@pytest.mark.parametrize("model", ["gpt-image-2", "gpt-image-1"])
@pytest.mark.parametrize("kind", ["generation", "edit"])
async def test_therouters_examples_poll_their_job_and_print_its_link(
    house: House, tmp_path: Path, model: str, kind: str
) -> None:
    write_picture(tmp_path / "input.png")
    code = snippet(f"therouter-{model}-{kind}", **at(house, "https://api.therouter.ai/v1"))
    ended = await run("bash", "-c", code, folder=tmp_path, variables={"THE_ROUTER_API_KEY": API_KEY})
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].startswith("submitted: job_")
    assert lines[-2] == "status: succeeded"
    async with httpx2.AsyncClient() as anybody:
        assert looked_at((await anybody.get(lines[-1])).content)[0] == "PNG"


@shows("imarouter", "pictures", "links", "jobs")
@pytest.mark.clients
async def test_imarouters_example_returns_the_link_of_its_picture(house: House, tmp_path: Path) -> None:
    code = snippet("imarouter-javascript", **at(house, "https://api.imarouter.com/v1"))
    script = tmp_path / "example.mjs"
    script.write_text(f"{code}\nconsole.log(await createGptImage2Visual());\n")
    ended = await run("node", str(script), folder=tmp_path, variables={"IMAROUTER_API_KEY": API_KEY})
    assert ended.code == 0, ended.err
    async with httpx2.AsyncClient() as anybody:
        assert looked_at((await anybody.get(ended.out.strip())).content) == ("PNG", (1024, 768))
