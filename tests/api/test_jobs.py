"""`/v1/jobs`: looking, listing, cancelling, collecting and watching."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from app.assets.files import Files
from app.db.tables.assets import assets
from app.db.tables.jobs import jobs
from app.db.types import from_now, now
from app.domain.failures import FailureKind
from tests.api.conftest import PNG, PUBLIC_URL, Gateway, serving
from tests.api.parts import AUTHORIZED

PATH = "/v1/images/generations"
PLAIN: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a lighthouse"}


async def submitted(client: httpx2.AsyncClient, **more: Any) -> str:
    answer = await client.post(f"{PATH}?async=true", json={**PLAIN, **more})
    job_id: str = answer.json()["id"]
    return job_id


async def purged(gateway: Gateway, job_id: str) -> None:
    async with gateway.database.transaction() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(purged_at=now()))


async def outlived(gateway: Gateway, job_id: str) -> None:
    """The time of a job's pictures is over, and no purge has come by yet."""
    async with gateway.database.transaction() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(expires_at=now()))
        await connection.execute(update(assets).where(assets.c.job_id == job_id).values(expires_at=now()))


async def deleted(gateway: Gateway, job_id: str, place: int) -> None:
    """The client has deleted one of a job's pictures."""
    view = await gateway.jobs.view(job_id, None)
    files = Files(gateway.database, gateway.storage, gateway.signer)
    await files.delete(view.pictures[place].id, view.job.team_id)


async def test_a_waiting_job_shows_what_is_known(client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client, metadata={"album": "one"})
    answer = await client.get(f"/v1/jobs/{job_id}")
    body = answer.json()
    assert answer.status_code == 200
    assert int(answer.headers["retry-after"]) >= 1
    assert body == {
        "id": job_id,
        "object": "image_job",
        "status": "queued",
        "operation": "image.generation",
        "model": "gpt-image-2",
        "created_at": body["created_at"],
        "started_at": None,
        "completed_at": None,
        "expires_at": body["created_at"] + 604_800,
        "polling_url": f"{PUBLIC_URL}/v1/jobs/{job_id}",
        "unsigned_urls": [],
        "result": None,
        "cost": {"usd": "0", "estimated": False},
        "upstream": None,
        "attempts": [],
        "late": [],
        "error": None,
        "metadata": {"album": "one"},
    }


async def test_a_job_under_way_shows_whom_it_asked(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    await gateway.worker.start()
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (body["status"], body["upstream"]) == ("in_progress", "openai")
    assert body["attempts"][0] | {"started_at": 0} == {
        "upstream": "openai",
        "outcome": "pending",
        "cost_usd": None,
        "started_at": 0,
        "duration_ms": None,
    }
    assert body["cost"]["estimated"]


async def test_a_finished_job_shows_its_pictures_and_its_cost(
    gateway: Gateway, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client, n=2)
    await gateway.worker.finish()
    answer = await client.get(f"/v1/jobs/{job_id}")
    body = answer.json()
    assert "retry-after" not in answer.headers
    assert (body["status"], body["upstream"]) == ("succeeded", "openai")
    assert body["cost"] == {"usd": "0.007152", "estimated": False}
    assert [item["url"] for item in body["result"]["data"]] == body["unsigned_urls"]
    assert len(body["unsigned_urls"]) == 2
    assert body["result"]["size"] == "40x30"
    assert body["attempts"][0]["outcome"] == "succeeded"
    assert body["attempts"][0]["cost_usd"] == "0.007152"
    assert body["created_at"] <= body["started_at"] <= body["completed_at"]
    assert (await anonymous.get(body["unsigned_urls"][1])).content == PNG


async def test_a_failed_job_shows_its_error(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    await gateway.worker.fail(FailureKind.REFUSED)
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert body["status"] == "failed"
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["code"] == "moderation_blocked"
    assert body["attempts"][0]["outcome"] == "refused"


async def test_waiting_ends_with_the_job(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    answer, _ = await asyncio.gather(client.get(f"/v1/jobs/{job_id}?wait=60"), gateway.finish_next())
    assert answer.json()["status"] == "succeeded"


async def test_waiting_ends_with_the_time(client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    answer = await client.get(f"/v1/jobs/{job_id}?wait=0.01")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


@pytest.mark.parametrize("wait", ["-1", "61", "soon", "", "nan", "1e9"])
async def test_an_impossible_wait_is_refused(client: httpx2.AsyncClient, wait: str) -> None:
    job_id = await submitted(client)
    answer = await client.get(f"/v1/jobs/{job_id}?wait={wait}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "wait")


@pytest.mark.parametrize(
    "method,path",
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/result"),
        ("GET", "/content"),
        ("GET", "/events"),
        ("GET", "?wait=1"),
    ],
)
async def test_another_teams_job_is_no_different_from_none(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient, method: str, path: str
) -> None:
    job_id = await submitted(client)
    foreign = await stranger.request(method, f"/v1/jobs/{job_id}{path}")
    absent = await stranger.request(method, f"/v1/jobs/job_0{path}")
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "job_not_found")
    assert foreign.text.replace(job_id, "job_0") == absent.text
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"


async def test_jobs_are_listed_newest_first_and_in_pages(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    ids = [await submitted(client) for _ in range(3)]
    await submitted(stranger)
    first = (await client.get("/v1/jobs?limit=2")).json()
    assert [item["id"] for item in first["data"]] == [ids[2], ids[1]]
    assert (first["object"], first["has_more"]) == ("list", True)
    assert (first["first_id"], first["last_id"]) == (ids[2], ids[1])
    rest = (await client.get(f"/v1/jobs?limit=2&after={first['last_id']}")).json()
    assert [item["id"] for item in rest["data"]] == [ids[0]]
    assert not rest["has_more"]


async def test_an_empty_list_has_no_ends(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/v1/jobs")).json()
    assert answer == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    "query,expected",
    [
        ("status=succeeded", [0]),
        ("status=queued", [1]),
        ("model=gpt-image-1-mini", [1]),
        ("model=openai/gpt-image-2", [0]),
        ("metadata[album]=one", [0]),
        ("metadata[album]=one&metadata[page]=2", []),
        ("status=failed", []),
    ],
)
async def test_lists_are_filtered(
    gateway: Gateway, client: httpx2.AsyncClient, query: str, expected: list[int]
) -> None:
    ids = [await submitted(client, metadata={"album": "one"})]
    await gateway.worker.finish()
    ids.append(await submitted(client, model="gpt-image-1-mini", metadata={"album": "two"}))
    answer = await client.get(f"/v1/jobs?{query}")
    assert [item["id"] for item in answer.json()["data"]] == [ids[place] for place in expected]


@pytest.mark.parametrize(
    "query,status,param",
    [
        ("limit=0", 400, "limit"),
        ("limit=101", 400, "limit"),
        ("limit=ten", 400, "limit"),
        ("status=done", 400, "status"),
        ('metadata["]=x', 400, "metadata"),
        ("after=job_0", 404, "after"),
        ("metadata=one", 400, "metadata"),
        ("metadata[]=one", 400, "metadata"),
        ("metadata.album=one", 400, "metadata.album"),
        ("state=queued", 400, "state"),
        ("status=queued&status=failed", 400, "status"),
        ("metadata[album]=one&metadata[album]=two", 400, "metadata"),
    ],
)
async def test_bad_filters_are_refused(
    client: httpx2.AsyncClient, query: str, status: int, param: str
) -> None:
    answer = await client.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize("method,suffix", [("POST", "/cancel"), ("DELETE", "")])
async def test_a_job_not_yet_sent_is_cancelled_for_nothing(
    client: httpx2.AsyncClient, method: str, suffix: str
) -> None:
    job_id = await submitted(client)
    answer = await client.request(method, f"/v1/jobs/{job_id}{suffix}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.json()["cost"]["usd"] == "0"
    again = await client.request(method, f"/v1/jobs/{job_id}{suffix}")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "job_not_cancellable")
    result = await client.get(f"/v1/jobs/{job_id}/result")
    assert (result.status_code, result.headers["x-should-retry"]) == (409, "false")


async def test_a_picture_that_comes_too_late_is_kept(
    gateway: Gateway, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client)
    cancelling = client.post(f"/v1/jobs/{job_id}/cancel")
    started = gateway.worker.start

    async def start_and_cancel(pictures: int | None = None) -> Any:
        begun = await started(pictures)
        await cancelling
        return begun

    gateway.worker.start = start_and_cancel  # type: ignore[method-assign]  # cancelled between start and end
    await gateway.worker.finish()
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (body["status"], body["unsigned_urls"]) == ("cancelled", [])
    (late,) = body["late"]
    assert late["file_id"].startswith("file_")
    assert (await anonymous.get(late["url"])).content == PNG
    assert body["cost"]["usd"] == "0.007152"


@pytest.mark.parametrize("response_format", ["b64_json", "url"])
async def test_a_result_is_what_a_synchronous_call_would_have_got(
    gateway: Gateway, client: httpx2.AsyncClient, response_format: str
) -> None:
    job_id = await submitted(client, response_format=response_format)
    pending = await client.get(f"/v1/jobs/{job_id}/result")
    assert (pending.status_code, pending.json()["status"]) == (202, "queued")
    assert "retry-after" in pending.headers
    await gateway.worker.finish()
    first = await client.get(f"/v1/jobs/{job_id}/result")
    again = await client.get(f"/v1/jobs/{job_id}/result")
    assert (first.status_code, first.content) == (200, again.content)
    assert list(first.json()["data"][0]) == [response_format]
    assert first.headers["x-darkroom-cost-usd"] == "0.007152"


async def test_a_failed_jobs_result_is_its_error(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    await gateway.worker.fail(FailureKind.DOWN)
    for place in ("result", "content"):
        answer = await client.get(f"/v1/jobs/{job_id}/{place}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "all_upstreams_failed")
        assert answer.json()["error"]["job_id"] == job_id


async def test_deleted_pictures_leave_the_record(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    await gateway.worker.finish()
    await purged(gateway, job_id)
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (body["status"], body["cost"]["usd"]) == ("expired", "0.007152")
    for place in ("result", "content"):
        answer = await client.get(f"/v1/jobs/{job_id}/{place}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "result_expired")


async def test_pictures_expire_the_second_that_is_told_whether_or_not_they_are_deleted_yet(
    gateway: Gateway, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client)
    await gateway.worker.finish()
    link = (await client.get(f"/v1/jobs/{job_id}")).json()["unsigned_urls"][0]
    await outlived(gateway, job_id)
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (body["status"], body["cost"]["usd"]) == ("expired", "0.007152")
    assert (body["unsigned_urls"], body["result"]["data"]) == ([], [])
    for place in ("result", "content"):
        answer = await client.get(f"/v1/jobs/{job_id}/{place}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "result_expired")
    assert (await anonymous.get(link)).status_code == 404


@pytest.mark.parametrize("status, expected", [("succeeded", [1]), ("expired", [0]), ("failed", [])])
async def test_lists_show_and_filter_jobs_as_expired_once_they_are(
    gateway: Gateway, client: httpx2.AsyncClient, status: str, expected: list[int]
) -> None:
    ids = []
    for _ in range(2):
        ids.append(await submitted(client))
        await gateway.worker.finish()
    await outlived(gateway, ids[0])
    answer = (await client.get(f"/v1/jobs?status={status}")).json()
    found = [(item["id"], item["status"]) for item in answer["data"]]
    assert found == [(ids[place], status) for place in expected]


async def test_pictures_live_as_long_as_their_job_says(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    soon = from_now(60.0)
    async with gateway.database.transaction() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(expires_at=soon))
    await gateway.worker.finish()
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    (picture,) = (await gateway.jobs.view(job_id, None)).pictures
    assert int(picture.expires_at.timestamp()) == body["expires_at"]
    assert httpx2.URL(body["unsigned_urls"][0]).params["exp"] == str(body["expires_at"])


async def test_a_late_picture_lives_a_day_however_short_results_do(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client)
    job, attempt = await gateway.worker.start()
    async with gateway.database.transaction() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(expires_at=from_now(1.0)))
    await client.delete(f"/v1/jobs/{job_id}")
    await gateway.worker.complete(job, attempt)
    (picture,) = (await gateway.jobs.view(job_id, None)).late
    assert (picture.expires_at - picture.created_at).total_seconds() > 86_000


async def test_a_result_that_comes_after_its_time_has_as_much_again(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client)
    job, attempt = await gateway.worker.start()
    async with gateway.database.transaction() as connection:
        past = {"created_at": from_now(-100.0), "expires_at": from_now(-40.0)}
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(**past))
    await gateway.worker.complete(job, attempt)
    view = await gateway.jobs.view(job_id, None)
    assert view.pictures[0].expires_at == view.job.expires_at
    answer = await client.get(f"/v1/jobs/{job_id}/result")
    assert (answer.status_code, len(answer.json()["data"])) == (200, 1)


async def test_a_deleted_picture_takes_the_exact_result_with_it_and_leaves_the_others_in_their_places(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client, n=3)
    await gateway.worker.finish()
    before = (await client.get(f"/v1/jobs/{job_id}")).json()["unsigned_urls"]
    await deleted(gateway, job_id, 1)
    body = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (body["status"], body["unsigned_urls"]) == ("succeeded", [before[0], before[2]])
    result = await client.get(f"/v1/jobs/{job_id}/result")
    assert (result.status_code, result.json()["error"]["code"]) == (410, "result_expired")
    found = [await client.get(f"/v1/jobs/{job_id}/content?index={index}") for index in range(4)]
    assert [answer.status_code for answer in found] == [302, 410, 302, 404]
    assert [found[index].headers["location"] for index in (0, 2)] == [before[0], before[2]]
    assert found[1].json()["error"]["code"] == "result_expired"


async def test_content_leads_to_the_picture(
    gateway: Gateway, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client, n=2)
    assert (await client.get(f"/v1/jobs/{job_id}/content")).status_code == 202
    await gateway.worker.finish()
    for query in ("", "?index=1"):
        answer = await client.get(f"/v1/jobs/{job_id}/content{query}")
        assert answer.status_code == 302
        assert (await anonymous.get(answer.headers["location"])).content == PNG


@pytest.mark.parametrize(
    "index,status,code",
    [
        ("2", 404, "not_found"),
        ("-1", 404, "not_found"),
        ("9" * 30, 404, "not_found"),
        ("x", 400, "invalid_value"),
        ("1.0", 400, "invalid_value"),
        ("", 400, "invalid_value"),
    ],
)
async def test_an_index_out_of_range(
    gateway: Gateway, client: httpx2.AsyncClient, index: str, status: int, code: str
) -> None:
    job_id = await submitted(client, n=2)
    await gateway.worker.finish()
    answer = await client.get(f"/v1/jobs/{job_id}/content?index={index}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"] == "index"


def events_of(text: str) -> list[tuple[str, tuple[int, ...], dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            position = tuple(int(part) for part in lines["id"].split("-"))
            found.append((lines["event"], position, json.loads(lines["data"])))
    return found


async def test_a_job_is_watched_to_its_end(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    async with serving(gateway.app) as address:
        job_id = await submitted(client)
        text = ""
        async with (
            httpx2.AsyncClient(base_url=address, headers=AUTHORIZED) as remote,
            remote.stream("GET", f"/v1/jobs/{job_id}/events") as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            chunks = answer.aiter_text()
            while not events_of(text):
                text += await anext(chunks)
            await gateway.worker.finish()
            async for chunk in chunks:
                text += chunk
    found = events_of(text)
    assert [name for name, _, _ in found][-1] == "job.final"
    assert {name for name, _, _ in found[:-1]} == {"job.updated"}
    assert found[0][2]["status"] == "queued"
    assert found[-1][2]["status"] == "succeeded"
    ids = [number for _, number, _ in found]
    assert ids == sorted(set(ids))


async def test_a_watcher_that_comes_back_is_told_only_what_it_missed(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client)
    await gateway.worker.finish()
    everything = events_of((await client.get(f"/v1/jobs/{job_id}/events")).text)
    headers = {"last-event-id": "0-0"}
    missed = events_of((await client.get(f"/v1/jobs/{job_id}/events", headers=headers)).text)
    assert [name for name, _, _ in missed] == ["job.final"]
    assert missed == everything[-1:]


async def test_a_watcher_that_has_seen_the_end_is_told_not_to_come_back(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job_id = await submitted(client)
    path = f"/v1/jobs/{job_id}/events"
    await gateway.worker.finish()
    _, last, _ = events_of((await client.get(path)).text)[-1]
    answer = await client.get(path, headers={"last-event-id": "-".join(map(str, last))})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_job_can_be_asked_for_with_head(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    job_id = await submitted(client)
    await gateway.worker.finish()
    for path, status in (
        ("", 200),
        (f"/{job_id}", 200),
        (f"/{job_id}/result", 200),
        (f"/{job_id}/content", 302),
    ):
        looked, knocked = await client.get(f"/v1/jobs{path}"), await client.head(f"/v1/jobs{path}")
        assert knocked.status_code == looked.status_code == status, path
        assert knocked.headers.get("location") == looked.headers.get("location")
        assert knocked.headers["content-length"] == looked.headers["content-length"]
