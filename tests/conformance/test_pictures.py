"""Every adapter buys pictures from its simulator through the real caller."""

import asyncio
import io
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation
from tests.conformance.bench import INPUTS, a_bench, inputs_of
from tests.conformance.vendors import KEY, POLLED, SPEECHES, Speech, unfinished
from tests.simulators.imarouter import ImaRouter
from tests.simulators.pictures import mark_of
from tests.simulators.therouter import TheRouter
from tests.simulators.vercel import Vercel

PROMPT: Final = "a s3cret lighthouse"
REQUEST: Final = ImageRequest(model="gpt-image-2", prompt=PROMPT, size="1024x768", quality="low")

every_speech = pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: speech.name)
polled_speech = pytest.mark.parametrize("speech", POLLED, ids=lambda speech: speech.name)


def an_input(file_id: str, form: PictureFormat, width_px: int, height_px: int) -> InputPicture:
    return InputPicture(
        file_id=file_id,
        format=form,
        width_px=width_px,
        height_px=height_px,
        size_bytes=len(INPUTS[file_id]),
    )


EDIT: Final = replace(
    REQUEST,
    operation=Operation.EDIT,
    images=(
        an_input("file_a", PictureFormat.PNG, 64, 48),
        an_input("file_b", PictureFormat.JPEG, 32, 32),
    ),
)
MASK: Final = an_input("file_mask", PictureFormat.PNG, 64, 48)


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size


@every_speech
@pytest.mark.parametrize("size", ["1024x768", "1536x864", "auto", None])
async def test_one_order_brings_one_picture_of_the_asked_size(
    tmp_path: Path, speech: Speech, size: str | None
) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        [purchase] = await bench.buy(replace(REQUEST, size=size))

    [data] = purchase.pictures
    if size not in {"auto", None}:
        assert "x".join(map(str, size_of(data))) == size
    assert mark_of(data) == "att_1/0"
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)
    assert bench.left_behind() == []


@every_speech
async def test_every_parameter_that_a_route_claims_is_taken(tmp_path: Path, speech: Speech) -> None:
    supports = speech.route("http://127.0.0.1").supports
    has_opaque = supports.backgrounds is None or "opaque" in supports.backgrounds
    request = replace(
        REQUEST,
        output_format="webp",
        background="opaque" if has_opaque else None,
        output_compression=50 if supports.compression else None,
        moderation="low" if supports.moderation else None,
        user="user-1" if supports.user else None,
        safety_identifier="s-1" if supports.safety_identifier else None,
    )
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        [purchase] = await bench.buy(request)

    with Image.open(io.BytesIO(purchase.pictures[0])) as image:
        assert image.format == "WEBP"


@every_speech
@pytest.mark.parametrize("n", [2, 5])
async def test_several_pictures_take_as_many_orders_as_the_vendor_needs(
    tmp_path: Path, speech: Speech, n: int
) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        purchases = await bench.buy(replace(REQUEST, n=n))

    most = bench.route.supports.max_n or n
    orders = -(-n // most)
    pictures = [data for purchase in purchases for data in purchase.pictures]
    assert len(purchases) == orders
    assert len({mark_of(data) for data in pictures}) == n
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (orders, n)


@polled_speech
async def test_an_order_is_asked_after_until_it_is_done(tmp_path: Path, speech: Speech) -> None:
    vendor, working, done = unfinished(speech)
    async with vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        first = vendor.hold("poll")
        buying = asyncio.create_task(bench.buy(REQUEST))
        await first.reached()
        [job_id] = vendor.jobs
        second, third = vendor.hold("poll"), vendor.hold("poll")
        first.release()
        await second.reached()
        vendor.move(job_id, working)  # type: ignore[arg-type] # each simulator has its own words
        second.release()
        await third.reached()
        vendor.move(job_id, done)  # type: ignore[arg-type] # each simulator has its own words
        third.release()
        [purchase] = await buying

    assert len(purchase.pictures) == 1
    assert len(purchase.waits_s) == 3
    assert set(purchase.waits_s) <= {3.0, 5.0}
    assert (vendor.ledger.posts, len(vendor.ledger.on("poll")), vendor.ledger.pictures) == (1, 3, 1)


@polled_speech
async def test_questions_that_fail_are_asked_again_and_nothing_is_bought_twice(
    tmp_path: Path, speech: Speech
) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        steps = (
            "500",
            "429:9",
            "401",
            "502",
            "html:404",
            "not_json",
            "nonsense",
            "cut",
            "reset:body",
            "huge:65",
        )
        vendor.script(*steps, on="poll")
        [purchase] = await bench.buy(REQUEST)

    assert len(purchase.pictures) == 1
    assert 9.0 in purchase.waits_s
    assert len(vendor.ledger.on("poll")) == len(steps) + 1
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)
    assert bench.left_behind() == []


@polled_speech
async def test_an_unheard_of_status_means_waiting(tmp_path: Path, speech: Speech) -> None:
    vendor, working, done = unfinished(speech)
    async with vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        vendor.script("other_status:dreaming")
        first, second = vendor.hold("poll"), vendor.hold("poll")
        buying = asyncio.create_task(bench.buy(REQUEST))
        await first.reached()
        [job_id] = vendor.jobs
        vendor.move(job_id, working)  # type: ignore[arg-type] # each simulator has its own words
        first.release()
        await second.reached()
        vendor.move(job_id, done)  # type: ignore[arg-type] # each simulator has its own words
        second.release()
        [purchase] = await buying

    assert len(purchase.pictures) == 1


@polled_speech
@pytest.mark.parametrize("step", ["expired_link", "missing", "500", "cut", "reset:body"])
async def test_a_link_that_lags_or_breaks_is_fetched_again(tmp_path: Path, speech: Speech, step: str) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        vendor.script(step, on="file")
        [purchase] = await bench.buy(REQUEST)

    assert mark_of(purchase.pictures[0]) == "att_1/0"
    assert (vendor.ledger.posts, len(vendor.ledger.on("poll")), vendor.ledger.pictures) == (1, 1, 1)
    assert bench.left_behind() == []


@polled_speech
async def test_a_link_that_has_expired_is_asked_for_anew(tmp_path: Path, speech: Speech) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        assert isinstance(vendor, (TheRouter, ImaRouter))
        hold = vendor.hold("file")
        buying = asyncio.create_task(bench.buy(REQUEST))
        await hold.reached()
        vendor.expire_links()
        hold.release()
        [purchase] = await buying

    assert mark_of(purchase.pictures[0]) == "att_1/0"
    assert (vendor.ledger.posts, len(vendor.ledger.on("poll")), vendor.ledger.pictures) == (1, 2, 1)


@every_speech
async def test_an_edit_hands_over_every_input_byte_for_byte(tmp_path: Path, speech: Speech) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        can_mask = bench.route.supports.mask
        await bench.buy(replace(EDIT, mask=MASK if can_mask else None))
        seen = inputs_of(vendor.ledger.on("purchase")[0].body, bench.links)

    names = ["file_a", "file_b", "file_mask"] if can_mask else ["file_a", "file_b"]
    assert seen == [INPUTS[name] for name in names]
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)


@pytest.mark.parametrize(
    "speech", [speech for speech in SPEECHES if speech.vendor == "imarouter"], ids=lambda speech: speech.name
)
@pytest.mark.parametrize("can_link, scheme", [(True, "http"), (False, "data")])
async def test_inputs_are_linked_where_they_can_be_fetched_and_else_stand_in_the_order(
    tmp_path: Path, speech: Speech, can_link: bool, scheme: str
) -> None:
    async with (
        speech.simulator() as vendor,
        a_bench(speech, vendor.base_url, tmp_path, can_link=can_link, accepts_data_urls=True) as bench,
    ):
        await bench.buy(replace(EDIT, mask=MASK))
        body = vendor.ledger.on("purchase")[0].body
        seen = inputs_of(body, bench.links)

    urls = [*(body.get("imageUrls") or body["images"]), body.get("maskUrl") or body["mask"]]
    assert Counter(url.partition(":")[0] for url in urls) == {scheme: 3}
    assert seen == list(INPUTS.values())


@every_speech
async def test_a_slow_answer_within_the_limit_is_an_answer(tmp_path: Path, speech: Speech) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        hold = vendor.hold()
        buying = asyncio.create_task(bench.buy(REQUEST))
        await hold.reached()
        assert vendor.ledger.pictures == 0
        hold.release()
        [purchase] = await buying

    assert len(purchase.pictures) == 1
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)


@every_speech
async def test_an_answer_that_drips_within_the_limit_is_an_answer(tmp_path: Path, speech: Speech) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        vendor.script("drip:0")
        [purchase] = await bench.buy(REQUEST)

    assert mark_of(purchase.pictures[0]) == "att_1/0"
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)


@every_speech
async def test_a_call_that_is_cancelled_is_not_repeated_and_leaves_nothing_behind(
    tmp_path: Path, speech: Speech
) -> None:
    async with speech.simulator() as vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
        hold = vendor.hold()
        buying = asyncio.create_task(bench.buy(REQUEST))
        await hold.reached()
        buying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await buying
        hold.release()
        await vendor.idle()

    # The vendor had the order, and made the picture for nobody.
    assert (vendor.ledger.posts, vendor.ledger.pictures) == (1, 1)
    assert bench.sent == 1
    assert bench.left_behind() == []


@pytest.mark.parametrize(
    "vendor", [Vercel(api_key=KEY), ImaRouter(api_key=KEY)], ids=lambda vendor: vendor.name
)
async def test_what_a_vendor_says_it_charged_is_what_it_bills(
    tmp_path: Path, vendor: Vercel | ImaRouter
) -> None:
    for speech in SPEECHES:
        if speech.vendor != vendor.name:
            continue
        vendor.reset()
        async with vendor, a_bench(speech, vendor.base_url, tmp_path) as bench:
            [purchase] = await bench.buy(replace(REQUEST, quality="medium"))

        assert purchase.finished.cost_usd == vendor.ledger.cost_usd > Decimal(0)
