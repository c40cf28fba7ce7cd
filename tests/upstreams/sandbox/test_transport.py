"""The sandbox answers as OpenAI does, in its words, headers and token counts, and fails as it is told."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from app.catalog.entries import TokenRule, Upstream
from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from app.domain.results import Usage
from app.kit.http import GuardedClient
from app.kit.json import Json
from app.kit.streams import SizedStream
from app.upstreams import registry
from app.upstreams.caller import Caller
from app.upstreams.contract import Blob, Finished, Target
from app.upstreams.sandbox.options import SandboxFailure, SandboxOptions
from app.upstreams.sandbox.transport import SandboxTransport

BASE = "http://sandbox.invalid/v1"
UPSTREAM = Upstream(
    name="sandbox",
    adapter="sandbox",
    base_url=BASE,
    api_key_env=None,
    max_concurrency=4,
    requests_per_minute=None,
    images_per_minute=None,
    timeout_s=60,
)
NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


class Sleeper:
    """Time that passes only on paper."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)


class Inputs:
    """Stored inputs by their id."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    async def open(self, file_id: str) -> SizedStream:
        content = self._files[file_id]

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 1000):
                yield content[start : start + 1000]

        return SizedStream(len(content), chunks())


def client(directory: Path, options: Mapping[str, Json] | None = None, **parts: Any) -> httpx2.AsyncClient:
    parts = {"now": lambda: NOW, **parts}
    transport = SandboxTransport(SandboxOptions.parse(options or {}), directory, **parts)
    return httpx2.AsyncClient(transport=transport, base_url=BASE)


def picture(width: int, height: int, colour: str = "green", format_: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), colour if mode in {"RGB", "RGBA"} else 30_000).save(file, format_)
    return file.getvalue()


def decoded(encoded: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    image.load()
    return image


def open_files(directory: Path) -> list[str]:
    return [path for path in map(str, directory.rglob("*")) if path]


async def test_a_reply_has_openais_shape_and_headers(tmp_path: Path) -> None:
    order = {"model": "gpt-image-2", "prompt": "a red fox", "n": 2, "size": "1024x768", "quality": "medium"}
    ticks = iter((10.0, 12.5))
    async with client(tmp_path, clock=lambda: next(ticks)) as sandbox:
        reply = await sandbox.post("/images/generations", json=order)

    document = reply.json()
    pictures = [item.pop("b64_json") for item in document["data"]]
    assert reply.status_code == 200
    assert document == {
        "created": int(NOW.timestamp()),
        "background": "opaque",
        "data": [{}, {}],
        "output_format": "png",
        "quality": "medium",
        "size": "1024x768",
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 3},
            "output_tokens": 2408,
            "output_tokens_details": {"image_tokens": 2408, "text_tokens": 0},
            "total_tokens": 2411,
        },
    }
    assert [decoded(encoded).size for encoded in pictures] == [(1024, 768), (1024, 768)]
    assert pictures[0] != pictures[1]
    assert reply.headers["content-length"] == str(len(reply.content))
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["openai-processing-ms"] == "2500"
    assert open_files(tmp_path) == []


async def test_what_is_left_open_is_resolved_and_said(tmp_path: Path) -> None:
    order = {
        "model": "gpt-image-2",
        "prompt": "a red fox",
        "size": "auto",
        "quality": None,
        "background": "auto",
    }
    async with client(tmp_path) as sandbox:
        document = (await sandbox.post("/images/generations", json=order)).json()

    said = {name: document[name] for name in ("size", "quality", "background", "output_format")}
    assert said == {"size": "1024x1024", "quality": "low", "background": "opaque", "output_format": "png"}
    assert document["usage"]["output_tokens"] == 196


@pytest.mark.parametrize(
    "size,quality,tokens",
    [("1024x1024", "high", 7024), ("1536x1024", "medium", 1372), ("3840x2160", "low", 371)],
)
async def test_usage_follows_the_formula(tmp_path: Path, size: str, quality: str, tokens: int) -> None:
    order = {"model": "gpt-image-2", "prompt": "a fox", "size": size, "quality": quality}
    async with client(tmp_path) as sandbox:
        usage = (await sandbox.post("/images/generations", json=order)).json()["usage"]

    assert usage["output_tokens"] == tokens


async def test_a_models_own_rule_counts_its_tokens(tmp_path: Path) -> None:
    models = {"gpt-image-1": TokenRule(table={"low": {"1024x1024": 272}}), "plain": None}
    async with client(tmp_path, models=models) as sandbox:
        order = {"model": "gpt-image-1", "prompt": "a fox", "quality": "low"}
        document = (await sandbox.post("/images/generations", json=order)).json()
        listed = (await sandbox.get("/models")).json()

    assert document["usage"]["output_tokens"] == 272
    assert [model["id"] for model in listed["data"]] == ["gpt-image-1", "plain"]


async def test_a_transparent_webp_with_compression_is_drawn_as_asked(tmp_path: Path) -> None:
    order = {
        "prompt": "a fox", "size": "640x480", "background": "transparent", "output_format": "webp",
        "output_compression": 40,
    }  # fmt: skip
    async with client(tmp_path) as sandbox:
        document = (await sandbox.post("/images/generations", json=order)).json()

    image = decoded(document["data"][0]["b64_json"])
    assert (image.format, image.size, document["background"]) == ("WEBP", (640, 480), "transparent")
    assert image.convert("RGBA").getpixel((1, 1))[3] == 0  # type: ignore[index] # of an RGBA picture


async def test_an_edit_shows_its_input_and_counts_every_picture(tmp_path: Path) -> None:
    mask = Image.new("RGBA", (300, 200), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 150, 200))
    file = io.BytesIO()
    mask.save(file, "PNG")
    files = [
        ("image[]", ("a.png", picture(300, 200, "#14c828"), "image/png")),
        ("image[]", ("b.jpg", picture(80, 80, format_="JPEG"), "image/jpeg")),
        ("mask", ("m.png", file.getvalue(), "image/png")),
    ]
    async with client(tmp_path) as sandbox:
        fields = {"prompt": "make it snow", "n": "2", "size": "640x640"}
        document = (await sandbox.post("/images/edits", data=fields, files=files)).json()

    assert document["usage"]["input_tokens_details"] == {"image_tokens": 3 * 512, "text_tokens": 3}
    for item in document["data"]:
        colours = {colour: number for number, colour in decoded(item["b64_json"]).getcolors(640 * 640) or ()}
        assert colours[20, 200, 40] > 20_000, "the input picture is not shown"
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("format_,mode", [("PNG", "I;16"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("PNG", "L")])
async def test_any_kind_of_input_picture_can_be_shown(tmp_path: Path, format_: str, mode: str) -> None:
    async with client(tmp_path) as sandbox:
        files = {
            "image": (
                "a",
                picture(90, 60, format_=format_, mode=mode) if mode != "L" else grey(),
                "image/png",
            )
        }
        reply = await sandbox.post("/images/edits", data={"prompt": "snow", "size": "256x256"}, files=files)

    assert reply.status_code == 200


def grey() -> bytes:
    file = io.BytesIO()
    Image.new("L", (90, 60), 99).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "change,code,param",
    [
        ({"prompt": ""}, "missing_required_parameter", "prompt"),
        ({"prompt": 7}, "invalid_type", "prompt"),
        ({"n": 11}, "invalid_value", "n"),
        ({"n": "1"}, "invalid_value", "n"),
        ({"size": "huge"}, "invalid_value", "size"),
        ({"size": "3840x3840"}, "invalid_value", "size"),
        ({"size": "8000x100"}, "invalid_value", "size"),
        ({"size": "1024x16"}, "invalid_value", "size"),
        ({"background": "pink"}, "invalid_value", "background"),
        ({"background": "transparent", "output_format": "jpeg"}, "invalid_value", "background"),
        ({"output_format": "gif"}, "invalid_value", "output_format"),
        ({"output_compression": 50}, "invalid_png_output_compression", "output_compression"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"partial_images": 4}, "invalid_value", "partial_images"),
    ],
)  # fmt: skip
async def test_a_wrong_order_is_refused_by_its_parameter(
    tmp_path: Path, change: dict[str, Json], code: str, param: str
) -> None:
    async with client(tmp_path) as sandbox:
        reply = await sandbox.post("/images/generations", json={"prompt": "a fox", **change})

    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, code, param)
    assert error.keys() == {"message", "type", "param", "code"}


async def test_a_body_that_is_no_order_is_refused(tmp_path: Path) -> None:
    form = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nnope\r\n'
    async with client(tmp_path) as sandbox:
        replies = [
            await sandbox.post("/images/generations", content=b"{"),
            await sandbox.post("/images/generations", content=b"[]"),
            await sandbox.post("/images/generations", content=b'"' + b"x" * 2_000_000),
            await sandbox.post("/images/edits", json={"prompt": "snow"}),
            await sandbox.post("/images/edits", content=part, headers=form),
            await sandbox.post("/images/edits", content=b"nonsense", headers=form),
            await sandbox.post("/images/edits", content=part + b"--b--\r\n", headers=form),
            await sandbox.post("/images/edits", content=b"--b--\r\n", headers=form),
            await sandbox.post("/images/variations", content=b""),
        ]

    assert [reply.status_code for reply in replies] == [400, 400, 413, 400, 400, 400, 400, 400, 404]
    assert replies[6].json()["error"]["code"] == "unsupported_file_mimetype"
    assert open_files(tmp_path) == []


@pytest.mark.parametrize(
    "kind,status,code",
    [
        ("busy", 429, "rate_limit_exceeded"),
        ("down", 500, "server_error"),
        ("overloaded", 503, "server_is_overloaded"),
        ("moderation", 400, "moderation_blocked"),
        ("quota", 429, "insufficient_quota"),
        ("credentials", 401, "invalid_api_key"),
        ("invalid", 400, "invalid_value"),
    ],
)
async def test_a_scripted_failure_is_answered_in_openais_form(
    tmp_path: Path, kind: str, status: int, code: str
) -> None:
    async with client(tmp_path, {"fail": [{"kind": kind, "every": 2}]}) as sandbox:
        replies = [await sandbox.post("/images/generations", json=small("a fox")) for _ in range(4)]

    assert [reply.status_code for reply in replies] == [200, status, 200, status]
    assert replies[1].json()["error"]["code"] == code
    assert replies[1].headers["x-request-id"] != replies[3].headers["x-request-id"]


async def test_busy_says_when_to_come_back(tmp_path: Path) -> None:
    async with client(tmp_path, {"fail": [{"kind": "busy", "every": 1, "retry_after_s": 2.5}]}) as sandbox:
        reply = await sandbox.post("/images/generations", json=small("a fox"))

    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("3", "2500")


async def test_an_edge_answers_with_a_page(tmp_path: Path) -> None:
    async with client(tmp_path, {"fail": [{"kind": "edge", "prompt": "#edge"}]}) as sandbox:
        reply = await sandbox.post("/images/generations", json=small("a fox #edge"))

    assert reply.status_code == 502
    assert reply.headers["content-type"] == "text/html"
    assert reply.text.startswith("<html>")


async def test_a_reset_breaks_the_connection(tmp_path: Path) -> None:
    async with client(tmp_path, {"fail": [{"kind": "reset", "every": 1}]}) as sandbox:
        with pytest.raises(httpx2.ReadError):
            await sandbox.post("/images/generations", json=small("a fox"))


async def test_a_timeout_lasts_as_long_as_the_caller_waits(tmp_path: Path) -> None:
    sleeper = Sleeper()
    async with client(tmp_path, {"fail": [{"kind": "timeout", "every": 1}]}, sleep=sleeper) as sandbox:
        with pytest.raises(httpx2.ReadTimeout):
            await sandbox.post("/images/generations", json=small("a fox"), timeout=30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sandbox.post("/images/generations", json=small("a fox"), timeout=None)

    assert sleeper.slept_s == [30]


async def test_a_delay_comes_before_the_answer_and_a_longer_one_than_the_caller_waits_is_a_timeout(
    tmp_path: Path,
) -> None:
    sleeper = Sleeper()
    async with client(tmp_path, {"delay_s": 40}, sleep=sleeper) as sandbox:
        reply = await sandbox.post("/images/generations", json=small("a fox"), timeout=60)
        with pytest.raises(httpx2.ReadTimeout):
            await sandbox.post("/images/generations", json=small("a fox"), timeout=30)

    assert reply.status_code == 200
    assert sleeper.slept_s == [40, 30]


async def test_a_call_that_is_cancelled_while_it_waits_leaves_no_file(tmp_path: Path) -> None:
    is_waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        is_waiting.set()
        await asyncio.Event().wait()

    directory = tmp_path / "spool"
    async with client(directory, {"delay_s": 5}, sleep=sleep) as sandbox:
        waiting = asyncio.create_task(sandbox.post("/images/generations", json=small("a fox"), timeout=60))
        await is_waiting.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert open_files(directory) == []


async def test_a_call_that_is_cancelled_while_it_draws_leaves_no_file(tmp_path: Path) -> None:
    is_drawing = asyncio.Event()

    async def sleep(_: float) -> None:
        is_drawing.set()

    order = {"prompt": "a fox", "size": "2048x2048", "n": 4}
    async with client(tmp_path, {"delay_s": 1}, sleep=sleep) as sandbox:
        drawing = asyncio.create_task(sandbox.post("/images/generations", json=order))
        await is_drawing.wait()
        await asyncio.sleep(0)
        drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drawing

    assert open_files(tmp_path) == []


async def test_a_reply_that_is_not_read_leaves_no_file(tmp_path: Path) -> None:
    async with (
        client(tmp_path) as sandbox,
        sandbox.stream("POST", "/images/generations", json=small("a fox")) as reply,
    ):
        assert reply.status_code == 200

    assert open_files(tmp_path) == []


async def test_a_stream_shows_pictures_getting_finer_and_then_the_finished_ones(tmp_path: Path) -> None:
    sleeper = Sleeper()
    order = {**small("a red fox"), "model": "gpt-image-2", "n": 2, "stream": True, "partial_images": 2}
    async with client(tmp_path, {"delay_s": 6}, sleep=sleeper) as sandbox:
        reply = await sandbox.post("/images/generations", json=order)
        single = await sandbox.post("/images/generations", json={**order, "stream": False}, timeout=60)

    assert reply.headers["content-type"] == "text/event-stream"
    events = [read_event(block) for block in reply.text.removesuffix("\n\n").split("\n\n")]
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert [name for name, _ in events] == [partial, partial, completed] * 2
    assert [data.get("partial_image_index") for _, data in events] == [0, 1, None] * 2
    assert all(data["type"] == name for name, data in events)
    assert all(decoded(data["b64_json"]).size == (256, 256) for _, data in events)
    finished = [data for name, data in events if name == completed]
    assert [data["b64_json"] for data in finished] == [item["b64_json"] for item in single.json()["data"]]
    once = single.json()["usage"]["output_tokens"] // 2
    assert [data["usage"]["output_tokens"] for data in finished] == [once + 200, once + 200]
    assert [data["usage"]["input_tokens"] for data in finished] == [3, 0]
    assert sleeper.slept_s == [1] * 6 + [6]


async def test_the_openai_client_reads_streams_and_errors(tmp_path: Path) -> None:
    options: Json = {"fail": [{"kind": "moderation", "prompt": "#blocked"}]}
    assert isinstance(options, dict)
    vendor = openai.AsyncOpenAI(
        api_key="none", base_url=BASE, http_client=client(tmp_path, options), max_retries=0
    )
    async with vendor:
        stream = await vendor.images.generate(
            model="gpt-image-2", prompt="a fox", size="1024x640", stream=True, partial_images=1
        )
        events = [event async for event in stream]
        with pytest.raises(openai.BadRequestError) as caught:
            await vendor.images.generate(model="gpt-image-2", prompt="a fox #blocked")

    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert all(decoded(event.b64_json).size == (1024, 640) for event in events)
    assert caught.value.code == "moderation_blocked"


async def test_the_adapter_reads_what_the_sandbox_answers(tmp_path: Path) -> None:
    stored = {"file_a": picture(120, 90), "file_m": picture(120, 90, "#00000000", mode="RGBA")}
    inputs = [
        InputPicture(
            file_id=name, format=PictureFormat.PNG, width_px=120, height_px=90, size_bytes=len(content)
        )
        for name, content in stored.items()
    ]
    request = ImageRequest(
        operation=Operation.EDIT,
        model="gpt-image-2",
        prompt="make it snow",
        n=2,
        size="512x384",
        quality="low",
        output_format="jpeg",
        images=(inputs[0],),
        mask=inputs[1],
    )

    finished = await bought(tmp_path, request, {}, stored)

    blobs = [item.source for item in finished.pictures if isinstance(item.source, Blob)]
    for blob in blobs:
        with Image.open(blob.path) as image:
            assert (image.size, image.format) == ((512, 384), "JPEG")
    assert len(blobs) == 2
    assert (finished.size, finished.quality, finished.output_format) == ("512x384", "low", "jpeg")
    assert finished.usage == Usage(text_input=3, image_input=1024, image_output=2 * 106)


@pytest.mark.parametrize(
    "kind,expected",
    [
        (SandboxFailure.BUSY, FailureKind.BUSY),
        (SandboxFailure.DOWN, FailureKind.DOWN),
        (SandboxFailure.OVERLOADED, FailureKind.DOWN),
        (SandboxFailure.EDGE, FailureKind.GARBLED),
        (SandboxFailure.TIMEOUT, FailureKind.TIMED_OUT),
        (SandboxFailure.RESET, FailureKind.TIMED_OUT),
        (SandboxFailure.MODERATION, FailureKind.REFUSED),
        (SandboxFailure.QUOTA, FailureKind.FUNDS),
        (SandboxFailure.CREDENTIALS, FailureKind.CREDENTIALS),
        (SandboxFailure.INVALID, FailureKind.INVALID),
    ],
)
async def test_each_scripted_failure_means_what_it_says(
    tmp_path: Path, kind: SandboxFailure, expected: FailureKind
) -> None:
    request = ImageRequest(model="gpt-image-2", prompt="a fox", size="256x256")

    with pytest.raises(UpstreamFailure) as caught:
        await bought(tmp_path, request, {"fail": [{"kind": kind.value, "every": 1}]}, {})

    assert caught.value.kind is expected


async def bought(
    directory: Path, request: ImageRequest, options: Mapping[str, Json], stored: Mapping[str, bytes]
) -> Finished:
    """Buy a request from the sandbox through the real adapter, client and caller."""
    adapter = registry.adapter("sandbox")
    transport = SandboxTransport(SandboxOptions.parse(options), directory / "sandbox", sleep=Sleeper())
    outbound = GuardedClient()

    async def link(file_id: str) -> str:
        return file_id

    caller = Caller(outbound, Inputs(stored), links=link, transports={"sandbox": transport})
    call = adapter.submit(request, Target(base_url=BASE, model=request.model, pictures=request.n))
    try:
        reply = await caller.call(
            call,
            upstream=UPSTREAM,
            api_key=None,
            attempt_id="att_1",
            timeout_s=30,
            spool_dir=directory / "spool",
        )
    finally:
        await transport.aclose()
        await outbound.aclose()
    outcome = adapter.read(reply, None)
    assert isinstance(outcome, Finished)
    return outcome


def small(prompt: str) -> dict[str, Json]:
    return {"prompt": prompt, "size": "256x256"}


def read_event(block: str) -> tuple[str, dict[str, Any]]:
    name, data = block.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))
