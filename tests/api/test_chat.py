"""`POST /v1/chat/completions`: pictures for clients that speak the language of chat models."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from app.domain.failures import FailureKind
from app.domain.requests import ImageRequest, Operation
from tests.api.conftest import PNG, Gateway
from tests.api.parts import API_KEY
from tests.assets.pictures import SAMPLES

PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-image-2", "messages": [{"role": "user", "content": "Hello"}]}
DATA_URL = f"data:image/png;base64,{base64.b64encode(SAMPLES['png']).decode()}"


@pytest.fixture
async def sdk(address: str) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, on a real connection."""
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key=API_KEY, max_retries=0) as made:
        yield made


async def made(gateway: Gateway, client: httpx2.AsyncClient, body: dict[str, Any]) -> httpx2.Response:
    answer, _ = await asyncio.gather(client.post(PATH, json=body), gateway.finish_next())
    return answer


async def request_of(gateway: Gateway, client: httpx2.AsyncClient, body: dict[str, Any]) -> ImageRequest:
    answer = await client.post(f"{PATH}?async=true", json=body)
    assert answer.status_code == 202, answer.text
    return (await gateway.jobs.view(answer.json()["id"], None)).job.request


def said(*parts: object) -> dict[str, Any]:
    return {**HELLO, "messages": [{"role": "user", "content": list(parts)}]}


async def test_a_chat_client_finds_the_picture_in_its_answer(
    gateway: Gateway, sdk: AsyncOpenAI, anonymous: httpx2.AsyncClient
) -> None:
    answer, _ = await asyncio.gather(sdk.chat.completions.create(**HELLO), gateway.finish_next())
    TypeAdapter(ChatCompletion).validate_python(answer.to_dict(), strict=True)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    link = re.fullmatch(r"!\[image\]\((.+)\)", choice.message.content or "")
    assert link is not None
    assert (await anonymous.get(link[1])).content == PNG
    (image,) = (choice.message.model_extra or {})["images"]
    head, _, encoded = image["image_url"]["url"].partition(",")
    assert (head, base64.b64decode(encoded)) == ("data:image/png;base64", PNG)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 14
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (196, 210)


async def test_each_picture_is_a_choice_of_its_own(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    answer = await made(gateway, client, {**HELLO, "n": 2})
    assert int(answer.headers["content-length"]) == len(answer.content)
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert [len(choice["message"]["images"]) for choice in choices] == [1, 1]


async def test_a_stream_of_chunks_ends_as_a_chat_client_expects(gateway: Gateway, sdk: AsyncOpenAI) -> None:
    async def collect() -> list[ChatCompletionChunk]:
        stream = await sdk.chat.completions.create(
            **HELLO, stream=True, stream_options={"include_usage": True}
        )
        return [chunk async for chunk in stream]

    chunks, _ = await asyncio.gather(collect(), gateway.finish_next())
    for chunk in chunks:
        TypeAdapter(ChatCompletionChunk).validate_python(chunk.to_dict(), strict=True)
    *told, last = chunks
    deltas = [chunk.choices[0].delta for chunk in told]
    assert [delta.role for delta in deltas] == ["assistant", None, None, None]
    assert "".join(delta.content or "" for delta in deltas).startswith("![image](http")
    (image,) = (deltas[2].model_extra or {})["images"]
    assert base64.b64decode(image["image_url"]["url"].partition(",")[2]) == PNG
    assert [chunk.choices[0].finish_reason for chunk in told] == [None, None, None, "stop"]
    assert not last.choices
    assert last.usage is not None
    assert last.usage.total_tokens == 210


async def test_a_stream_says_that_it_is_done(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    answer = await made(gateway, client, {**HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("}\n\ndata: [DONE]\n\n")
    assert "event:" not in answer.text
    assert "usage" not in answer.text


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_an_ordinary_error(gateway: Gateway, sdk: AsyncOpenAI, stream: bool) -> None:
    async def fail() -> None:
        await gateway.worker.rung()
        await gateway.worker.fail(FailureKind.REFUSED)

    with pytest.raises(openai.BadRequestError) as raised:
        await asyncio.gather(sdk.chat.completions.create(**HELLO, stream=stream), fail())
    assert raised.value.code == "moderation_blocked"


async def test_a_job_remembers_that_it_was_a_conversation(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    first = await made(gateway, client, HELLO)
    job_id = first.headers["x-darkroom-job-id"]
    assert (await client.get(f"/v1/jobs/{job_id}/result")).content == first.content
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["object"] == "image_job"


async def test_the_last_user_message_is_the_prompt(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    messages = [
        {"role": "system", "content": "You are a painter."},
        {"role": "user", "content": "A cat."},
        {"role": "assistant", "content": "![image](https://example.com)"},
        {"role": "user", "content": [{"type": "text", "text": "A dog"}, {"type": "text", "text": "in rain."}]},
        {"role": "assistant", "content": None},
    ]  # fmt: skip
    wanted = await request_of(gateway, client, {**HELLO, "messages": messages})
    assert (wanted.prompt, wanted.operation) == ("A dog\nin rain.", Operation.GENERATION)


async def test_pictures_of_the_message_are_what_is_edited(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    part = {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "auto"}}
    wanted = await request_of(gateway, client, said({"type": "text", "text": "make it snow"}, part, part))
    assert (wanted.operation, wanted.prompt) == (Operation.EDIT, "make it snow")
    assert [(item.width_px, item.height_px) for item in wanted.images] == [(40, 30)] * 2


@pytest.mark.parametrize(
    "config,size",
    [
        ({"aspect_ratio": "16:9"}, "1344x768"),
        ({"aspect_ratio": "1:1", "image_size": "2K"}, "2048x2048"),
        ({"image_size": "1K"}, "1024x1024"),
        ({}, "auto"),
    ],
)
async def test_the_configured_shape_becomes_a_size(
    gateway: Gateway, client: httpx2.AsyncClient, config: dict[str, str], size: str
) -> None:
    wanted = await request_of(
        gateway, client, {**HELLO, "image_config": config, "modalities": ["image", "text"]}
    )
    assert wanted.size == size


async def test_what_every_chat_sdk_sends_has_no_effect(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    usual: dict[str, Any] = {
        "temperature": 0.7, "max_tokens": 100, "top_p": 1, "stop": None, "store": False, "seed": 7,
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "logprobs": False,
        "service_tier": "auto", "reasoning_effort": "low", "prompt_cache_key": "a", "metadata": {"a": "b"},
    }  # fmt: skip
    wanted = await request_of(gateway, client, {**HELLO, **usual, "quality": "low"})
    assert (wanted.quality, wanted.extra) == ("low", {})


async def test_a_file_of_the_team_can_be_edited(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    await made(gateway, client, HELLO)
    (job,) = (await client.get("/v1/jobs")).json()["data"]
    file_id = httpx2.URL(job["unsigned_urls"][0]).path.split("/")[-2]
    parts = [
        {"type": "file", "file": {"file_id": file_id}},
        {"type": "file", "file": {"file_data": DATA_URL}},
    ]
    wanted = await request_of(gateway, client, said({"type": "text", "text": "make it snow"}, *parts))
    assert (wanted.operation, len(wanted.images)) == (Operation.EDIT, 2)
    absent = said({"type": "text", "text": "a"}, {"type": "file", "file": {"file_id": "file_0"}})
    answer = await client.post(PATH, json=absent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")
    assert answer.json()["error"]["param"] == "messages[0].content[1].file.file_id"


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "gpt-image-2"}, "missing_required_parameter", "messages"),
    ({**HELLO, "messages": []}, "missing_required_parameter", "messages"),
    ({**HELLO, "messages": "Hello"}, "invalid_value", "messages"),
    ({**HELLO, "messages": [{"role": "poet", "content": "a"}]}, "invalid_value", "messages[0]"),
    ({**HELLO, "messages": [{"role": "user", "content": 7}]}, "invalid_value", "messages[0].content"),
    ({**HELLO, "messages": [{"role": "user", "content": ""}]}, "missing_required_parameter", "messages"),
    (said({"type": "image_url", "image_url": {"url": DATA_URL}}), "missing_required_parameter", "messages"),
    (
        said({"type": "text", "text": "a"}, {"type": "file", "file": {"file_id": ""}}),
        "invalid_value",
        "messages[0].content[1]",
    ),
    (said({"type": "input_audio"}), "invalid_value", "messages[0].content[0]"),
    (
        said({"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": 7}}),
        "invalid_value",
        "messages[0].content[1].image_url.url",
    ),
    ({"messages": HELLO["messages"]}, "missing_required_parameter", "model"),
    ({**HELLO, "tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    ({**HELLO, "tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
    ({**HELLO, "response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
    ({**HELLO, "logprobs": True}, "unsupported_parameter", "logprobs"),
    ({**HELLO, "logprobs": 0}, "unsupported_parameter", "logprobs"),
    ({**HELLO, "top_logprobs": False}, "unsupported_parameter", "top_logprobs"),
    ({**HELLO, "service_tier": "priority"}, "unsupported_parameter", "service_tier"),
    ({**HELLO, "web_search_options": {}}, "unknown_parameter", "web_search_options"),
    ({**HELLO, "modalities": ["text"]}, "invalid_value", "modalities"),
    ({**HELLO, "modalities": ["image", "audio"]}, "invalid_value", "modalities"),
    ({**HELLO, "image_config": {"aspect_ratio": "7:1"}}, "invalid_value", "aspect_ratio"),
    ({**HELLO, "image_config": {"style": "vivid"}}, "unknown_parameter", "image_config"),
    ({**HELLO, "image_config": {"image_size": "4K"}}, "invalid_value", "image_config"),
    ({**HELLO, "image_config": {"image_size": "1K"}, "size": "auto"}, "invalid_value", "image_config"),
    (
        {**HELLO, "model": "gpt-image-1", "image_config": {"aspect_ratio": "16:9"}},
        "invalid_value",
        "image_config",
    ),
    ({**HELLO, "size": "1x1"}, "invalid_value", "size"),
    ({**HELLO, "stream_options": {"surprise": True}}, "unknown_parameter", "stream_options"),
]


@pytest.mark.parametrize("body,code,param", BAD)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx2.AsyncClient, body: dict[str, Any], code: str, param: str
) -> None:
    answer = await client.post(PATH, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


async def test_a_picture_that_is_none_is_refused_before_anything_is_bought(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    url = f"data:image/png;base64,{base64.b64encode(b'no picture').decode()}"
    part = {"type": "image_url", "image_url": {"url": url}}
    answer = await client.post(PATH, json=said({"type": "text", "text": "a"}, part))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_file_mimetype")
    assert (await client.get("/v1/jobs")).json()["data"] == []


async def test_async_and_stream_exclude_each_other(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{PATH}?async=true", json={**HELLO, "stream": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "async")


async def test_a_failure_after_a_comment_is_an_event_without_a_name(gateway: Gateway) -> None:
    transport = httpx2.ASGITransport(app=gateway.holding(0.1, heartbeat_s=0.01))
    headers = {"authorization": f"Bearer {API_KEY}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://darkroom.test", headers=headers
    ) as client:
        answer = await client.post(PATH, json={**HELLO, "stream": True})
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert json.loads(blocks[0].removeprefix("data: "))["error"]["code"] == "job_still_running"
