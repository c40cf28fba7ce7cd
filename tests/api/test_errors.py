"""Every way for a request to go wrong leaves in one envelope, with the headers that clients decide by."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from app.api.application import create_app
from app.api.errors import NotFound, RequestTooLarge
from app.db.engine import StoreUnavailable
from app.domain.errors import InvalidValue
from app.jobs.errors import JobStillRunning
from app.routing.errors import AllUpstreamsFailed
from tests.api.parts import AUTHORIZED, known_accounts


def failing() -> APIRouter:
    router = APIRouter()

    @router.get("/v1/invalid")
    async def invalid(_request: Request) -> None:
        raise InvalidValue("Invalid value: 'ultra'.", param="quality")

    @router.get("/v1/busy")
    async def busy(_request: Request) -> None:
        raise AllUpstreamsFailed("Every attempt failed.", retry_after_s=3600.0)

    @router.get("/v1/running")
    async def running(_request: Request) -> None:
        raise JobStillRunning("Still running.", job_id="job_1", retry_after_s=0.2)

    @router.get("/v1/store")
    @router.post("/v1/store")
    async def store(_request: Request) -> None:
        raise StoreUnavailable("postgres://user:password@10.0.0.1")

    @router.get("/v1/bug")
    async def bug(_request: Request) -> None:
        raise KeyError("a secret")

    @router.get("/v1/large")
    async def large(_request: Request) -> None:
        raise RequestTooLarge("Too large.")

    @router.get("/v1/number")
    async def number(_request: Request, count: int) -> None:
        raise NotFound(str(count))

    @router.get("/v1/half")
    async def half(_request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise KeyError("in the middle")

        return StreamingResponse(body())

    return router


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app([failing()], known_accounts(), version="0", public_url="https://gateway.test/darkroom/")
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=AUTHORIZED) as made:
        yield made


async def test_an_invalid_request_names_its_parameter(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/invalid")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "message": "Invalid value: 'ultra'.",
            "type": "invalid_request_error",
            "param": "quality",
            "code": "invalid_value",
        }
    }
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


async def test_advice_to_wait_is_never_longer_than_clients_accept(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/busy")
    assert (answer.status_code, answer.headers["retry-after"]) == (502, "60")
    assert answer.headers["x-should-retry"] == "true"


async def test_an_error_about_a_job_says_where_the_job_is(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/running")
    assert answer.status_code == 504
    assert answer.json()["error"]["job_id"] == "job_1"
    assert answer.headers["location"] == "https://gateway.test/darkroom/v1/jobs/job_1"
    assert answer.headers["x-darkroom-job-id"] == "job_1"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("method,should_retry", [("GET", "true"), ("POST", "false")])
async def test_a_silent_database_is_worth_another_look_but_not_another_purchase(
    client: httpx2.AsyncClient, method: str, should_retry: str
) -> None:
    answer = await client.request(method, "/v1/store")
    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == should_retry
    assert answer.headers["retry-after"] == "1"
    assert "password" not in answer.text


async def test_a_bug_is_logged_and_tells_the_client_nothing(
    client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/v1/bug")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "a secret" in capsys.readouterr().out + caplog.text


async def test_an_answer_that_fails_half_way_is_broken_off(client: httpx2.AsyncClient) -> None:
    with pytest.raises(KeyError):
        await client.get("/v1/half")


async def test_a_path_that_is_not_there(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "/v1/nowhere" in answer.json()["error"]["message"]


async def test_a_wrong_method_is_told_every_right_one(client: httpx2.AsyncClient) -> None:
    answer = await client.put("/v1/store")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"


async def test_a_body_that_is_too_large(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/large")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_what_the_framework_refuses_is_a_400_in_our_envelope(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/number?count=many")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"
    assert answer.json()["error"]["param"] == "count"


@pytest.mark.parametrize("path", ["/v1/invalid", "/v1/bug", "/v1/nowhere", "/healthz", "/v1/running"])
async def test_every_answer_has_a_request_id(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "given,is_kept", [("mine-1_A", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("a;b", False)]
)
async def test_a_harmless_request_id_is_kept(client: httpx2.AsyncClient, given: str, is_kept: bool) -> None:
    answer = await client.get("/v1/nowhere", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is is_kept


async def test_an_unauthenticated_error_has_the_same_form() -> None:
    app = create_app([failing()], known_accounts(), version="0")
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/v1/invalid")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "x-request-id" in answer.headers
