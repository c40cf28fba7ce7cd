"""The simulated OpenAI, asked by the real `openai` package and, where that is too polite, by hand."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from PIL import Image

from tests.simulators.openai import OpenAi
from tests.simulators.openai_format import GPT_IMAGE_2, MODELS, Order, output_tokens
from tests.simulators.pictures import mark_of, picture
from tests.simulators.xairouter import XaiRouter


@asynccontextmanager
async def asking(vendor: OpenAi) -> AsyncIterator[AsyncOpenAI]:
    async with vendor, AsyncOpenAI(base_url=vendor.base_url, api_key=vendor.api_key, max_retries=0) as client:
        yield client


async def post(vendor: OpenAi, body: Any, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(
            f"{vendor.base_url}/images/generations",
            content=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {vendor.api_key}", **headers},
        )


def opened(b64: str | None) -> Image.Image:
    assert b64 is not None
    image = Image.open(io.BytesIO(base64.b64decode(b64)))
    image.load()
    return image


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
async def test_a_generation_is_a_real_picture_of_the_asked_size_and_format(format_: Any) -> None:
    async with asking(OpenAi()) as client:
        reply = await client.images.generate(
            model="gpt-image-2", prompt="a tea poster", size="1536x864", quality="low", output_format=format_
        )

    assert reply.data is not None
    image = opened(reply.data[0].b64_json)
    assert (image.size, (image.format or "").lower()) == ((1536, 864), format_)
    assert (reply.size, reply.quality, reply.background, reply.output_format) == (
        "1536x864",
        "low",
        "opaque",
        format_,
    )
    assert reply._request_id is not None  # noqa: SLF001 - the package's public way to read x-request-id


async def test_no_two_pictures_are_alike_and_each_names_its_attempt() -> None:
    vendor = OpenAi()
    async with asking(vendor) as client:
        reply = await client.images.generate(
            model="gpt-image-2", prompt="p", n=3, extra_headers={"Idempotency-Key": "att_1"}
        )

    assert reply.data is not None
    pictures = [base64.b64decode(item.b64_json or "") for item in reply.data]
    assert [mark_of(data) for data in pictures] == ["att_1/0", "att_1/1", "att_1/2"]
    assert len({opened(item.b64_json).tobytes() for item in reply.data}) == 3
    assert vendor.ledger.attempts["att_1"].pictures == 3


async def test_usage_and_bill_follow_the_published_tokens_and_prices() -> None:
    vendor = OpenAi()
    async with asking(vendor) as client:
        reply = await client.images.generate(
            model="gpt-image-2", prompt="x" * 56, size="1024x1024", quality="high", n=2
        )

    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (
        14,
        14048,
        14062,
    )
    assert vendor.ledger.charges == 1
    assert str(vendor.ledger.cost_usd) == "0.42151"


@pytest.mark.parametrize(
    "size,low,medium,high",
    [
        ((1024, 768), 134, 1204, 4815),
        ((1024, 1024), 196, 1756, 7024),
        ((1024, 1536), 158, 1372, 5488),
        ((1280, 768), 120, 1039, 4153),
        ((2048, 1152), 157, 1413, 5650),
        ((2048, 2048), 397, 3568, 14272),
        ((2560, 1440), 205, 1843, 7370),
        ((2880, 2880), 659, 5930, 23719),
        ((3072, 2160), 380, 3524, 14094),
        ((3840, 2160), 371, 3336, 13342),
        ((816, 816), 171, 1536, 6143),
    ],
)
def test_output_tokens_are_those_on_record(size: tuple[int, int], low: int, medium: int, high: int) -> None:
    counted = [
        output_tokens(
            Order(
                model_name="gpt-image-2",
                model=GPT_IMAGE_2,
                prompt="p",
                n=1,
                width_px=size[0],
                height_px=size[1],
                quality=quality,
                background="opaque",
                output_format="png",
                output_compression=100,
                partial_images=0,
                stream=False,
            )
        )
        for quality in ("low", "medium", "high")
    ]

    assert counted == [low, medium, high]


@pytest.mark.parametrize(
    "wrong,code,param",
    [
        ({"size": "1792x936"}, "invalid_value", "size"),
        ({"size": "4096x4096"}, "invalid_value", "size"),
        ({"size": "512x512"}, "invalid_value", "size"),
        ({"size": "3840x2176"}, "invalid_value", "size"),
        ({"size": "3840x1264"}, "invalid_value", "size"),
        ({"size": "1024X1024"}, "invalid_value", "size"),
        ({"model": "gpt-image-1.5", "size": "1536x864"}, "invalid_value", "size"),
        ({"quality": "ultra"}, "invalid_value", "quality"),
        ({"background": "transparent", "output_format": "jpeg"}, "invalid_value", "background"),
        ({"output_compression": 50}, "invalid_png_output_compression", "output_compression"),
        ({"response_format": "url"}, "unknown_parameter", "response_format"),
        ({"style": "vivid"}, "unknown_parameter", "style"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 11}, "invalid_value", "n"),
        ({"prompt": ""}, "missing_required_parameter", "prompt"),
    ],
)
async def test_a_wrong_request_is_refused_in_the_vendors_words(
    wrong: dict[str, Any], code: str, param: str
) -> None:
    async with OpenAi() as vendor:
        reply = await post(vendor, {"model": "gpt-image-2", "prompt": "p"} | wrong)

    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (set(error), error["code"], error["param"]) == ({"message", "type", "param", "code"}, code, param)
    assert (vendor.ledger.posts, vendor.ledger.charges) == (1, 0)


async def test_null_means_not_given() -> None:
    async with OpenAi() as vendor:
        reply = await post(vendor, {"model": "gpt-image-2", "prompt": "p", "size": None, "style": None})

    assert reply.json()["size"] == "1024x1024"


async def test_a_wrong_key_an_unknown_model_and_a_retired_one_are_told_apart() -> None:
    vendor = OpenAi()
    async with asking(vendor) as client:
        with pytest.raises(openai.AuthenticationError) as rejected:
            await client.with_options(api_key="sk-wrong").images.generate(model="gpt-image-2", prompt="p")
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.images.generate(model="gpt-image-99", prompt="p")
        with pytest.raises(openai.NotFoundError, match="deprecated"):
            await client.images.generate(model="dall-e-3", prompt="p")

    assert (rejected.value.code, unknown.value.code) == ("invalid_api_key", "model_not_found")
    assert vendor.ledger.charges == 0


async def test_an_edit_takes_several_inputs_and_a_mask() -> None:
    first, second = (picture(64, 48, "png", seed=seed) for seed in (1, 2))
    mask = picture(64, 48, "png", seed=3, transparent=True)
    vendor = OpenAi()
    async with asking(vendor) as client:
        reply = await client.images.edit(
            model="gpt-image-2",
            prompt="make it snow",
            image=[("a.png", first, "image/png"), ("b.png", second, "image/png")],
            mask=("m.png", mask, "image/png"),
            size="1024x1024",
        )

    assert reply.usage is not None
    assert reply.usage.input_tokens_details.image_tokens == 1024
    sent = vendor.ledger.on("purchase")[0].body
    assert [(file.name, file.content) for file in sent["files"]] == [
        ("image[]", first),
        ("image[]", second),
        ("mask", mask),
    ]


async def test_an_edit_with_undeclared_bytes_is_refused_for_its_media_type() -> None:
    async with asking(OpenAi()) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.images.edit(model="gpt-image-2", prompt="p", image=picture(8, 8, "png", seed=1))

    assert refused.value.code == "unsupported_file_mimetype"


@pytest.mark.parametrize(
    "mask,problem",
    [
        (picture(64, 48, "png", seed=3), "alpha"),
        (picture(48, 64, "png", seed=3, transparent=True), "size"),
    ],
)
async def test_a_mask_that_does_not_fit_is_refused(mask: bytes, problem: str) -> None:
    async with asking(OpenAi()) as client:
        with pytest.raises(openai.BadRequestError, match=problem) as refused:
            await client.images.edit(
                model="gpt-image-2",
                prompt="p",
                image=("a.png", picture(64, 48, "png", seed=1), "image/png"),
                mask=("m.png", mask, "image/png"),
            )

    assert refused.value.param == "mask"


async def test_an_edit_as_json_takes_data_urls() -> None:
    data_url = f"data:image/png;base64,{base64.b64encode(picture(8, 8, 'png', seed=1)).decode()}"
    async with OpenAi() as vendor, httpx2.AsyncClient(trust_env=False) as client:
        reply = await client.post(
            f"{vendor.base_url}/images/edits",
            json={"model": "gpt-image-2", "prompt": "p", "images": [{"image_url": data_url}]},
            headers={"authorization": f"Bearer {vendor.api_key}"},
        )

    assert reply.json()["usage"]["input_tokens_details"]["image_tokens"] == 512


async def test_a_stream_shows_partial_pictures_before_the_finished_one() -> None:
    vendor = OpenAi()
    async with asking(vendor) as client:
        hold = vendor.hold("stream")
        stream = await client.images.generate(
            model="gpt-image-2", prompt="p", stream=True, partial_images=2, size="1024x1024", quality="low"
        )
        seen = [await anext(stream), await anext(stream)]
        await hold.reached()
        hold.release()
        seen += [event async for event in stream]

    assert [event.type for event in seen] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert seen[-1].type == "image_generation.completed"
    assert seen[-1].usage.output_tokens == 196 + 200
    assert opened(seen[-1].b64_json).size == (1024, 1024)


async def test_a_stream_can_fail_in_its_middle_and_end_with_done() -> None:
    vendor = OpenAi()
    async with asking(vendor) as client:
        vendor.script("error", "done", on="stream")
        failing = await client.images.generate(model="gpt-image-2", prompt="p", stream=True, partial_images=1)
        with pytest.raises(openai.APIError) as failed:
            [event async for event in failing]
        ending = await client.images.generate(model="gpt-image-2", prompt="p", stream=True)
        events = [event.type async for event in ending]

    assert failed.value.code == "server_error"
    assert events == ["image_generation.completed"]


async def test_models_are_listed_and_found() -> None:
    async with asking(OpenAi()) as client:
        listed = {model.id async for model in client.models.list()}
        one = await client.models.retrieve("gpt-image-2")

    assert listed == set(MODELS)
    assert one.id == "gpt-image-2"


@pytest.mark.parametrize(
    "step,error,code",
    [
        ("429:7", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("401", openai.AuthenticationError, "invalid_api_key"),
        ("403", openai.PermissionDeniedError, None),
        ("404", openai.NotFoundError, "model_not_found"),
        ("500", openai.InternalServerError, "server_error"),
        ("503", openai.InternalServerError, "server_is_overloaded"),
        ("502", openai.InternalServerError, None),
        ("524", openai.InternalServerError, None),
        ("moderation_blocked", openai.BadRequestError, "moderation_blocked"),
        ("moderation_blocked:output", openai.BadRequestError, "moderation_blocked"),
        ("invalid_value:size", openai.BadRequestError, "invalid_value"),
        ("billing_hard_limit_reached", openai.BadRequestError, "billing_hard_limit_reached"),
    ],
)
async def test_a_scripted_refusal_bills_nothing_and_passes(
    step: str, error: type[openai.APIStatusError], code: str | None
) -> None:
    vendor = OpenAi()
    async with asking(vendor) as client:
        vendor.script(step)
        with pytest.raises(error) as raised:
            await client.images.generate(model="gpt-image-2", prompt="p")
        await client.images.generate(model="gpt-image-2", prompt="p")

    assert raised.value.code == code
    assert (vendor.ledger.posts, vendor.ledger.charges) == (2, 1)


@pytest.mark.parametrize("said", ["7", "-1", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "abc"])
async def test_a_busy_answer_carries_retry_after_as_written(said: str) -> None:
    async with OpenAi() as vendor:
        reply = await post(vendor, {"model": "gpt-image-2", "prompt": f"p [[429:{said}]]"})

    assert (reply.status_code, reply.headers["retry-after"]) == (429, said)


async def test_an_edges_page_can_hide_a_paid_picture() -> None:
    async with OpenAi() as vendor:
        paid = await post(vendor, {"model": "gpt-image-2", "prompt": "[[502;billed]]"})
        unpaid = await post(vendor, {"model": "gpt-image-2", "prompt": "[[502]]"})

    assert paid.status_code == unpaid.status_code == 502
    assert paid.headers["content-type"] == "text/html"
    assert (vendor.ledger.posts, vendor.ledger.charges) == (2, 1)


@pytest.mark.parametrize(
    "step,posts,charges",
    [
        ("reset:accept", 0, 0),
        ("reset:headers", 1, 0),
        ("reset:body", 1, 0),
        ("reset:body;billed", 1, 1),
        ("reset:reply", 1, 1),
        ("cut", 1, 1),
        ("cut:0;free", 1, 0),
    ],
)
async def test_a_connection_can_break_at_every_stage(step: str, posts: int, charges: int) -> None:
    async with OpenAi() as vendor:
        vendor.script(step)
        with pytest.raises((httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)):
            await post(vendor, {"model": "gpt-image-2", "prompt": "p"})

    assert (vendor.ledger.posts, vendor.ledger.charges) == (posts, charges)


@pytest.mark.parametrize("step", ["truncated", "not_json", "empty"])
async def test_an_answer_can_be_unreadable_as_json(step: str) -> None:
    async with OpenAi() as vendor:
        vendor.script(step)
        reply = await post(vendor, {"model": "gpt-image-2", "prompt": "p"})

    assert reply.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()
    assert vendor.ledger.charges == 1


async def test_an_answer_can_be_json_without_pictures_or_of_another_type() -> None:
    async with OpenAi() as vendor:
        vendor.script("nonsense", "nonsense:[1]", "wrong_type", "error_in_200")
        replies = [await post(vendor, {"model": "gpt-image-2", "prompt": "p"}) for _ in range(4)]

    assert [reply.json() for reply in replies[:2]] == [{"hello": "world"}, [1]]
    assert replies[2].headers["content-type"] == "text/html"
    assert replies[3].json()["error"]["code"] == "server_error"


async def test_a_dripping_answer_arrives_whole() -> None:
    async with OpenAi() as vendor:
        vendor.script("drip")
        reply = await post(vendor, {"model": "gpt-image-2", "prompt": "p", "output_format": "webp"})

    assert len(reply.json()["data"]) == 1


async def test_pictures_can_be_too_few_too_many_or_wrong() -> None:
    async with OpenAi() as vendor:
        vendor.script("few:1", "many:3", "wrong_size:64x64", "wrong_format:webp", "broken_picture:cut")
        replies = [await post(vendor, {"model": "gpt-image-2", "prompt": "p", "n": 2}) for _ in range(5)]

    data = [reply.json()["data"] for reply in replies]
    assert [len(items) for items in data] == [1, 3, 2, 2, 2]
    assert opened(data[2][0]["b64_json"]).size == (64, 64)
    assert opened(data[3][0]["b64_json"]).format == "WEBP"
    with (
        Image.open(io.BytesIO(base64.b64decode(data[4][0]["b64_json"]))) as broken,
        pytest.raises((OSError, SyntaxError)),
    ):
        broken.verify()


async def test_a_huge_answer_is_announced_and_can_be_left() -> None:
    async with OpenAi() as vendor, httpx2.AsyncClient(trust_env=False) as client:
        vendor.script("huge:300")
        async with client.stream(
            "POST",
            f"{vendor.base_url}/images/generations",
            json={"model": "gpt-image-2", "prompt": "p"},
            headers={"authorization": f"Bearer {vendor.api_key}"},
        ) as reply:
            assert int(reply.headers["content-length"]) > 300 * 1024 * 1024


async def test_a_held_call_is_charged_when_released_even_if_its_client_left() -> None:
    async with OpenAi() as vendor:
        hold = vendor.hold()
        asking_ = asyncio.create_task(post(vendor, {"model": "gpt-image-2", "prompt": "p"}))
        call = await hold.reached()
        assert (vendor.ledger.posts, vendor.ledger.charges, vendor.ledger.in_flight) == (1, 0, 1)
        asking_.cancel()
        await asyncio.wait([asking_])
        hold.release()
        await vendor.idle()

    assert call.charged


async def test_a_hanging_call_goes_on_when_released() -> None:
    async with OpenAi() as vendor:
        vendor.script("hang")
        asking_ = asyncio.create_task(post(vendor, {"model": "gpt-image-2", "prompt": "p"}))
        await vendor.hung()
        vendor.release()
        reply = await asking_

    assert reply.status_code == 200


async def test_steps_in_a_prompt_follow_each_other_and_name_their_simulator() -> None:
    async with OpenAi() as vendor:
        statuses = [
            (await post(vendor, {"model": "gpt-image-2", "prompt": "[[500|429:1|ok]]"})).status_code
            for _ in range(4)
        ]
        others = (await post(vendor, {"model": "gpt-image-2", "prompt": "[[therouter@500]]"})).status_code
        own = (await post(vendor, {"model": "gpt-image-2", "prompt": "[[openai@503]]"})).status_code

    assert statuses == [500, 429, 200, 200]
    assert (others, own) == (200, 503)


async def test_chances_are_the_same_for_the_same_seed() -> None:
    async def run() -> list[int]:
        async with OpenAi() as vendor:
            vendor.chances({"429:1": 0.3, "500": 0.3}, seed=7)
            return [
                (await post(vendor, {"model": "gpt-image-2", "prompt": "p"})).status_code for _ in range(12)
            ]

    first = await run()

    assert first == await run()
    assert set(first) == {200, 429, 500}


async def test_an_unknown_step_is_an_error_at_once() -> None:
    async with OpenAi() as vendor:
        with pytest.raises(ValueError, match="'503s'"):
            vendor.script("503s")


async def test_an_idempotent_vendor_bills_a_repeated_key_once() -> None:
    async with OpenAi(idempotent=True) as vendor:
        vendor.script("reset:reply")
        with pytest.raises(httpx2.TransportError):
            await post(vendor, {"model": "gpt-image-2", "prompt": "p"}, **{"idempotency-key": "att_1"})
        again = [
            await post(vendor, {"model": "gpt-image-2", "prompt": "p"}, **{"idempotency-key": "att_1"})
            for _ in range(2)
        ]

    assert again[0].json()["data"] == again[1].json()["data"]
    assert (vendor.ledger.posts, vendor.ledger.charges) == (3, 1)


async def test_a_xairouter_key_may_use_only_its_models() -> None:
    vendor = XaiRouter()
    async with asking(vendor) as client:
        reply = await client.images.generate(model="gpt-image-2", prompt="p", size="1024x1536")
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            await client.images.generate(model="gpt-image-1.5", prompt="p")
        with pytest.raises(openai.BadRequestError) as opaque:
            await client.images.generate(model="gpt-image-2", prompt="p", background="transparent")

    assert reply.data is not None
    assert vendor.api_key.startswith("sk-Xvs")
    assert (forbidden.value.code, opaque.value.param) == ("model_not_allowed", "background")
