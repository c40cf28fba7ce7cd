"""OpenAI's Python package, both of its clients, as their users use it."""

import asyncio
from pathlib import Path

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import ImagesResponse
from pydantic import TypeAdapter

from tests.clients.features import shows
from tests.clients.pictures import looked_at, looked_at_base64, write_picture
from tests.house import House
from tests.kitchen import API_KEY

MODEL = "gpt-image-2"


@shows("openai-python", "pictures")
async def test_pictures_come_in_the_asked_size_and_format(house: House) -> None:
    answer = await house.sdk.images.generate(
        model=MODEL, prompt="a boat", size="1536x1024", quality="low", output_format="webp", n=2
    )
    TypeAdapter(ImagesResponse).validate_python(answer.to_dict(), strict=True)
    assert [looked_at_base64(item.b64_json) for item in answer.data or []] == [("WEBP", (1536, 1024))] * 2
    assert (answer.size, answer.quality, answer.output_format) == ("1536x1024", "low", "webp")
    assert answer.usage is not None


async def test_the_blocking_client_does_the_same(house: House) -> None:
    def generate() -> ImagesResponse:
        with OpenAI(base_url=house.base_url, api_key=API_KEY) as client:
            return client.images.generate(model=MODEL, prompt="a boat", size="1024x1024")

    answer = await asyncio.to_thread(generate)
    assert looked_at_base64((answer.data or [])[0].b64_json) == ("PNG", (1024, 1024))


@shows("openai-python", "links")
async def test_a_link_can_be_followed_by_anybody(house: House) -> None:
    answer = await house.sdk.images.generate(
        model=MODEL, prompt="a boat", size="1024x1024", response_format="url"
    )
    url = (answer.data or [])[0].url
    assert url is not None
    async with httpx2.AsyncClient() as anybody:
        assert looked_at((await anybody.get(url)).content) == ("PNG", (1024, 1024))


@shows("openai-python", "stream")
async def test_coarse_pictures_come_before_the_finished_one(house: House) -> None:
    stream = await house.sdk.images.generate(
        model=MODEL, prompt="a boat", size="1024x1024", stream=True, partial_images=2
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [looked_at_base64(event.b64_json) for event in events] == [("PNG", (1024, 1024))] * 3
    assert len({event.b64_json for event in events}) == 3


@shows("openai-python", "edits")
async def test_pictures_are_edited(house: House, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "input.png")
    answer = await house.sdk.images.edit(
        model=MODEL, prompt="snow", image=[picture, picture], size="1024x1024"
    )
    assert looked_at_base64((answer.data or [])[0].b64_json) == ("PNG", (1024, 1024))


async def test_edits_are_streamed_under_their_own_names(house: House, tmp_path: Path) -> None:
    stream = await house.sdk.images.edit(
        model=MODEL,
        prompt="snow",
        image=write_picture(tmp_path / "input.png"),
        size="1024x1024",
        stream=True,
        partial_images=1,
    )
    assert [event.type async for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


@shows("openai-python", "chat")
async def test_a_conversation_is_answered_with_a_picture(house: House) -> None:
    answer = await house.sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "a boat"}], extra_body={"size": "1024x1024"}
    )
    message = answer.choices[0].message
    assert (message.content or "").startswith(f"![image]({house.address}/v1/files/")
    (image,) = (message.model_extra or {})["images"]
    assert looked_at_base64(image["image_url"]["url"].partition(",")[2]) == ("PNG", (1024, 1024))


@shows("openai-python", "chat-stream")
async def test_a_conversation_is_answered_in_chunks(house: House) -> None:
    stream = await house.sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "a boat"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.startswith("![image](")
    assert chunks[-1].choices[0].finish_reason == "stop"


@shows("openai-python", "jobs")
async def test_a_job_is_handed_in_and_collected_later(house: House) -> None:
    accepted = await house.sdk.images.with_raw_response.generate(
        model=MODEL, prompt="a boat", size="1024x1024", extra_query={"async": "true"}
    )
    assert accepted.http_response.status_code == 202
    job_id = accepted.http_response.json()["id"]
    done = await house.sdk.get(f"/jobs/{job_id}?wait=30", cast_to=httpx2.Response)
    assert done.json()["status"] == "succeeded"
    result = await house.sdk.get(f"/jobs/{job_id}/result", cast_to=ImagesResponse)
    assert looked_at_base64((result.data or [])[0].b64_json) == ("PNG", (1024, 1024))


@shows("openai-python", "errors")
async def test_errors_are_the_sdks_own(house: House) -> None:
    with pytest.raises(openai.BadRequestError) as invalid:
        await house.sdk.images.generate(model=MODEL, prompt="a boat", size="1x1")
    assert (invalid.value.code, invalid.value.param) == ("invalid_value", "size")
    with pytest.raises(openai.NotFoundError) as unknown:
        await house.sdk.images.generate(model="nobodys", prompt="a boat")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as stranger:
        await house.sdk.with_options(api_key="wrong").images.generate(model=MODEL, prompt="a boat")
    assert stranger.value.code == "invalid_api_key"


async def test_models_are_listed(house: House) -> None:
    assert MODEL in [model.id async for model in house.sdk.models.list()]
    assert (await house.sdk.models.retrieve(f"openai/{MODEL}")).id == MODEL


async def test_an_impatient_client_polls_by_its_own_retries(slow_house: House) -> None:
    async with openai.AsyncOpenAI(
        base_url=slow_house.base_url, api_key=API_KEY, timeout=2, max_retries=5
    ) as client:
        answer = await client.images.generate(model=MODEL, prompt="a boat", size="1024x1024")
    assert looked_at_base64((answer.data or [])[0].b64_json) == ("PNG", (1024, 1024))
    (job,) = (await slow_house.client.get("/v1/jobs")).json()["data"]
    assert [item["outcome"] for item in job["attempts"]] == ["succeeded"]


async def test_a_short_read_timeout_is_answered_before_it_is_over(slow_house: House) -> None:
    answer = await slow_house.client.post(
        "/v1/images/generations",
        json={"model": MODEL, "prompt": "a boat"},
        headers={"x-stainless-read-timeout": "1"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "job_still_running")
    assert answer.headers["x-should-retry"] == "true"
    job_id = answer.headers["x-darkroom-job-id"]
    assert (await slow_house.client.get(f"/v1/jobs/{job_id}?wait=30")).json()["status"] == "succeeded"


async def test_a_first_request_works_although_nobody_has_a_key(bare_house: House) -> None:
    answer = await bare_house.sdk.images.generate(model="gpt-image-1", prompt="a boat", size="1024x1024")
    assert looked_at_base64((answer.data or [])[0].b64_json) == ("PNG", (1024, 1024))
