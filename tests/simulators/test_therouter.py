"""The simulated TheRouter: orders, jobs, links and their faults, asked over HTTP."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI
from PIL import Image

from tests.simulators.pictures import mark_of, picture
from tests.simulators.therouter import Status, TheRouter

ORDER = {"model": "openai/gpt-image-2", "prompt": "a product render"}


@asynccontextmanager
async def asking(vendor: TheRouter) -> AsyncIterator[httpx2.AsyncClient]:
    key = {"authorization": f"Bearer {vendor.api_key}"}
    async with (
        vendor,
        httpx2.AsyncClient(base_url=vendor.base_url, headers=key, trust_env=False) as client,
    ):
        yield client


async def order(client: httpx2.AsyncClient, attempt: str = "", **fields: Any) -> httpx2.Response:
    headers = {"idempotency-key": attempt} if attempt else {}
    return await client.post("/images/generations?async=true", json=ORDER | fields, headers=headers)


async def job(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    accepted = (await order(client, **fields)).json()
    report: dict[str, Any] = (await client.get(f"/jobs/{accepted['id']}")).json()
    return report


async def download(url: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as anyone:
        return await anyone.get(url, headers=headers)


async def test_an_order_is_accepted_worked_on_and_delivered_as_links() -> None:
    vendor = TheRouter(queued_s=None)
    async with asking(vendor) as client:
        accepted = await order(client, attempt="att_1", size="1536x864", n=2)
        body = accepted.json()
        seen = [(await client.get(f"/jobs/{body['id']}")).json()["status"]]
        vendor.move(body["id"], Status.IN_PROGRESS)
        seen.append((await client.get(f"/jobs/{body['id']}")).json()["status"])
        assert vendor.ledger.charges == 0
        vendor.move(body["id"], Status.SUCCEEDED)
        finished = (await client.get(f"/jobs/{body['id']}")).json()
        files = [await download(url) for url in finished["unsigned_urls"]]

    assert accepted.status_code == 202
    assert body["id"].startswith("img_")
    assert len(body["id"]) == 28
    assert body["polling_url"] == f"{vendor.base_url}/jobs/{body['id']}"
    assert body["expires_at"] - body["created_at"] == 604_800
    assert [*seen, finished["status"]] == ["queued", "in_progress", "succeeded"]
    assert [mark_of(file.content) for file in files] == ["att_1/0", "att_1/1"]
    assert Image.open(io.BytesIO(files[0].content)).size == (1536, 864)
    account = vendor.ledger.attempts["att_1"]
    assert (account.posts, account.charges, account.pictures) == (1, 1, 2)
    assert len(vendor.ledger.on("poll")) == 3


async def test_a_finished_job_is_charged_though_nobody_asks() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        await order(client)

    assert vendor.ledger.charges == 1


async def test_files_are_on_another_origin_that_refuses_the_key() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        url = (await job(client))["unsigned_urls"][0]
        leaked = await download(url, authorization=f"Bearer {vendor.api_key}")

    assert not url.startswith(vendor.origin.url)
    assert leaked.status_code == 400


async def test_links_expire_and_a_poll_hands_out_fresh_ones() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        first = await job(client)
        vendor.expire_links()
        expired = await download(first["unsigned_urls"][0])
        again = (await client.get(f"/jobs/{first['id']}")).json()
        fresh = await download(again["unsigned_urls"][0])

    assert (expired.status_code, expired.headers["content-type"]) == (403, "application/xml")
    assert fresh.status_code == 200


async def test_content_redirects_to_the_file() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        done = await job(client)
        reply = await client.get(f"/jobs/{done['id']}/content")

    assert (reply.status_code, reply.headers["location"]) == (302, done["unsigned_urls"][0])


async def test_the_shape_of_a_job_has_its_variants() -> None:
    vendor = TheRouter(
        result_shape="B", expires_at="iso", terse=True, with_usage=True, foreign_polling_url=True
    )
    async with asking(vendor) as client:
        terse = (await order(client)).json()
        vendor.terse = False
        full = (await order(client)).json()
        done = (await client.get(f"/jobs/{full['id']}")).json()

    assert set(terse) == {"id", "status", "model"}
    assert full["polling_url"].startswith(vendor.files.url)
    assert isinstance(full["expires_at"], str)
    assert done["result"]["data"][0]["url"].startswith(vendor.files.url)
    assert done["usage"]["output_tokens"] == 196


@pytest.mark.parametrize(
    "step,status,error",
    [
        (
            "failed",
            "failed",
            {"code": "upstream_error", "message": "The job failed.", "type": "server_error"},
        ),
        ("failed_text:No", "failed", "No"),
        ("failed_silently", "failed", None),
        ("cancelled", "cancelled", None),
        ("expired", "expired", None),
        ("stuck", "queued", None),
    ],
)
async def test_a_job_can_end_without_pictures_and_is_not_charged(
    step: str, status: str, error: object
) -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        report = await job(client, prompt=f"p [[{step}]]")

    assert (report["status"], report.get("error")) == (status, error)
    assert (vendor.ledger.posts, vendor.ledger.charges) == (1, 0)


async def test_a_job_blocked_by_moderation_names_it() -> None:
    async with asking(TheRouter()) as client:
        report = await job(client, prompt="p [[failed:moderation_blocked]]")

    assert report["error"]["code"] == "moderation_blocked"


async def test_a_job_can_have_an_unheard_of_status() -> None:
    vendor = TheRouter(working_s=None)
    async with asking(vendor) as client:
        report = await job(client, prompt="p [[other_status:upscaling]]")

    assert report["status"] == "upscaling"


async def test_a_job_can_be_forgotten_and_still_be_charged() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        accepted = (await order(client, prompt="p [[forgotten]]")).json()
        reply = await client.get(f"/jobs/{accepted['id']}")

    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "job_not_found")
    assert vendor.ledger.charges == 1


async def test_two_orders_can_get_the_same_job() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        first = (await order(client)).json()
        vendor.script("duplicate")
        second = (await order(client)).json()

    assert first["id"] == second["id"]


async def test_polls_fail_in_bursts_and_recover() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        accepted = (await order(client, prompt="p [[poll@500|429:3|502|ok]]")).json()
        statuses = [(await client.get(f"/jobs/{accepted['id']}")).status_code for _ in range(4)]

    assert statuses == [500, 429, 502, 200]


@pytest.mark.parametrize("step,status", [("expired_link", 403), ("missing", 404), ("500", 500), ("502", 502)])
async def test_a_download_can_fail_once(step: str, status: int) -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        url = (await job(client))["unsigned_urls"][0]
        vendor.script(step, on="file")
        statuses = [(await download(url)).status_code for _ in range(2)]

    assert statuses == [status, 200]


async def test_an_order_whose_answer_is_lost_can_be_bought_all_the_same() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        for step in ("reset:body;billed", "reset:body"):
            vendor.script(step)
            with pytest.raises(httpx2.TransportError):
                await order(client)

    assert (vendor.ledger.posts, vendor.ledger.charges) == (2, 1)


async def test_an_undeclared_parameter_and_a_wrong_key_are_refused() -> None:
    vendor = TheRouter()
    async with asking(vendor) as client:
        undeclared = await order(client, moderation="low")
        stranger = await client.post("/images/generations?async=true", headers={"authorization": "Bearer x"})

    assert (undeclared.status_code, undeclared.json()["error"]["param"]) == (400, "moderation")
    assert stranger.status_code == 401


async def test_a_repeated_key_gets_the_same_job_where_that_is_configured() -> None:
    vendor = TheRouter(idempotent=True)
    async with asking(vendor) as client:
        ids = {(await order(client, attempt="att_1")).json()["id"] for _ in range(3)}

    assert (len(ids), vendor.ledger.posts, vendor.ledger.charges) == (1, 3, 1)


async def test_without_async_it_answers_as_openai_does_or_too_late() -> None:
    vendor = TheRouter()
    async with (
        vendor,
        AsyncOpenAI(base_url=vendor.base_url, api_key=vendor.api_key, max_retries=0) as client,
    ):
        reply = await client.images.edit(
            model="openai/gpt-image-2",
            prompt="p",
            image=("a.png", picture(8, 8, "png", seed=1), "image/png"),
        )
        vendor.script("524")
        with pytest.raises(APIStatusError) as late:
            await client.images.generate(model="openai/gpt-image-2", prompt="p")

    assert reply.data is not None
    assert reply.data[0].b64_json is not None
    assert late.value.status_code == 524
    assert vendor.ledger.charges == 1
