"""Edits, from the client's form or JSON to the vendor's form and back: what passes, and what is refused for nothing."""

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import pytest
from PIL import Image

from app.api.deadlines import DeadlineH11
from tests.api.multipart import File, multipart
from tests.api.test_wire import connected
from tests.assets.pictures import SAMPLES, SVG, animated, drawing, opened, png_declaring, saved
from tests.house import House, OpenHouse, opener
from tests.kitchen import API_KEY
from tests.simulators.openai import OpenAi
from tests.simulators.wire import Answer, Origin, Request

MODEL: Final[dict[str, Any]] = {
    "model": "gpt-image-2",
    "prompt": "make it snow",
    "quality": "low",
    "size": "1024x1024",
}
PNG: Final = SAMPLES["png"]
JPEG: Final = SAMPLES["jpeg"]
WEBP: Final = SAMPLES["webp-lossy"]
MASK: Final = saved(drawing(mode="RGBA"), "PNG")
"""40 × 30 pixels, as the samples are."""
EDITS: Final = "/v1/images/edits"


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> OpenHouse:
    return opener(monkeypatch, tmp_path, sqlite_url)


@pytest.fixture
async def vendor() -> AsyncIterator[OpenAi]:
    """OpenAI, with the means to see what it was sent."""
    async with OpenAi(api_key="sk-test") as running:
        yield running


def sent(vendor: OpenAi) -> dict[str, Any]:
    """The body of the one purchase."""
    (call,) = vendor.ledger.on("purchase")
    body: dict[str, Any] = call.body
    return body


async def spool_emptied(house: House) -> None:
    """Wait until nothing is on its way: the worker clears up a moment after the client has its answer."""
    async with asyncio.timeout(10):
        while await house.left_in_spool():
            pass


def pixels(content: bytes) -> bytes:
    return opened(content).convert("RGBA").tobytes()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


async def post_form(house: House, *parts: tuple[str, str | File], **headers: str) -> httpx2.Response:
    body, content_type = multipart(*parts)
    return await house.client.post(EDITS, content=body, headers={"content-type": content_type, **headers})


async def post_json(house: House, **document: Any) -> httpx2.Response:
    return await house.client.post(EDITS, json={**MODEL, **document})


TEXTS: Final[tuple[tuple[str, str | File], ...]] = tuple(MODEL.items())


# -- What passes.


async def test_the_sdk_edits_a_picture(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        answer = await running.sdk.images.edit(image=PNG, mask=MASK, **MODEL)
        assert answer.data is not None
        assert opened(base64.b64decode(answer.data[0].b64_json or "")).size == (1024, 1024)
        body = sent(vendor)
        files = {upload.name: upload for upload in body["files"]}
        assert [upload.media_type for upload in body["files"]] == ["image/png", "image/png"]
        assert pixels(files["image[]" if "image[]" in files else "image"].content) == pixels(PNG)
        assert pixels(files["mask"].content) == pixels(MASK)
        assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)
        await spool_emptied(running)


async def test_the_synchronous_sdk_edits_several_pictures(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        with openai.OpenAI(base_url=running.base_url, api_key=API_KEY, max_retries=0) as client:
            answer = await asyncio.to_thread(lambda: client.images.edit(image=[PNG, JPEG, WEBP], **MODEL))
        assert answer.data is not None
        assert len(answer.data) == 1
        kinds = [upload.media_type for upload in sent(vendor)["files"]]
        # Raw bytes come as octet-stream; what they are is seen, and declared to the vendor.
        assert kinds == ["image/png", "image/jpeg", "image/webp"]


@pytest.mark.parametrize(
    "names", [["image"], ["image[]"], ["image", "image"], ["image[]", "image", "image[]"], ["image[]"] * 16]
)
async def test_pictures_come_under_every_name_and_in_their_order(
    house: OpenHouse, vendor: OpenAi, names: list[str]
) -> None:
    given = [saved(drawing(shade=shade), "PNG") for shade in range(len(names))]
    async with house(vendor) as running:
        files = [(name, File(content)) for name, content in zip(names, given, strict=True)]
        answer = await post_form(running, *TEXTS, *files)
        assert answer.status_code == 200, answer.text
        assert [pixels(upload.content) for upload in sent(vendor)["files"]] == [
            pixels(content) for content in given
        ]


async def test_the_order_of_a_forms_parts_does_not_matter(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        answer = await post_form(running, ("mask", File(MASK)), ("image", File(PNG)), *reversed(TEXTS))
        assert answer.status_code == 200, answer.text
        assert [upload.name for upload in sent(vendor)["files"]][-1] == "mask"
        assert sent(vendor)["prompt"] == "make it snow"


async def test_every_parameter_reaches_the_vendor_and_unknown_ones_as_well(
    house: OpenHouse, vendor: OpenAi
) -> None:
    def passing(catalog: dict[str, Any]) -> None:
        supports = catalog["models"]["gpt-image-2"]["routes"][0]["supports"]
        supports |= {"compression": True, "moderation": True, "user": True, "unknown_parameters": True}

    parts = (
        *TEXTS, ("n", "2"), ("output_format", "jpeg"), ("output_compression", "80"), ("background", "opaque"),
        ("moderation", "low"), ("user", "user-1"), ("metadata[order]", "17"), ("image", File(PNG)),
    )  # fmt: skip
    async with house(vendor, adjust=passing) as running:
        answer = await post_form(running, *parts)
        assert answer.status_code == 200, answer.text
        pictures = [base64.b64decode(item["b64_json"]) for item in answer.json()["data"]]
        assert [opened(picture).format for picture in pictures] == ["JPEG", "JPEG"]
        body = sent(vendor)
        told = {name: body[name] for name in ("n", "output_format", "output_compression", "background")}
        assert told == {"n": "2", "output_format": "jpeg", "output_compression": "80", "background": "opaque"}
        assert (body["moderation"], body["user"]) == ("low", "user-1")
        assert "metadata[order]" not in body

        vendor.reset()
        answer = await post_form(running, *TEXTS, ("new_feature", "yes"), ("image", File(PNG)))
        # Today's OpenAI has no such thing, and it is the one to say so; asking it once is enough.
        assert sent(vendor)["new_feature"] == "yes"
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "new_feature")


async def test_a_form_is_read_however_its_client_writes_files_and_metadata(
    house: OpenHouse, vendor: OpenAi
) -> None:
    bare = File(JPEG, media_type=None, filename=None)
    async with house(vendor) as running:
        answer = await post_form(
            running, *TEXTS, ("metadata", '{"order": "17"}'), ("image[1]", File(PNG)), ("image[0]", bare)
        )
        assert answer.status_code == 200, answer.text
        assert [opened(upload.content).format for upload in sent(vendor)["files"]] == ["JPEG", "PNG"]
        job = (await running.client.get(f"/v1/jobs/{answer.headers['x-darkroom-job-id']}")).json()
        assert job["metadata"] == {"order": "17"}


@pytest.mark.parametrize(
    "fields",
    [
        [("metadata", "order=17")],
        [("metadata", "[]")],
        [("metadata", '{"order": 17}')],
        [("metadata", '{"order": "17"}'), ("metadata[page]", "1")],
    ],
)
async def test_metadata_that_is_no_object_is_refused_by_name(
    house: OpenHouse, vendor: OpenAi, fields: list[tuple[str, str]]
) -> None:
    async with house(vendor) as running:
        answer = await post_form(running, *TEXTS, *fields, ("image", File(PNG)))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")
        assert vendor.ledger.on("purchase") == []


async def test_json_takes_data_urls_small_and_huge(house: OpenHouse, vendor: OpenAi) -> None:
    huge = saved(noise(1500, 1000), "PNG")
    assert len(huge) > 4_000_000
    async with house(vendor) as running:
        images = [{"image_url": data_url(PNG)}, {"image_url": data_url(huge)}]
        answer = await post_json(running, images=images, mask={"image_url": data_url(MASK)})
        assert answer.status_code == 200, answer.text
        first, second, mask = (upload.content for upload in sent(vendor)["files"])
        assert [pixels(first), pixels(second), pixels(mask)] == [pixels(PNG), pixels(huge), pixels(MASK)]
        await spool_emptied(running)


async def test_json_takes_links_and_follows_their_redirects(house: OpenHouse, vendor: OpenAi) -> None:
    async with serving_pictures() as shelf, house(vendor) as running:
        images = [{"image_url": f"{shelf.url}/a.png"}, {"image_url": f"{shelf.url}/moved"}]
        answer = await post_json(running, images=images)
        assert answer.status_code == 200, answer.text
        assert [pixels(upload.content) for upload in sent(vendor)["files"]] == [pixels(PNG)] * 2


async def test_json_takes_files_uploaded_and_made(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        uploaded = await running.sdk.files.create(file=("a.png", PNG), purpose="vision")
        first = await post_json(running, images=[{"file_id": uploaded.id}])
        assert first.status_code == 200, first.text
        job = (await running.client.get(f"/v1/jobs/{first.headers['x-darkroom-job-id']}")).json()
        made = (await running.sdk.files.list()).data[0]
        assert made.id != uploaded.id
        vendor.reset()
        second = await post_json(running, images=[{"file_id": made.id, "image_url": None}])
        assert second.status_code == 200, second.text
        (upload,) = sent(vendor)["files"]
        picture = await running.client.get(job["unsigned_urls"][0])
        assert pixels(upload.content) == pixels(picture.content)


async def test_a_picture_tells_the_vendor_nothing_but_itself(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        answer = await post_form(running, *TEXTS, ("image", File(SAMPLES["jpeg-grey-exif"])))
        assert answer.status_code == 200, answer.text
        (upload,) = sent(vendor)["files"]
        assert b"telephones" not in upload.content


async def test_an_edit_is_a_job_like_any_other(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        answer = await running.client.post(
            f"{EDITS}?async=true", json={**MODEL, "images": [{"image_url": data_url(PNG)}]}
        )
        assert answer.status_code == 202, answer.text
        job = (await running.client.get(answer.headers["location"], params={"wait": 30})).json()
        assert (job["status"], job["operation"]) == ("succeeded", "image.edit")


async def test_an_edit_can_be_streamed(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor) as running:
        stream = await running.sdk.images.edit(
            image=PNG, stream=True, partial_images=1, **MODEL
        )  # fmt: skip
        names = [event.type async for event in stream]
        assert names[-1] == "image_edit.completed"
        assert set(names[:-1]) <= {"image_edit.partial_image"}


# -- Repeating without paying twice.


async def test_the_same_form_under_another_boundary_is_the_same_request(
    house: OpenHouse, vendor: OpenAi
) -> None:
    async with house(vendor) as running:
        answers = []
        for boundary in ("first", "second"):
            body, content_type = multipart(*TEXTS, ("image", File(PNG)), boundary=boundary)
            headers = {"content-type": content_type, "idempotency-key": "order-17"}
            answers.append(await running.client.post(EDITS, content=body, headers=headers))
        first, second = answers
        assert (first.status_code, second.status_code) == (200, 200)
        assert second.headers["idempotency-replayed"] == "true"
        assert second.json() == first.json()
        assert vendor.ledger.posts == 1
        # The repetition's copies of the inputs are nobody's, and gone.
        await spool_emptied(running)
        uploaded_and_made = 2
        assert len(await running.stored()) <= uploaded_and_made


@pytest.mark.parametrize(
    "other",
    [
        [("image[]", File(SAMPLES["png-palette"])), ("image[]", File(JPEG))],
        [("image[]", File(JPEG)), ("image[]", File(PNG))],
        [("image[]", File(PNG)), ("image[]", File(JPEG)), ("n", "2")],
    ],
    ids=["other bytes", "other order", "other text"],
)
async def test_another_form_under_the_same_key_is_refused(
    house: OpenHouse, vendor: OpenAi, other: list[tuple[str, str | File]]
) -> None:
    async with house(vendor) as running:
        pictures = (("image[]", File(PNG)), ("image[]", File(JPEG)))
        first = await post_form(running, *TEXTS, *pictures, **{"idempotency-key": "order-17"})
        assert first.status_code == 200, first.text
        answer = await post_form(running, *TEXTS, *other, **{"idempotency-key": "order-17"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert vendor.ledger.posts == 1


# -- What is refused, and buys nothing.


def form_of(*files: tuple[str, str | File]) -> tuple[bytes, str]:
    return multipart(*TEXTS, *files)


def json_of(**document: Any) -> tuple[bytes, str]:
    return json.dumps({**MODEL, **document}).encode(), "application/json"


BOMB: Final = png_declaring(20_000, 20_000)
POLYGLOT: Final = b"GIF89a" + PNG
CUT_FORM: Final = form_of(("image", File(PNG)))[0][:-20], form_of()[1]

REFUSED: Final = {
    "no picture": (form_of(), "missing_required_parameter", "image"),
    "no pictures": (json_of(), "missing_required_parameter", "images"),
    "an empty list": (json_of(images=[]), "missing_required_parameter", "images"),
    "no list": (json_of(images="a"), "invalid_value", "images"),
    "no prompt": (
        multipart(("model", "gpt-image-2"), ("image", File(PNG))), "missing_required_parameter", "prompt"
    ),
    "a prompt too long": (
        multipart(("model", "gpt-image-2"), ("prompt", "p" * 32_001), ("image", File(PNG))),
        "invalid_value", "prompt",
    ),
    "no model": (multipart(("prompt", "snow"), ("image", File(PNG))), "missing_required_parameter", "model"),
    "17 pictures": (form_of(*[("image[]", File(PNG))] * 17), "invalid_value", "image"),
    "17 links": (json_of(images=[{"file_id": "file_1"}] * 17), "invalid_value", "images"),
    "two masks": (
        form_of(("image", File(PNG)), ("mask", File(MASK)), ("mask", File(MASK))), "invalid_value", "mask"
    ),
    "a file elsewhere": (form_of(("image", File(PNG)), ("picture", File(PNG))), "invalid_value", "picture"),
    "a field twice": (form_of(("image", File(PNG)), ("prompt", "rain")), "invalid_value", "prompt"),
    "an empty file": (form_of(("image", File(b""))), "invalid_image", "image"),
    "a cut picture": (form_of(("image", File(PNG[:200]))), "invalid_image", "image"),
    "a damaged picture": (
        form_of(("image", File(PNG.replace(b"IDAT", b"IDAT\0", 1)))), "invalid_image", "image"
    ),
    "a bomb": (form_of(("image", File(BOMB))), "invalid_image", "image"),
    "an animation": (form_of(("image", File(animated("PNG")))), "invalid_image", "image"),
    "a polyglot": (form_of(("image", File(POLYGLOT))), "unsupported_file_mimetype", "image"),
    "an SVG": (form_of(("image", File(SVG, "image/png"))), "unsupported_file_mimetype", "image"),
    "a GIF": (form_of(("image", File(SAMPLES["gif"]))), "unsupported_file_mimetype", "image"),
    "no picture at all": (form_of(("image", File(b"hello" * 100))), "unsupported_file_mimetype", "image"),
    "the second is bad": (
        form_of(("image[]", File(PNG)), ("image[]", File(SVG))), "unsupported_file_mimetype", "image"
    ),
    "a JPEG as mask": (form_of(("image", File(PNG)), ("mask", File(JPEG))), "invalid_image", "mask"),
    "a mask without alpha": (form_of(("image", File(PNG)), ("mask", File(PNG))), "invalid_image", "mask"),
    "a mask of another size": (
        form_of(("image", File(PNG)), ("mask", File(saved(drawing(8, 8, "RGBA"), "PNG")))),
        "invalid_image", "mask",
    ),
    "a size of no model": (
        multipart(("model", "gpt-image-2"), ("prompt", "snow"), ("size", "17x17"), ("image", File(PNG))),
        "invalid_value", "size",
    ),
    "text as a number": (form_of(("image", File(PNG)), ("n", "two")), "invalid_value", "n"),
    "a cut form": (CUT_FORM, "invalid_value", None),
    "a form without a boundary": ((CUT_FORM[0], "multipart/form-data"), "invalid_value", None),
    "another type": ((b"<edit/>", "application/xml"), "invalid_value", None),
    "cut JSON": ((b'{"model": "gpt-image-2", ', "application/json"), "invalid_value", None),
    "two ways in one": (
        json_of(images=[{"file_id": "file_1", "image_url": "https://a.test/"}]), "invalid_value", "images[0]"
    ),
    "a link with more": (
        json_of(images=[{"image_url": "https://a.test/", "detail": "high"}]), "invalid_value", "images[0]"
    ),
    "no way": (json_of(images=[{"image_url": None, "file_id": None}]), "invalid_value", "images[0]"),
    "no string": (json_of(images=[{"image_url": 7}]), "invalid_value", "images[0]"),
    "no data": (
        json_of(images=[{"image_url": "data:image/png;base64,%%%"}]), "invalid_image", "images[0]"
    ),
    "a data URL of text": (json_of(images=[{"image_url": "data:,hello"}]), "invalid_url", "images[0]"),
    "a data URL of an SVG": (
        json_of(images=[{"image_url": data_url(SVG)}]), "unsupported_file_mimetype", "images[0]"
    ),
    "a link to a file": (json_of(images=[{"image_url": "file:///etc/passwd"}]), "invalid_url", "images[0]"),
    "a link inside": (json_of(images=[{"image_url": "http://169.254.169.254/"}]), "invalid_url", "images[0]"),
    "a link with a password": (
        json_of(images=[{"image_url": "http://me:pw@pictures.test/"}]), "invalid_url", "images[0]"
    ),
}  # fmt: skip
"""What is sent -> code and parameter of the 400."""


async def test_every_bad_edit_is_refused_with_its_parameter_and_buys_nothing(
    house: OpenHouse, vendor: OpenAi
) -> None:
    async with house(vendor, is_working=False) as running:
        told = {}
        for name, ((body, content_type), code, param) in REFUSED.items():
            answer = await running.client.post(EDITS, content=body, headers={"content-type": content_type})
            error = answer.json()["error"]
            if (answer.status_code, error["code"], error["param"]) != (400, code, param):
                told[name] = (answer.status_code, error["code"], error["param"], error["message"])
            assert answer.headers["x-should-retry"] == "false"
        assert told == {}
        assert vendor.ledger.posts == 0
        assert await running.left_in_spool() == []
        assert await running.stored() == []
        assert (await running.client.get("/v1/jobs")).json()["data"] == []


async def test_a_file_of_nobody_and_of_another_team_is_not_found(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor, is_working=False) as running:
        accounts = running.kitchen.parts.accounts
        team = await accounts.create_team("strangers", {})
        _, key = await accounts.create_key(team.id, "theirs", limits={})
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key=key) as stranger:
            theirs = await stranger.files.create(file=("a.png", PNG), purpose="vision")
        answers = []
        for file_id in (theirs.id, "file_none"):
            answer = await post_json(running, images=[{"file_id": file_id}])
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (404, "file_not_found", "images[0]")
            answers.append(error["message"].replace(file_id, "ID"))
        assert answers[0] == answers[1]


async def test_a_link_that_brings_nothing_is_refused_without_saying_why(
    house: OpenHouse, vendor: OpenAi
) -> None:
    async with serving_pictures() as shelf, house(vendor, is_working=False) as running:
        messages = set()
        for path in ("missing", "broken", "inside"):
            answer = await post_json(running, images=[{"image_url": f"{shelf.url}/{path}"}])
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_url", "images[0]")
            messages.add(error["message"])
        assert len(messages) == 1
        assert await running.left_in_spool() == []
        assert vendor.ledger.posts == 0


async def test_a_link_to_this_machine_needs_the_operators_word(house: OpenHouse, vendor: OpenAi) -> None:
    async with serving_pictures() as shelf, house(vendor, is_working=False, ALLOW_NETWORKS="") as running:
        answer = await post_json(running, images=[{"image_url": f"{shelf.url}/a.png"}])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_url")
        assert shelf.asked == []


# -- Limits.


async def test_a_body_that_announces_too_much_is_refused_unread(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor, is_working=False, MAX_BODY_BYTES="100000") as running:
        head = request_head(length=200_000)
        async with connected(running.address) as (reader, writer):
            writer.write(head)
            await writer.drain()
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")


async def test_a_body_in_chunks_is_refused_where_it_passes_the_limit(
    house: OpenHouse, vendor: OpenAi
) -> None:
    async with house(vendor, is_working=False, MAX_BODY_BYTES="100000") as running:
        body, content_type = multipart(*TEXTS, ("image", File(bytes(200_000))))

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]

        answer = await running.client.post(EDITS, content=pieces(), headers={"content-type": content_type})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert await running.left_in_spool() == []


@pytest.mark.parametrize(
    "setting, body, status, code, param",
    [
        ("MAX_IMAGE_BYTES=1500", form_of(("image", File(SAMPLES["png-palette"]))), 413, "request_too_large", "image"),
        ("MAX_IMAGE_BYTES=1500", form_of(("image[]", File(SAMPLES["png-palette"]))), 413, "request_too_large", "image"),
        (
            "MAX_IMAGE_BYTES=1500", json_of(images=[{"image_url": data_url(SAMPLES["png-palette"])}]),
            413, "request_too_large", "images[0]",
        ),
        ("MAX_BODY_BYTES=1024", json_of(images=[{"image_url": data_url(bytes(2000))}]), 413, "request_too_large", None),
        ("MAX_PIXELS=1000", form_of(("image", File(PNG))), 400, "invalid_image", "image"),
        ("MAX_IMAGES=2", form_of(*[("image", File(PNG))] * 3), 400, "invalid_value", "image"),
        ("MAX_PROMPT_CHARS=5", form_of(("image", File(PNG))), 400, "invalid_value", "prompt"),
    ],
)  # fmt: skip
async def test_settings_bound_what_is_taken(
    house: OpenHouse,
    vendor: OpenAi,
    setting: str,
    body: tuple[bytes, str],
    status: int,
    code: str,
    param: str,
) -> None:
    name, _, value = setting.partition("=")
    async with house(vendor, is_working=False, **{name: value}) as running:
        answer = await running.client.post(EDITS, content=body[0], headers={"content-type": body[1]})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
        assert await running.left_in_spool() == []
        assert await running.stored() == []


async def test_the_bound_of_a_body_holds_where_no_pictures_are_taken_too(
    house: OpenHouse, vendor: OpenAi
) -> None:
    async with house(vendor, is_working=False, MAX_BODY_BYTES="1024") as running:
        body = {"model": "gpt-image-2", "prompt": "x" * 1024}
        answer = await running.client.post("/v1/images/generations", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert "1024 bytes" in answer.json()["error"]["message"]


# -- Slow, cut and unknown clients.


def request_head(*, length: int, key: str = API_KEY) -> bytes:
    lines = [
        f"POST {EDITS} HTTP/1.1", "host: test", f"authorization: Bearer {key}",
        "content-type: multipart/form-data; boundary=edge", f"content-length: {length}",
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


async def test_a_stranger_is_turned_away_before_its_first_byte(house: OpenHouse, vendor: OpenAi) -> None:
    async with house(vendor, is_working=False) as running, connected(running.address) as (reader, writer):
        writer.write(request_head(length=50_000_000, key="not-a-key-that-anybody-was-given-000"))
        await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        assert await running.left_in_spool() == []


class Impatient(DeadlineH11):
    """Waits for a body for a moment only."""

    body_within_s = 0.05
    slowest_bytes_per_s = 1e12


async def test_a_form_that_does_not_come_is_cut_off_and_leaves_nothing(
    house: OpenHouse, vendor: OpenAi
) -> None:
    body, _ = multipart(*TEXTS, ("image", File(PNG)), boundary="edge")
    async with house(vendor, is_working=False, protocol=Impatient) as running:
        async with connected(running.address) as (reader, writer):
            writer.write(request_head(length=len(body)) + body[: len(body) // 2])
            await writer.drain()
            assert await reader.read() == b""
        await spool_emptied(running)
        assert await running.stored() == []


async def test_a_client_that_leaves_within_its_form_leaves_nothing(house: OpenHouse, vendor: OpenAi) -> None:
    body, _ = multipart(*TEXTS, ("image", File(PNG)), boundary="edge")
    async with house(vendor, is_working=False) as running:
        async with connected(running.address) as (_, writer):
            writer.write(request_head(length=len(body)) + body[: len(body) // 2])
            await writer.drain()
        await spool_emptied(running)
        assert await running.stored() == []
        assert vendor.ledger.posts == 0


# -- A place that serves pictures to whoever asks.


class Shelf:
    """Pictures on another origin."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def accepted(self) -> None:
        """Let every connection in."""

    def announced(self, request: Request) -> None:
        """Let every request in."""

    async def handle(self, request: Request) -> Answer:
        """Hand out a picture, or lead elsewhere."""
        self.asked.append(request.path)
        match request.path:
            case "/a.png":
                # What a server says of a file is nobody's proof.
                return Answer(headers={"content-type": "text/plain"}, pieces=(PNG,))
            case "/moved":
                return Answer(status=302, headers={"location": "/a.png"})
            case "/inside":
                return Answer(status=302, headers={"location": "http://169.254.169.254/latest"})
            case "/broken":
                return Answer(pieces=(PNG,), cut_at=0.5)
            case _:
                return Answer(status=404)


@dataclass(frozen=True)
class OpenShelf:
    """A shelf that can be asked."""

    url: str
    asked: list[str]


@asynccontextmanager
async def serving_pictures() -> AsyncIterator[OpenShelf]:
    """Run a shelf on a loopback port."""
    shelf = Shelf()
    origin = Origin(shelf)
    await origin.start()
    try:
        yield OpenShelf(origin.url, shelf.asked)
    finally:
        await origin.stop()


def noise(width_px: int, height_px: int) -> Image.Image:
    """A picture that does not compress."""
    return Image.frombytes("RGB", (width_px, height_px), random.Random(0).randbytes(width_px * height_px * 3))
