"""The simulated Vercel AI Gateway, asked by the real `openai` package, by hand, and as a process."""

import base64
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI

from tests.simulators.pictures import picture
from tests.simulators.process import running
from tests.simulators.vercel import Vercel

ORDER = {"model": "openai/gpt-image-2", "prompt": "p"}
PICTURE = picture(8, 8, "png", seed=1)


async def post(vendor: Vercel, path: str, body: dict[str, Any]) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(
            vendor.base_url + path, json=body, headers={"authorization": f"Bearer {vendor.api_key}"}
        )


async def test_a_generation_answers_with_pictures_and_what_they_cost() -> None:
    async with Vercel() as vendor:
        reply = await post(
            vendor, "/images/generations", ORDER | {"quality": "high", "response_format": "b64_json"}
        )

    body = reply.json()
    assert body["usage"]["output_tokens"] == 7024
    assert body["providerMetadata"]["gateway"]["cost"] == format(vendor.ledger.cost_usd, "f")
    assert base64.b64decode(body["data"][0]["b64_json"]).startswith(b"\x89PNG")


async def test_an_edit_is_json_and_no_form() -> None:
    link = {"image_url": "data:image/png;base64," + base64.b64encode(PICTURE).decode()}
    async with Vercel() as vendor:
        edited = await post(vendor, "/images/edits", ORDER | {"images": [link]})
        async with AsyncOpenAI(base_url=vendor.base_url, api_key=vendor.api_key, max_retries=0) as client:
            with pytest.raises(APIStatusError) as form:
                await client.images.edit(
                    model="openai/gpt-image-2", prompt="p", image=("a.png", PICTURE, "image/png")
                )

    assert edited.status_code == 200
    assert form.value.status_code == 400
    assert (vendor.ledger.posts, vendor.ledger.charges) == (2, 1)


@pytest.mark.parametrize(
    "options,status",
    [
        ({"openai": {"moderation": "low", "outputFormat": "webp", "outputCompression": 50}}, 200),
        ({"openai": {"moderation": "none"}}, 400),
        ({"gateway": {"only": ["openai"]}}, 200),
        ("fast", 400),
    ],
)
async def test_options_reach_the_provider(options: object, status: int) -> None:
    async with Vercel() as vendor:
        reply = await post(vendor, "/images/generations", ORDER | {"providerOptions": options})

    assert reply.status_code == status


async def test_moderation_is_no_parameter_of_the_gateway_itself() -> None:
    async with Vercel() as vendor:
        reply = await post(vendor, "/images/generations", ORDER | {"moderation": "low"})

    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "step,status,type_,param",
    [
        ("401", 401, "authentication_error", None),
        ("403", 403, "forbidden", {"ruleId": "rule_1"}),
        ("404", 404, "model_not_found", {"modelId": "openai/nope"}),
        ("424", 424, "failed_dependency", None),
        ("provider:429", 429, "AI_APICallError", {"statusCode": 429, "isRetryable": True}),
        ("moderation_blocked", 400, "AI_APICallError", {"statusCode": 400, "isRetryable": False}),
    ],
)
async def test_errors_are_the_gateways_or_the_providers(
    step: str, status: int, type_: str, param: object
) -> None:
    async with Vercel() as vendor:
        reply = await post(vendor, "/images/generations", ORDER | {"prompt": f"p [[{step}]]"})

    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (status, type_, param)
    assert vendor.ledger.charges == 0


async def test_a_model_that_does_not_exist_is_named_in_the_gateways_form() -> None:
    async with Vercel() as vendor:
        reply = await post(vendor, "/images/generations", ORDER | {"model": "gpt-image-2"})

    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "model_not_found")


async def test_it_runs_on_its_own_and_is_scripted_over_http() -> None:
    async with running("vercel") as vendor, httpx2.AsyncClient(trust_env=False) as client:
        key = {"authorization": f"Bearer {vendor.api_key}"}
        await vendor.script("402", "ok")
        url = f"{vendor.base_url}/images/generations"
        statuses = [(await client.post(url, json=ORDER, headers=key)).status_code for _ in range(2)]
        ledger = await vendor.ledger()

    assert statuses == [402, 200]
    assert (ledger["posts"], ledger["charges"]) == (2, 1)
