"""`/v1/files`: pictures by key and by signed link."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.assets.links import LinkSigner
from app.assets.records import Asset
from tests.api.conftest import PNG, PUBLIC_URL, SECRET, Gateway
from tests.api.test_jobs import submitted


@pytest.fixture
async def picture(gateway: Gateway, client: httpx2.AsyncClient) -> Asset:
    """A finished picture of the team."""
    job_id = await submitted(client)
    await gateway.worker.finish()
    return (await gateway.jobs.view(job_id, None)).pictures[0]


def link(picture: Asset, **changed: str) -> str:
    url = httpx2.URL(LinkSigner((SECRET,), PUBLIC_URL).sign(picture.team_id, picture.id, picture.expires_at))
    return str(url.copy_merge_params(changed))


async def test_a_team_looks_at_its_file(client: httpx2.AsyncClient, picture: Asset) -> None:
    answer = await client.get(f"/v1/files/{picture.id}")
    assert answer.json() == {
        "id": picture.id,
        "object": "file",
        "bytes": len(PNG),
        "created_at": int(picture.created_at.timestamp()),
        "expires_at": int(picture.expires_at.timestamp()),
        "filename": f"{picture.id}.png",
        "purpose": "assistants_output",
        "status": "processed",
    }


async def test_what_jobs_made_is_told_from_what_was_uploaded(
    client: httpx2.AsyncClient, picture: Asset
) -> None:
    for query, expected in (("", 1), ("purpose=assistants_output", 1), ("purpose=vision", 0)):
        found = (await client.get(f"/v1/files?{query}")).json()["data"]
        assert [item["id"] for item in found] == [picture.id] * expected, query


async def test_a_file_comes_with_everything_that_keeps_a_browser_safe(
    client: httpx2.AsyncClient, picture: Asset
) -> None:
    answer = await client.get(f"/v1/files/{picture.id}/content")
    headers = answer.headers
    assert (answer.status_code, answer.content) == (200, PNG)
    assert headers["content-type"] == "image/png"
    assert headers["content-length"] == str(len(PNG))
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"] == f'inline; filename="{picture.id}.png"'
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"].startswith("private, max-age=604")
    assert headers["cache-control"].endswith(", immutable")
    assert headers["accept-ranges"] == "bytes"


async def test_a_head_request_gets_the_headers_alone(client: httpx2.AsyncClient, picture: Asset) -> None:
    answer = await client.head(f"/v1/files/{picture.id}/content")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(PNG))
    assert answer.headers["content-type"] == "image/png"


async def test_what_is_known_of_files_can_be_asked_for_with_head(
    client: httpx2.AsyncClient, picture: Asset
) -> None:
    for path in ("/v1/files", f"/v1/files/{picture.id}"):
        looked, knocked = await client.get(path), await client.head(path)
        assert (knocked.status_code, knocked.headers["content-length"]) == (
            200,
            looked.headers["content-length"],
        )


async def test_a_signed_link_needs_no_key(anonymous: httpx2.AsyncClient, picture: Asset) -> None:
    answer = await anonymous.get(link(picture))
    assert (answer.status_code, answer.content) == (200, PNG)
    assert (await anonymous.head(link(picture))).status_code == 200


@pytest.mark.parametrize("changed", [{"sig": "x"}, {"exp": "9999999999"}, {"kid": "x"}, {"exp": "soon"}])
async def test_a_changed_link_leads_nowhere(
    anonymous: httpx2.AsyncClient, picture: Asset, changed: dict[str, str]
) -> None:
    answer = await anonymous.get(link(picture, **changed))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")
    assert "sig" not in answer.text


async def test_an_old_link_leads_nowhere_even_with_a_key(
    gateway: Gateway, client: httpx2.AsyncClient, picture: Asset
) -> None:
    old = gateway.signer.sign(picture.team_id, picture.id, datetime.now(UTC) - timedelta(seconds=1))
    assert (await client.get(old)).status_code == 404


async def test_another_teams_file_is_no_different_from_none(
    picture: Asset,
    stranger: httpx2.AsyncClient,
) -> None:
    for path in ("", "/content"):
        foreign = await stranger.get(f"/v1/files/{picture.id}{path}")
        absent = await stranger.get(f"/v1/files/file_0{path}")
        assert foreign.status_code == 404
        assert foreign.text.replace(picture.id, "file_0") == absent.text


@pytest.mark.parametrize("known", ["{}", "W/{}", '"another", {}', '"another",W/{}', "*"])
async def test_what_a_browser_has_already_is_not_sent_again(
    client: httpx2.AsyncClient, picture: Asset, known: str
) -> None:
    path = f"/v1/files/{picture.id}/content"
    etag = (await client.get(path)).headers["etag"]
    answer = await client.get(path, headers={"if-none-match": known.format(etag)})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_what_a_browser_has_not_is_sent(client: httpx2.AsyncClient, picture: Asset) -> None:
    for known in ('"another"', 'W/"another", "third"', picture.id, ""):
        answer = await client.get(f"/v1/files/{picture.id}/content", headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (200, PNG), known


@pytest.mark.parametrize(
    "asked,start,end",
    [("bytes=0-9", 0, 10), ("bytes=5-", 5, None), ("bytes=-7", -7, None), ("bytes=3-99999999", 3, None)],
)
async def test_a_part_is_sent_on_request(
    client: httpx2.AsyncClient, picture: Asset, asked: str, start: int, end: int | None
) -> None:
    answer = await client.get(f"/v1/files/{picture.id}/content", headers={"range": asked})
    part = PNG[start:end]
    first = len(PNG) + start if start < 0 else start
    assert (answer.status_code, answer.content) == (206, part)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(part) - 1}/{len(PNG)}"
    assert answer.headers["content-length"] == str(len(part))


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-5", "bytes=-", "bytes=a-b"])
async def test_other_ranges_get_the_whole_file(
    client: httpx2.AsyncClient, picture: Asset, asked: str
) -> None:
    answer = await client.get(f"/v1/files/{picture.id}/content", headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, PNG)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
async def test_a_part_beyond_the_end_is_refused(
    client: httpx2.AsyncClient, picture: Asset, asked: str
) -> None:
    answer = await client.get(f"/v1/files/{picture.id}/content", headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(PNG)}"


async def test_a_head_request_has_no_parts(client: httpx2.AsyncClient, picture: Asset) -> None:
    for asked in ("bytes=0-9", "bytes=99999999-"):
        answer = await client.head(f"/v1/files/{picture.id}/content", headers={"range": asked})
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(PNG)))
        assert "content-range" not in answer.headers


async def test_a_changed_file_would_be_sent_whole(client: httpx2.AsyncClient, picture: Asset) -> None:
    headers: dict[str, Any] = {"range": "bytes=0-9", "if-range": '"another"'}
    answer = await client.get(f"/v1/files/{picture.id}/content", headers=headers)
    assert (answer.status_code, answer.content) == (200, PNG)


async def test_a_file_lost_from_storage_is_an_answer_and_no_broken_stream(
    gateway: Gateway, client: httpx2.AsyncClient, picture: Asset
) -> None:
    await gateway.storage.delete(picture.key)
    answer = await client.get(f"/v1/files/{picture.id}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")
