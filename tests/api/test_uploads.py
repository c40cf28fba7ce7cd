"""`/v1/files`: pictures uploaded for later edits, listed, looked at and deleted, by the stock client."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.api.multipart import File, multipart
from tests.assets.pictures import SAMPLES, SVG, opened
from tests.house import House, opener
from tests.simulators.openai import OpenAi

PNG = SAMPLES["png"]
DAY_S = 86_400


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> AsyncIterator[House]:
    """A gateway that nobody has to work in."""
    async with (
        OpenAi(api_key="sk-test") as vendor,
        opener(monkeypatch, tmp_path, sqlite_url)(
            vendor, is_working=False, MAX_IMAGE_BYTES="1500"
        ) as running,
    ):
        yield running


async def post(house: House, *parts: tuple[str, str | File]) -> httpx2.Response:
    body, content_type = multipart(*parts)
    return await house.client.post("/v1/files", content=body, headers={"content-type": content_type})


async def test_the_sdk_uploads_lists_reads_and_deletes(house: House) -> None:
    made = await house.sdk.files.create(file=("holiday.png", PNG), purpose="vision")
    assert (made.object, made.filename, made.purpose, made.status) == (
        "file", "holiday.png", "vision", "processed",
    )  # fmt: skip
    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 30 * DAY_S) <= 1

    assert (await house.sdk.files.retrieve(made.id)).id == made.id
    content = await house.sdk.files.content(made.id)
    assert opened(content.content).tobytes() == opened(PNG).tobytes()
    assert [item.id for item in (await house.sdk.files.list()).data] == [made.id]

    deleted = await house.sdk.files.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        await house.sdk.files.retrieve(made.id)
    assert await house.stored() == []


async def test_files_are_listed_newest_first_and_page_by_page(house: House) -> None:
    ids = [(await house.sdk.files.create(file=(f"{n}.png", PNG), purpose="user_data")).id for n in range(3)]
    first = (await house.client.get("/v1/files", params={"limit": 2})).json()
    assert [item["id"] for item in first["data"]] == [ids[2], ids[1]]
    assert (first["has_more"], first["last_id"]) == (True, ids[1])
    second = (await house.client.get("/v1/files", params={"limit": 2, "after": ids[1]})).json()
    assert [item["id"] for item in second["data"]] == [ids[0]]
    assert second["has_more"] is False
    assert (await house.client.get("/v1/files", params={"purpose": "vision"})).json()["data"] == []


async def test_files_are_listed_in_either_order(house: House) -> None:
    ids = [(await house.sdk.files.create(file=(f"{n}.png", PNG), purpose="vision")).id for n in range(3)]
    assert [item.id async for item in house.sdk.files.list(limit=2, order="asc")] == ids
    assert [item.id async for item in house.sdk.files.list(limit=2, order="desc")] == ids[::-1]
    assert [item.id async for item in house.sdk.files.list(limit=10_000)] == ids[::-1]


@pytest.mark.parametrize(
    "query, status, param",
    [
        ("limit=10001", 400, "limit"),
        ("order=up", 400, "order"),
        ("purpose=batch", 400, "purpose"),
        ("after=file_0", 404, "after"),
        ("status=processed", 400, "status"),
    ],
)
async def test_bad_filters_are_refused_by_name(house: House, query: str, status: int, param: str) -> None:
    answer = await house.client.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_a_client_says_how_long_its_file_is_kept(house: House) -> None:
    made = await house.sdk.files.create(
        file=("a.png", PNG), purpose="vision", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 7200) <= 1


@pytest.mark.parametrize(
    "given, code, param",
    [
        ({"seconds": "7200"}, "missing_required_parameter", "expires_after[anchor]"),
        ({"anchor": "created_at"}, "missing_required_parameter", "expires_after[seconds]"),
        ({"anchor": "now", "seconds": "7200"}, "invalid_value", "expires_after[anchor]"),
        ({"anchor": "created_at", "seconds": "3599"}, "invalid_value", "expires_after[seconds]"),
        ({"anchor": "created_at", "seconds": "2592001"}, "invalid_value", "expires_after[seconds]"),
        ({"anchor": "created_at", "seconds": "soon"}, "invalid_value", "expires_after[seconds]"),
    ],
)
async def test_a_life_that_cannot_be_is_refused_by_name(
    house: House, given: dict[str, str], code: str, param: str
) -> None:
    fields = [(f"expires_after[{name}]", value) for name, value in given.items()]
    answer = await post(house, ("file", File(PNG)), ("purpose", "vision"), *fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert await house.stored() == []


async def test_an_upload_as_json_is_told_what_to_send(house: House) -> None:
    answer = await house.client.post("/v1/files", json={"purpose": "vision"})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400
    assert "multipart/form-data" in message
    assert message.count("application/json") == 1


async def test_what_a_file_tells_of_its_owner_is_not_kept(house: House) -> None:
    made = await house.sdk.files.create(file=("a.jpg", SAMPLES["jpeg-grey-exif"]), purpose="vision")
    assert b"telephones" not in (await house.sdk.files.content(made.id)).content


async def test_a_name_from_a_client_is_never_a_path(house: House) -> None:
    made = await house.sdk.files.create(file=("../../etc/passwd.png", PNG), purpose="vision")
    (kept,) = await house.stored()
    assert "passwd" not in str(kept)
    answer = await house.client.get(f"/v1/files/{made.id}/content")
    assert "/" not in answer.headers["content-disposition"].partition("filename=")[2]


@pytest.mark.parametrize(
    "parts, status, code, param",
    [
        ([("purpose", "vision")], 400, "missing_required_parameter", "file"),
        ([("file", File(PNG))], 400, "missing_required_parameter", "purpose"),
        ([("file", File(PNG)), ("purpose", "batch")], 400, "invalid_value", "purpose"),
        ([("file", File(PNG)), ("purpose", "vision"), ("more", "x")], 400, "unknown_parameter", "more"),
        ([("file", File(PNG)), ("file", File(PNG)), ("purpose", "vision")], 400, "missing_required_parameter", "file"),
        ([("file", File(SVG)), ("purpose", "vision")], 400, "unsupported_file_mimetype", "file"),
        ([("file", File(PNG[:100])), ("purpose", "vision")], 400, "invalid_image", "file"),
        ([("file", File(bytes(2000))), ("purpose", "vision")], 413, "request_too_large", "file"),
    ],
)  # fmt: skip
async def test_a_bad_upload_is_refused_and_leaves_nothing(
    house: House, parts: list[tuple[str, str | File]], status: int, code: str, param: str
) -> None:
    answer = await post(house, *parts)
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert await house.left_in_spool() == []
    assert await house.stored() == []


async def test_another_teams_file_is_as_unknown_as_none(house: House) -> None:
    made = await house.sdk.files.create(file=("a.png", PNG), purpose="vision")
    accounts = house.kitchen.parts.accounts
    team = await accounts.create_team("strangers", {})
    _, key = await accounts.create_key(team.id, "theirs", limits={})
    async with openai.AsyncOpenAI(base_url=house.base_url, api_key=key, max_retries=0) as stranger:
        assert (await stranger.files.list()).data == []
        for file_id in (made.id, "file_none"):
            for ask in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(file_id)
    assert (await house.sdk.files.retrieve(made.id)).id == made.id
