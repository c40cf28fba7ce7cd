"""The simulated ImaRouter: both dialects, their links and their faults, asked over HTTP and run as a process."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.simulators.imarouter import ImaRouter, Status
from tests.simulators.process import running

GENERATE = "/image/gpt-image-2/generate"
TASKS = "/images/generations"


@asynccontextmanager
async def asking(vendor: ImaRouter) -> AsyncIterator[httpx2.AsyncClient]:
    key = {"authorization": f"Bearer {vendor.api_key}"}
    async with (
        vendor,
        httpx2.AsyncClient(base_url=vendor.base_url, headers=key, trust_env=False) as client,
    ):
        yield client


async def download(url: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as anyone:
        return await anyone.get(url, headers=headers)


async def test_a_job_is_ordered_worked_on_and_delivered_as_links() -> None:
    vendor = ImaRouter(queued_s=None)
    async with asking(vendor) as client:
        accepted = (await client.post(GENERATE, json={"prompt": "p", "numImages": 2})).json()
        seen = [(await client.get(f"/jobs/{accepted['id']}")).json()]
        vendor.move(accepted["id"], Status.RUNNING)
        seen.append((await client.get(f"/jobs/{accepted['id']}")).json())
        assert vendor.ledger.charges == 0
        vendor.move(accepted["id"], Status.COMPLETED)
        done = (await client.get(f"/jobs/{accepted['id']}")).json()
        files = [await download(output["url"]) for output in done["output"]]

    assert accepted == {"id": accepted["id"], "status": "queued"}
    assert [report["status"] for report in [*seen, done]] == ["queued", "running", "completed"]
    assert [Image.open(io.BytesIO(file.content)).size for file in files] == [(1024, 768)] * 2
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 2)


@pytest.mark.parametrize("form", ["flat", "nested"])
async def test_a_task_hands_out_one_link_however_many_pictures_it_bills(form: Any) -> None:
    vendor = ImaRouter(submit_form=form)
    order = {"model": "gpt-image-2", "prompt": "p", "n": 2, "quality": "medium"}
    async with asking(vendor) as client:
        accepted = (await client.post(TASKS, json=order)).json()
        task_id = accepted["task_id"] if form == "flat" else accepted["data"]["task_id"]
        done = (await client.get(f"{TASKS}/{task_id}")).json()["data"]
        elsewhere = await client.get(f"/jobs/{task_id}")

    assert (done["status"], done["format"], done["amount_usd"]) == ("succeeded", "png", 0.084)
    assert isinstance(done["url"], str)
    assert (vendor.ledger.pictures, vendor.ledger.cost_usd) == (2, Decimal("0.084"))
    assert elsewhere.status_code == 404


@pytest.mark.parametrize(
    "size,pixels",
    [
        ("square", (1024, 1024)),
        ("landscape_16_9", (1280, 720)),
        ({"width": 1536, "height": 864}, (1536, 864)),
        (None, (1024, 768)),
    ],
)
async def test_sizes_are_presets_or_pixels(size: object, pixels: tuple[int, int]) -> None:
    vendor = ImaRouter()
    async with asking(vendor) as client:
        order = {"prompt": "p"} | ({} if size is None else {"imageSize": size})
        accepted = (await client.post(GENERATE, json=order)).json()
        done = (await client.get(f"/jobs/{accepted['id']}")).json()
        file = await download(done["output"][0]["url"])

    assert Image.open(io.BytesIO(file.content)).size == pixels


@pytest.mark.parametrize(
    "path,body",
    [
        (GENERATE, {"prompt": "p", "imageSize": "auto"}),
        (GENERATE, {"prompt": "p", "quality": "auto"}),
        (GENERATE, {"prompt": "p", "numImages": 5}),
        (GENERATE, {"prompt": "p", "output_format": "png"}),
        (GENERATE, {"prompt": "p", "imageSize": {"width": 800, "height": 800}}),
        (GENERATE, {}),
        ("/image/gpt-image-2/edit", {"prompt": "p"}),
        (TASKS, {"model": "gpt-image-2", "prompt": "p", "user": "u"}),
        (TASKS, {"model": "gpt-image-2", "prompt": "p", "image": "http://x", "images": ["http://x"]}),
        (TASKS, {"model": "gpt-image-2", "prompt": "p", "images": ["data:image/png;base64,AAAA"]}),
    ],
)
async def test_what_is_not_documented_is_refused(path: str, body: dict[str, Any]) -> None:
    vendor = ImaRouter(takes_data_urls=False)
    async with asking(vendor) as client:
        reply = await client.post(path, json=body)

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")
    assert vendor.ledger.charges == 0


@pytest.mark.parametrize(
    "shape,keys", [("coded", {"code", "message", "data"}), ("object", {"error"}), ("text", {"error"})]
)
async def test_errors_come_in_three_shapes(shape: Any, keys: set[str]) -> None:
    async with asking(ImaRouter(error_shape=shape)) as client:
        reply = await client.post(GENERATE, json={"prompt": "p [[429:7]]"})

    assert (reply.status_code, reply.headers["retry-after"], set(reply.json())) == (429, "7", keys)


async def test_files_are_on_another_origin_that_refuses_the_key_and_old_links() -> None:
    vendor = ImaRouter()
    async with asking(vendor) as client:
        accepted = (await client.post(GENERATE, json={"prompt": "p"})).json()
        url = (await client.get(f"/jobs/{accepted['id']}")).json()["output"][0]["url"]
        leaked = await download(url, authorization=f"Bearer {vendor.api_key}")
        vendor.expire_links()
        expired = await download(url)

    assert not url.startswith(vendor.origin.url)
    assert (leaked.status_code, expired.status_code) == (400, 403)


async def test_it_runs_on_its_own_and_is_scripted_over_http() -> None:
    async with (
        running("imarouter", "--submit-form", "nested") as vendor,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        key = {"authorization": f"Bearer {vendor.api_key}"}
        await vendor.script("queue_full", "ok")
        replies = [
            await client.post(vendor.base_url + GENERATE, json={"prompt": "p"}, headers=key) for _ in range(2)
        ]
        ledger = await vendor.ledger()

    assert ["id" in reply.json() for reply in replies] == [False, True]
    assert (ledger["posts"], ledger["charges"]) == (2, 1)
