"""`/v1/models`, `/healthz`, `/readyz` and the documentation."""

import asyncio
from collections.abc import Mapping

import httpx2
import pytest

from app.api import health
from app.api.application import create_app
from app.api.health import Check
from app.assets.errors import StorageUnavailable
from app.db.engine import StoreUnavailable
from tests.api.parts import AUTHORIZED, known_accounts
from tests.catalog.shipped import shipped


async def test_every_model_is_listed_as_openai_lists_it(client: httpx2.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert (body["object"], body["has_more"]) == ("list", False)
    assert (body["first_id"], body["last_id"]) == (body["data"][0]["id"], body["data"][-1]["id"])
    assert [item["id"] for item in body["data"]] == list(shipped().models)
    for item in body["data"]:
        assert item["object"] == "model"
        assert isinstance(item["created"], int)
        assert isinstance(item["owned_by"], str)
        assert item.keys() == {"id", "object", "created", "owned_by", "shutdown_date", "darkroom"}


async def test_a_model_tells_who_makes_it_at_what_price(client: httpx2.AsyncClient) -> None:
    body = (await client.get("/v1/models/gpt-image-2")).json()
    known = body["darkroom"]
    assert known["capabilities"]["max_n"] == 10
    (openai,) = [route for route in known["routes"] if route["upstream"] == "openai"]
    assert openai["model"] == "gpt-image-2"
    assert openai["prices"]["per_million_tokens"]["image_output"] == "30"
    assert openai["supports"]["unknown_parameters"] is True


async def test_models_come_in_pages_for_those_who_ask(client: httpx2.AsyncClient) -> None:
    names = list(shipped().models)
    first = (await client.get("/v1/models?limit=2")).json()
    assert ([item["id"] for item in first["data"]], first["has_more"]) == (names[:2], True)
    rest = (await client.get("/v1/models", params={"after": first["last_id"]})).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == (names[2:], False)
    end = (await client.get("/v1/models", params={"after": names[-1]})).json()
    assert (end["data"], end["first_id"], end["last_id"]) == ([], None, None)


@pytest.mark.parametrize(
    "query,status,code",
    [
        ("limit=0", 400, "invalid_value"),
        ("limit=-1", 400, "invalid_value"),
        ("limit=many", 400, "invalid_value"),
        ("limit=", 400, "invalid_value"),
        ("after=nobody", 404, "model_not_found"),
    ],
)
async def test_a_page_that_is_none_is_refused_by_name(
    client: httpx2.AsyncClient, query: str, status: int, code: str
) -> None:
    answer = await client.get(f"/v1/models?{query}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, query.partition("=")[0])


async def test_the_list_is_found_with_a_slash_behind_it_too(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/models/")).json() == (await client.get("/v1/models")).json()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/models/gpt-image-2"])
async def test_whoever_only_knocks_is_answered(address: str, path: str) -> None:
    async with httpx2.AsyncClient(base_url=address, headers=AUTHORIZED) as remote:
        answer = await remote.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_a_name_may_hold_a_slash(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/models/openai/gpt-image-2")).json()["id"] == "gpt-image-2"


async def test_an_unknown_model_is_not_found(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/models/nobody/at-all")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


async def works() -> None:
    """A part that works."""


async def fails() -> None:
    raise StoreUnavailable("the database did not answer")


async def is_full() -> None:
    raise StorageUnavailable("storage is short of space")


async def hangs() -> None:
    await asyncio.Event().wait()


async def has_a_bug() -> None:
    raise KeyError("a bug")


async def ready(checks: Mapping[str, Check]) -> httpx2.Response:
    app = create_app([health.router(checks, lambda: ["set OPENAI_API_KEY"])], known_accounts(), version="0")
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        return await client.get("/readyz")


async def test_a_process_is_ready_when_every_part_works() -> None:
    answer = await ready({"database": works, "storage": works})
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "checks": {"database": "ok", "storage": "ok"},
        "warnings": ["set OPENAI_API_KEY"],
    }


async def test_a_part_that_fails_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CHECK_S", 0.05)
    answer = await ready({"database": fails, "storage": is_full, "redis": hangs, "migrations": works})
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "database": "the database did not answer",
        "storage": "storage is short of space",
        "redis": "no answer within 0.05 s",
        "migrations": "ok",
    }


async def test_a_check_that_fails_for_a_reason_of_its_own_tells_it_to_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = await ready({"database": has_a_bug, "storage": works})
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "database": "it failed; this process's log tells why",
        "storage": "ok",
    }
    assert "a bug" not in answer.text
    assert "ready.check_failed" in capsys.readouterr().out


async def test_the_documentation_is_public_and_shows_the_body(anonymous: httpx2.AsyncClient) -> None:
    assert (await anonymous.get("/docs")).status_code == 200
    operation = (await anonymous.get("/openapi.json")).json()["paths"]["/v1/images/generations"]["post"]
    assert "a lighthouse at dusk" in str(operation["requestBody"])
    assert operation["security"] == [{"HTTPBearer": []}]
    assert {"200", "202", "400", "401", "429", "502"} <= set(operation["responses"])
