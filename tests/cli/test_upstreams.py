"""`darkroom upstreams`: lists and switches over the admin API, and checks at the vendor itself."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cli.command import Ended, darkroom
from tests.cli.gateway import FakeGateway
from tests.house import opener
from tests.kitchen import ADMIN_KEY, catalog_of
from tests.simulators.imarouter import ImaRouter
from tests.simulators.openai import OpenAi
from tests.simulators.server import Simulator
from tests.simulators.therouter import TheRouter
from tests.upstreams.test_samples import outcome_of

KEY = "sk-canary-0123456789"


async def run(*arguments: str) -> Ended:
    """Run the command beside the simulators, which are in this loop."""
    return await asyncio.to_thread(darkroom, "upstreams", *arguments)


def configure(monkeypatch: pytest.MonkeyPatch, folder: Path, vendor: Simulator, **routes: Any) -> None:
    """A catalog of one vendor, and its key."""
    catalog = catalog_of({vendor.name: vendor})
    catalog["models"]["gpt-image-2"]["routes"][0] |= routes
    YAML(typ="safe").dump(catalog, folder / "gateway.yaml")
    monkeypatch.setenv("DARKROOM_CONFIG", str(folder / "gateway.yaml"))
    monkeypatch.setenv("DARKROOM_ALLOW_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv(f"{vendor.name.upper()}_TEST_KEY", vendor.api_key)


async def test_upstreams_are_listed_and_switched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    house = opener(monkeypatch, tmp_path, sqlite_url)
    async with OpenAi(api_key=KEY) as vendor, house(vendor, is_working=False) as running:
        at = ("--base-url", running.address, "--api-key", ADMIN_KEY)
        listed = await run("list", *at)
        assert listed.out.splitlines()[1].split() == ["openai", "ready", "-", "0", "OPENAI_TEST_KEY"]

        disabled = await run("disable", "openai", *at)
        assert disabled.out == "The upstream openai is disabled. No call is in flight.\n"
        assert (await run("list", "--json", *at)).json[0]["switch"] == "off"
        told = await running.client.post(
            "/v1/images/route", json={"model": "gpt-image-2", "prompt": "a boat"}
        )
        assert [item["kind"] for item in told.json()["left_out"]] == ["off"]

        assert (await run("enable", "openai", *at)).out == "The upstream openai is enabled.\n"
        assert (await run("list", "--json", *at)).json[0]["switch"] == "on"
        one_model = await run("disable", "openai", "--model", "gpt-image-2", *at)
        assert one_model.out.startswith("The model gpt-image-2 at openai is disabled.")
        unknown = await run("disable", "nobody", *at)
        assert unknown.code == 1
        assert "nobody" in unknown.err


def test_switching_wants_an_admin_key(gateway: FakeGateway) -> None:
    assert darkroom("upstreams", "list", "--api-key", gateway.api_key).code == 4


async def test_a_free_check_buys_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    async with OpenAi(api_key=KEY) as vendor:
        configure(monkeypatch, folder, vendor)
        ended = await run("check", "openai")
        assert (ended.code, ended.out) == (0, "ok  127.0.0.1 answers and knows the key\n")
        monkeypatch.setenv("OPENAI_TEST_KEY", "sk-of-somebody-else")
        assert (await run("check", "openai")).code == 1
        assert vendor.ledger.posts == 0


@pytest.mark.parametrize("kind", [OpenAi, TheRouter, ImaRouter])
async def test_a_check_that_buys_makes_one_picture_tells_its_cost_and_keeps_the_exchange(
    monkeypatch: pytest.MonkeyPatch, folder: Path, kind: type[OpenAi | TheRouter | ImaRouter]
) -> None:
    async with kind(api_key=KEY) as vendor:
        configure(monkeypatch, folder, vendor)
        ended = await run("check", vendor.name, "--buy", "--json")
        assert ended.code == 0, ended.err
        assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)
        bought = ended.json
        assert (bought["upstream"], bought["format"], bought["size"]) == (vendor.name, "png", "1024x1024")
        assert float(bought["cost_usd"]) > 0

        samples = [Path(path) for path in bought["samples"]]
        assert all(path.is_relative_to(folder / "data" / "samples" / vendor.name) for path in samples)
        for path in samples:
            text = path.read_text()
            sample = json.loads(text)
            assert KEY not in text
            assert "sig=" not in text
            assert "X-Amz-Signature" not in text
            # What was kept means to the adapter what the reply itself did.
            assert outcome_of(vendor.name, sample) == sample["outcome"]
        assert json.loads(samples[-1].read_text())["outcome"] == "finished"


async def test_for_people_the_cost_stands_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with OpenAi(api_key=KEY) as vendor:
        configure(monkeypatch, folder, vendor)
        ended = await run("check", "openai", "--buy")
        assert "cost     $0.006 (estimated)\n" in ended.out

        configure(monkeypatch, folder, vendor, prices={})
        assert "cost     unknown: the route has no price\n" in (await run("check", "openai", "--buy")).out


async def test_a_check_that_buys_in_vain_says_why_and_keeps_the_exchange(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    async with OpenAi(api_key=KEY) as vendor:
        configure(monkeypatch, folder, vendor)
        vendor.script("402")
        ended = await run("check", "openai", "--buy")
        assert ended.code == 1
        assert ended.err.startswith("No picture from openai: funds:")
        assert KEY not in ended.err
        (path,) = (folder / "data" / "samples" / "openai").iterdir()
        assert json.loads(path.read_text())["outcome"] == "funds"


async def test_a_check_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    async with OpenAi(api_key=KEY) as vendor:
        configure(monkeypatch, folder, vendor)
        monkeypatch.delenv("OPENAI_TEST_KEY")
        assert "set OPENAI_TEST_KEY to its API key" in (await run("check", "openai", "--buy")).err
        assert (await run("check", "nobody")).err == "There is no upstream 'nobody'. There are: openai.\n"
        monkeypatch.setenv("OPENAI_TEST_KEY", KEY)
        assert (await run("check", "openai", "--buy", "--model", "dall-e-2")).code == 2
        assert vendor.ledger.posts == 0


def test_a_name_that_the_catalog_allows_is_sent_as_it_is(gateway: FakeGateway) -> None:
    darkroom("upstreams", "disable", "eu.open-ai_2")
    assert gateway.asked[-1].path == "/admin/v1/upstreams/eu.open-ai_2/disable"
    for name in ("..", "."):
        assert darkroom("upstreams", "disable", name).code == 2
    darkroom("upstreams", "disable", "../keys")
    assert gateway.asked[-1].path == "/admin/v1/upstreams/..%2Fkeys/disable"
