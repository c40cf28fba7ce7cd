"""Every vendor with every fault, seen from the gateway's front: what comes of it, who was asked, what was bought."""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from app.domain.failures import FailureKind
from app.jobs.lifecycle import Status
from tests.assets.pictures import opened
from tests.conformance.vendors import FAULTS, SPEECHES, Fault, Speech
from tests.house import House, OpenHouse, opener
from tests.simulators.imarouter import ImaRouter
from tests.simulators.openai import OpenAi
from tests.simulators.server import Simulator
from tests.simulators.therouter import TheRouter
from tests.simulators.vercel import Vercel
from tests.simulators.xairouter import XaiRouter

A_PICTURE: Final[dict[str, Any]] = {
    "model": "gpt-image-2", "prompt": "a boat", "quality": "low", "size": "1024x1024",
}  # fmt: skip

OUTCOMES: Final = {
    FailureKind.INVALID: "invalid_value",
    FailureKind.REFUSED: "moderation_blocked",
    FailureKind.UNSUPPORTED: "the other vendor",
    FailureKind.CREDENTIALS: "the other vendor",
    FailureKind.FUNDS: "the other vendor",
    FailureKind.BUSY: "the other vendor",
    FailureKind.DOWN: "the other vendor",
    FailureKind.TIMED_OUT: "upstream_outcome_unknown",
    FailureKind.GARBLED: "upstream_outcome_unknown",
}
"""What the client sees of each kind of failure, with another vendor at hand and by default."""

TESTED_ALONE: Final = {"hang", "drip:0.1", "huge:65", "reset:accept"}
"""Faults that take their time, or strike whichever connection comes first: shown vendor by vendor in `conformance`."""


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> OpenHouse:
    return opener(monkeypatch, tmp_path, sqlite_url)


def faults_of(speech: Speech) -> list[Fault]:
    return [
        fault
        for fault in FAULTS
        if (fault.at is None or speech.vendor in fault.at) and fault.step not in TESTED_ALONE
    ]


@pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: speech.name)
async def test_a_fault_comes_to_its_outcome_and_no_picture_is_bought_twice(
    house: OpenHouse, speech: Speech
) -> None:
    def speak(catalog: dict[str, Any]) -> None:
        catalog["upstreams"][speech.vendor]["options"] |= dict(speech.options)

    spare = TheRouter(api_key="sk-spare") if speech.vendor == "openai" else OpenAi(api_key="sk-spare")
    wrong: dict[str, object] = {}
    async with speech.simulator() as vendor, spare, house(vendor, spare, adjust=speak) as running:
        for fault in faults_of(speech):
            vendor.script(fault.step)
            view = await running.kitchen.served(
                await running.kitchen.order(fault.step, size="1024x1024", quality="low")
            )
            expected = OUTCOMES[fault.kind]
            is_elsewhere = expected == "the other vendor"
            outcome = view.job.error["code"] if view.job.error else view.attempts[-1].upstream
            seen = (outcome, vendor.ledger.posts, vendor.ledger.pictures, spare.ledger.pictures)
            if is_elsewhere:
                wanted = (spare.name, fault.calls, fault.bought, 1)
            else:
                wanted = (expected, fault.calls, fault.bought, 0)
            if seen != wanted:
                wrong[fault.step] = (seen, wanted)
            for each in (vendor, spare):
                each.reset()
                await running.kitchen.parts.routes.reset(each.name, None)
    assert wrong == {}


# -- The same request at each vendor in turn.


@asynccontextmanager
async def every_vendor(house: OpenHouse) -> AsyncIterator[tuple[House, dict[str, Simulator]]]:
    """A gateway that buys from all vendors, from one of them in both of its dialects."""
    vendors: list[Simulator] = [
        OpenAi(api_key="sk-a"), XaiRouter(api_key="sk-b"), TheRouter(api_key="sk-c"), Vercel(api_key="sk-d"),
        ImaRouter(api_key="sk-e"),
    ]  # fmt: skip

    def twice(catalog: dict[str, Any]) -> None:
        jobs = catalog["upstreams"]["imarouter"]
        catalog["upstreams"]["imarouter-tasks"] = {**jobs, "options": {**jobs["options"], "dialect": "tasks"}}
        jobs["options"] = {**jobs["options"], "dialect": "jobs"}
        routes = catalog["models"]["gpt-image-2"]["routes"]
        tasks = {**routes[-1], "upstream": "imarouter-tasks"}
        tasks["supports"] = {**tasks["supports"], "max_n": 1}
        routes.append(tasks)

    async with AsyncExitStack() as stack:
        for vendor in vendors:
            await stack.enter_async_context(vendor)
        running = await stack.enter_async_context(house(*vendors, adjust=twice, routing={"max_attempts": 10}))
        found = {vendor.name: vendor for vendor in vendors}
        yield running, {**found, "imarouter-tasks": found["imarouter"]}


async def test_the_same_request_is_served_by_each_vendor_in_turn(house: OpenHouse) -> None:
    async with every_vendor(house) as (running, vendors):
        routes = running.kitchen.parts.routes
        for chosen in vendors:
            for name in vendors:
                await routes.turn(name, None, "on" if name == chosen else "off")
            raw = await running.sdk.images.with_raw_response.generate(**A_PICTURE, n=2)
            assert raw.headers["x-darkroom-upstream"] == chosen
            answer = raw.parse()
            assert answer.data is not None
            pictures = [opened(base64.b64decode(item.b64_json or "")) for item in answer.data]
            assert [(picture.format, picture.size) for picture in pictures] == [("PNG", (1024, 1024))] * 2
            assert (answer.size, answer.output_format) == ("1024x1024", "png")
            assert vendors[chosen].ledger.pictures == 2
            vendors[chosen].reset()


async def test_vendors_are_asked_in_the_catalogs_order_until_one_delivers(house: OpenHouse) -> None:
    async with every_vendor(house) as (running, vendors):
        for name in ("openai", "xairouter", "therouter", "vercel"):
            vendors[name].script("503")
        view = await running.kitchen.served(await running.kitchen.order(size="1024x1024", quality="low"))
        assert view.job.status is Status.SUCCEEDED
        assert [item.upstream for item in view.attempts] == list(vendors)[:5]
        bought = {name: vendor.ledger.pictures for name, vendor in vendors.items() if vendor.ledger.pictures}
        assert bought == {"imarouter": 1, "imarouter-tasks": 1}  # one vendor, in both of its dialects


async def test_a_picture_in_another_format_is_converted_once_and_said_to_be(house: OpenHouse) -> None:
    async with every_vendor(house) as (running, vendors):
        routes = running.kitchen.parts.routes
        for chosen in vendors:
            for name in vendors:
                await routes.turn(name, None, "on" if name == chosen else "off")
            vendors[chosen].script("wrong_format:webp")
            raw = await running.sdk.images.with_raw_response.generate(**A_PICTURE, output_format="jpeg")
            document = raw.http_response.json()
            (item,) = document["data"]
            assert opened(base64.b64decode(item["b64_json"])).format == "JPEG"
            assert document["output_format"] == "jpeg"
            assert document["adjusted"] == ["output_format: converted from webp to jpeg"]
            assert (vendors[chosen].ledger.posts, vendors[chosen].ledger.pictures) == (1, 1)
            vendors[chosen].reset()
