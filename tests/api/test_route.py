"""`POST /v1/images/route`: told beforehand is what happens afterwards, and telling buys nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from tests.house import House, OpenHouse, opener
from tests.simulators.openai import OpenAi
from tests.simulators.therouter import TheRouter
from tests.simulators.vercel import Vercel

A_REQUEST = {"model": "openai/gpt-image-2", "prompt": "a boat", "quality": "low", "size": "1024x1024"}
A_PICTURE = {"image_url": "https://pictures.test/a.png"}


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> OpenHouse:
    return opener(monkeypatch, tmp_path, sqlite_url)


@asynccontextmanager
async def three(house: OpenHouse, **options: Any) -> AsyncIterator[House]:
    """A gateway with three vendors."""
    async with (
        OpenAi(api_key="sk-a") as first,
        TheRouter(api_key="sk-b") as second,
        Vercel(api_key="sk-c") as third,
        house(first, second, third, **options) as running,
    ):
        yield running
        assert [vendor.ledger.posts for vendor in (first, second, third)] == [0, 0, 0]
        assert (await running.client.get("/v1/jobs")).json()["data"] == []


async def asked(house: House, **changed: Any) -> dict[str, Any]:
    answer = await house.client.post("/v1/images/route", json={**A_REQUEST, **changed})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["upstream"] for entry in entries]


def dearer_first(catalog: dict[str, Any]) -> None:
    """Three prices, the dearest first in the catalog."""
    routes = catalog["models"]["gpt-image-2"]["routes"]
    for route, price in zip(routes, (0.3, 0.2, 0.1), strict=True):
        route["prices"] = {"per_image": {"low": price}}


async def test_routes_are_told_in_their_order_with_the_price_of_this_request(house: OpenHouse) -> None:
    async with three(house, routing={"policy": "cheapest"}, adjust=dearer_first) as running:
        told = await asked(running, n=2)
        assert (told["object"], told["model"], told["operation"], told["policy"]) == (
            "image_route", "gpt-image-2", "image.generation", "cheapest",
        )  # fmt: skip
        assert told["routes"] == [
            {
                "upstream": upstream,
                "model": model,
                "pictures_per_attempt": 2,
                "estimated_cost_usd": price,
            }
            for upstream, model, price in (
                ("vercel", "openai/gpt-image-2", "0.2"),
                ("therouter", "openai/gpt-image-2", "0.4"),
                ("openai", "gpt-image-2", "0.6"),
            )
        ]
        assert (told["left_out"], told["error"]) == ([], None)


async def test_what_a_route_cannot_do_is_told_with_the_parameter(house: OpenHouse) -> None:
    async with three(house) as running:
        told = await asked(running, images=[A_PICTURE, {"file_id": "file_1"}], mask=A_PICTURE)
        assert told["operation"] == "image.edit"
        assert names(told["routes"]) == ["openai", "vercel"]
        (left_out,) = told["left_out"]
        assert (left_out["upstream"], left_out["kind"], left_out["param"]) == ("therouter", "unable", "mask")


async def test_who_is_off_who_rests_and_until_when_is_told(house: OpenHouse) -> None:
    async with three(house) as running:
        routes = running.kitchen.parts.routes
        busy = UpstreamFailure(FailureKind.BUSY, "as the test wants it", retry_after_s=30)
        await routes.failed("openai", "gpt-image-2", busy)
        await routes.turn("vercel", None, "off")
        told = await asked(running)
        assert names(told["routes"]) == ["therouter"]
        rests, is_off = told["left_out"]
        assert (rests["upstream"], rests["kind"], is_off["upstream"], is_off["kind"]) == (
            "openai", "later", "vercel", "off",
        )  # fmt: skip
        assert isinstance(rests["retry_at"], int)
        assert is_off["retry_at"] is None

        # What a client of the model list sees is the same.
        model = (await running.client.get("/v1/models/gpt-image-2")).json()
        shown = {route["upstream"]: route["health"] for route in model["darkroom"]["routes"]}
        assert {name: health["state"] for name, health in shown.items()} == {
            "openai": "later", "therouter": "ready", "vercel": "off",
        }  # fmt: skip
        assert shown["openai"]["away_until"] == rests["retry_at"]
        assert shown["vercel"]["reason"] == is_off["reason"]


async def test_when_nobody_is_left_the_error_of_the_call_is_told(house: OpenHouse) -> None:
    async with three(house) as running:
        for name in ("openai", "therouter", "vercel"):
            await running.kitchen.parts.routes.turn(name, None, "off")
        told = await asked(running)
        assert (told["routes"], names(told["left_out"])) == ([], ["openai", "therouter", "vercel"])
        assert told["error"]["code"] == "upstream_unavailable"


@pytest.mark.parametrize(
    "changed, status, code, param",
    [
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"prompt": ""}, 400, "missing_required_parameter", "prompt"),
        ({"size": "17x17"}, 400, "invalid_value", "size"),
        ({"n": 11}, 400, "invalid_value", "n"),
        ({"images": []}, 400, "missing_required_parameter", "images"),
        ({"images": [{}]}, 400, "invalid_value", "images[0]"),
        ({"mask": A_PICTURE}, 400, "missing_required_parameter", "images"),
        ({"priority": "urgent"}, 400, "invalid_value", "priority"),
    ],
)
async def test_a_request_that_would_be_refused_is_refused(
    house: OpenHouse, changed: dict[str, Any], status: int, code: str, param: str
) -> None:
    async with OpenAi(api_key="sk-a") as vendor, house(vendor, is_working=False) as running:
        answer = await running.client.post("/v1/images/route", json={**A_REQUEST, **changed})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


async def test_told_and_done_are_the_same(house: OpenHouse) -> None:
    async with (
        OpenAi(api_key="sk-a") as first,
        TheRouter(api_key="sk-b") as second,
        house(first, second, routing={"policy": "cheapest"}, adjust=dear_and_cheap) as running,
    ):
        told = await asked(running)
        answer = await running.client.post("/v1/images/generations", json=A_REQUEST)
        assert answer.headers["x-darkroom-upstream"] == told["routes"][0]["upstream"] == "therouter"


def dear_and_cheap(catalog: dict[str, Any]) -> None:
    """The second route is the cheaper one."""
    first, second = catalog["models"]["gpt-image-2"]["routes"]
    first["prices"], second["prices"] = {"per_image": {"low": 0.3}}, {"per_image": {"low": 0.1}}


async def test_it_is_part_of_the_documentation(house: OpenHouse) -> None:
    async with (
        OpenAi(api_key="sk-a") as vendor,
        house(vendor, is_working=False) as running,
        httpx2.AsyncClient(base_url=running.address) as anonymous,
    ):
        paths = (await anonymous.get("/openapi.json")).json()["paths"]
        assert "200" in paths["/v1/images/route"]["post"]["responses"]
        assert (await anonymous.post("/v1/images/route", json=A_REQUEST)).status_code == 401
