"""Upstreams as operators see and steer them."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.failures import FailureKind, UpstreamFailure
from app.routing.health import TRIP_AFTER
from tests.admin.conftest import Office


async def _look(office: Office, name: str = "openai") -> dict[str, Any]:
    return dict((await office.admin.get(f"/admin/v1/upstreams/{name}")).json())


async def _routes_left(office: Office) -> int:
    model = office.parts.catalog.get().models["gpt-image-2"]
    job = await office.parts.jobs.view(await office.kitchen.order(), None)
    plan = (await office.parts.routes.plan(model, job.job.request)).plan
    return len(plan.candidates)


async def test_an_upstream_is_shown_with_its_limits_and_without_its_key(office: Office) -> None:
    page = await office.admin.get("/admin/v1/upstreams")
    (openai,) = page.json()["data"]
    assert (openai["name"], openai["adapter"], openai["base_url"]) == (
        "openai",
        "openai",
        "http://127.0.0.1:9",
    )
    assert openai["key"] == {"variable": "OPENAI_TEST_KEY", "is_missing": False}
    assert (openai["switch"], openai["breaker"], openai["in_flight"]) == ("on", "closed", 0)
    assert openai["limits"]["max_concurrency"] == 50
    assert [row["model"] for row in openai["models"]] == ["gpt-image-2"]
    assert "canary" not in page.text


@pytest.mark.parametrize("verb, switch", [("disable", "off"), ("drain", "draining")])
async def test_an_upstream_that_is_off_is_not_asked_until_it_is_enabled(
    office: Office, verb: str, switch: str
) -> None:
    assert await _routes_left(office) == 1
    dry = (await office.admin.post(f"/admin/v1/upstreams/openai/{verb}?dry_run=true")).json()
    assert (dry["switch"], dry["would"]["switch"]) == ("on", switch)
    assert await _routes_left(office) == 1
    turned = await office.admin.post(f"/admin/v1/upstreams/openai/{verb}")
    assert turned.json()["switch"] == switch
    assert await _routes_left(office) == 0
    await office.admin.post("/admin/v1/upstreams/openai/enable")
    assert await _routes_left(office) == 1


async def test_one_model_of_an_upstream_is_turned_off_by_any_of_its_names(office: Office) -> None:
    turned = (await office.admin.post("/admin/v1/upstreams/openai/disable?model=openai/gpt-image-2")).json()
    assert (turned["switch"], turned["models"][0]["switch"]) == ("on", "off")
    assert await _routes_left(office) == 0
    refused = await office.admin.post("/admin/v1/upstreams/openai/disable?model=dall-e-9")
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")


async def test_a_tripped_breaker_is_shown_and_reset(office: Office) -> None:
    for _ in range(TRIP_AFTER):
        await office.parts.routes.failed("openai", "gpt-image-2", UpstreamFailure(FailureKind.DOWN, "away"))
    tripped = await _look(office)
    assert (tripped["breaker"], tripped["failures"], tripped["away_for"]) == ("open", TRIP_AFTER, "down")
    assert tripped["away_until"] is not None
    await office.admin.post("/admin/v1/upstreams/openai/drain")
    reset = (await office.admin.post("/admin/v1/upstreams/openai/reset")).json()
    assert (reset["breaker"], reset["failures"], reset["away_until"]) == ("closed", 0, None)
    assert reset["switch"] == "draining"


async def test_a_disabled_upstream_stays_so_when_it_delivers_or_fails(office: Office) -> None:
    await office.admin.post("/admin/v1/upstreams/openai/disable")
    await office.parts.routes.delivered("openai", "gpt-image-2")
    await office.parts.routes.failed("openai", "gpt-image-2", UpstreamFailure(FailureKind.DOWN, "away"))
    assert (await _look(office))["switch"] == "off"


async def test_a_model_is_named_in_the_body_as_well(office: Office) -> None:
    path = "/admin/v1/upstreams/openai"
    turned = (await office.admin.post(f"{path}/disable", json={"model": "gpt-image-2"})).json()
    assert (turned["switch"], turned["models"][0]["switch"]) == ("on", "off")
    turned = (await office.admin.post(f"{path}/enable", json={"model": "gpt-image-2"})).json()
    assert turned["models"][0]["switch"] == "on"
    same = await office.admin.post(f"{path}/drain?model=gpt-image-2", json={"model": "gpt-image-2"})
    assert same.json()["models"][0]["switch"] == "draining"


@pytest.mark.parametrize("verb", ["enable", "disable", "drain", "reset"])
@pytest.mark.parametrize(
    "sent, param",
    [
        ({"json": {"modle": "gpt-image-2"}}, "modle"),
        ({"json": {"model": 2}}, "model"),
        ({"json": ["gpt-image-2"]}, None),
        ({"content": b"model=gpt-image-2"}, None),
        ({"data": {"model": "gpt-image-2"}}, None),
        ({"json": {"model": "gpt-image-2"}, "params": {"model": "openai/gpt-image-2"}}, "model"),
    ],
)
async def test_a_body_that_is_not_understood_turns_nothing(
    office: Office, verb: str, sent: dict[str, Any], param: str | None
) -> None:
    refused = await office.admin.post(f"/admin/v1/upstreams/openai/{verb}", **sent)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert await office.audit() == []


async def test_upstreams_are_listed_page_by_page(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = office.parts.catalog.get()
    openai = catalog.upstreams["openai"]
    names = ["openai", "second", "third"]
    more = replace(catalog, upstreams={name: replace(openai, name=name) for name in names})
    monkeypatch.setattr(office.parts.catalog, "get", lambda: more)
    first = (await office.admin.get("/admin/v1/upstreams", params={"limit": 2})).json()
    assert [item["name"] for item in first["data"]] == ["openai", "second"]
    assert (first["has_more"], first["last_id"]) == (True, "second")
    rest = (await office.admin.get("/admin/v1/upstreams", params={"after": first["last_id"]})).json()
    assert ([item["name"] for item in rest["data"]], rest["has_more"]) == (["third"], False)
