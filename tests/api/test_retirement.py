"""A model that its vendor has announced to retire says so on every answer: `Deprecation`, `Sunset`, `shutdown_date`."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import pytest

from app.api.retirement import retirement_headers
from app.domain.failures import FailureKind
from tests.api.conftest import Gateway
from tests.api.multipart import File, multipart
from tests.api.parts import AUTHORIZED
from tests.assets.pictures import SAMPLES
from tests.catalog.shipped import shipped

LEAVING = "gpt-image-1"
STAYING = "gpt-image-2"
END = datetime(2026, 10, 23, tzinfo=UTC)
PROMPT = "a lighthouse"


def told(answer: httpx2.Response) -> tuple[str | None, str | None]:
    return answer.headers.get("deprecation"), answer.headers.get("sunset")


def assert_told(answer: httpx2.Response) -> None:
    assert answer.status_code in {200, 202}, answer.text
    deprecation, sunset = told(answer)
    assert deprecation == f"@{int(END.timestamp())}"
    assert sunset == "Fri, 23 Oct 2026 00:00:00 GMT"
    assert parsedate_to_datetime(sunset) == END


def calls(model: str) -> list[tuple[str, dict[str, Any]]]:
    """One call of each kind that makes a job, all of them answered at once."""
    form, content_type = multipart(("model", model), ("prompt", PROMPT), ("image", File(SAMPLES["png"])))
    said = [{"role": "user", "content": PROMPT}]
    return [
        ("/v1/images/generations?async=true", {"json": {"model": model, "prompt": PROMPT}}),
        ("/v1/images/edits?async=true", {"content": form, "headers": {"content-type": content_type}}),
        ("/v1/chat/completions?async=true", {"json": {"model": model, "messages": said}}),
        (f"/v1/image/{model}/generate", {"json": {"prompt": PROMPT}}),
    ]


@pytest.mark.parametrize("place", range(4))
async def test_every_call_is_told_that_its_model_retires(client: httpx2.AsyncClient, place: int) -> None:
    path, body = calls(LEAVING)[place]
    assert_told(await client.post(path, **body))
    path, body = calls(STAYING)[place]
    assert told(await client.post(path, **body)) == (None, None)


@pytest.mark.parametrize("more", [{}, {"stream": True}])
async def test_a_caller_that_is_held_is_told_too(
    gateway: Gateway, address: str, more: dict[str, Any]
) -> None:
    body = {"model": "openai/gpt-image-1", "prompt": PROMPT, **more}
    async with httpx2.AsyncClient(base_url=address, headers=AUTHORIZED, timeout=60) as remote:
        call = remote.post("/v1/images/generations", json=body)
        answer, _ = await asyncio.gather(call, gateway.finish_next())
    assert_told(answer)


async def test_a_failure_says_so_too(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    async def fail() -> None:
        await gateway.worker.rung()
        await gateway.worker.fail(FailureKind.REFUSED)

    call = client.post("/v1/images/generations", json={"model": LEAVING, "prompt": PROMPT})
    answer, _ = await asyncio.gather(call, fail())
    assert answer.status_code == 400
    assert told(answer) == (f"@{int(END.timestamp())}", "Fri, 23 Oct 2026 00:00:00 GMT")


async def test_the_model_itself_says_so(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/v1/models/openai/{LEAVING}")
    assert_told(answer)
    assert answer.json()["shutdown_date"] == "2026-10-23"
    assert told(await client.get(f"/v1/models/{STAYING}")) == (None, None)


async def test_a_refusal_says_so_too(client: httpx2.AsyncClient) -> None:
    body = {"model": LEAVING, "prompt": PROMPT, "size": "1x1"}
    refused = await client.post("/v1/images/generations", json=body)
    assert refused.status_code == 400
    assert told(refused)[1] == "Fri, 23 Oct 2026 00:00:00 GMT"


def test_the_day_of_the_announcement_counts_where_it_is_known() -> None:
    model = replace(
        shipped().models[STAYING], shutdown_date=date(2026, 12, 1), deprecation_date=date(2026, 11, 21)
    )
    assert retirement_headers(model) == {
        "deprecation": f"@{int(datetime(2026, 11, 21, tzinfo=UTC).timestamp())}",
        "sunset": "Tue, 01 Dec 2026 00:00:00 GMT",
    }
