"""`darkroom jobs`."""

import asyncio
from pathlib import Path

import pytest

from tests.cli.command import darkroom
from tests.cli.gateway import PICTURE, FakeGateway
from tests.house import opener
from tests.kitchen import API_KEY
from tests.simulators.openai import OpenAi


def test_jobs_are_listed_for_people(gateway: FakeGateway) -> None:
    gateway.jobs = [gateway.job(), gateway.job(id="job_2", upstream=None, cost=None, status="failed")]

    ended = darkroom("jobs", "list")

    heading, first, second = ended.out.splitlines()
    assert heading.split()[:3] == ["job", "status", "model"]
    assert first.startswith("job_1  succeeded  gpt-image-2  therouter  ")
    assert "$0.007152" in first
    assert "41 s" in first
    assert "2026-05-13 01:54:09 UTC" in first
    assert "unpriced" in second
    assert " - " in second


def test_jobs_are_listed_over_pages_up_to_the_limit(gateway: FakeGateway) -> None:
    gateway.jobs = [gateway.job(id=f"job_{number}") for number in range(260)]

    ended = darkroom(
        "jobs", "list", "--limit", "250", "--status", "succeeded", "--model", "gpt-image-2", "--json"
    )

    assert [job["id"] for job in ended.json] == [f"job_{number}" for number in range(250)]
    assert [each.query["limit"] for each in gateway.asked] == ["100", "100", "50"]
    assert {(each.query["status"], each.query["model"]) for each in gateway.asked} == {
        ("succeeded", "gpt-image-2")
    }


def test_a_job_is_shown_with_its_attempts(gateway: FakeGateway) -> None:
    gateway.stages = [
        gateway.job(
            status="failed",
            error={"message": "No route could.", "code": "all_upstreams_failed"},
            late=[{"file_id": "file_9", "url": "https://x.example/late"}],
            metadata={"order": "7"},
        )
    ]

    ended = darkroom("jobs", "show", "job_1")

    for expected in (
        "failed",
        "No route could.",
        "openai",
        "busy",
        "84 ms",
        "https://x.example/late",
        '"order"',
    ):
        assert expected in ended.out


def test_a_job_that_is_not_there_is_a_sentence(gateway: FakeGateway) -> None:
    ended = darkroom("jobs", "show", "job_404")

    assert (ended.code, ended.err) == (1, "There is no job 'job_404'. (job_not_found)\n")


def test_what_cannot_be_an_id_is_not_sent(gateway: FakeGateway) -> None:
    for command in ("show", "cancel", "watch"):
        assert darkroom("jobs", command, "../admin").code == 2
    assert not gateway.asked


def test_a_job_is_cancelled(gateway: FakeGateway) -> None:
    ended = darkroom("jobs", "cancel", "job_1")

    assert (ended.code, ended.out) == (0, "The job job_1 is cancelled.\n")


def test_a_job_is_watched_and_collected(gateway: FakeGateway, folder: Path) -> None:
    gateway.stages = [gateway.job(status="in_progress", unsigned_urls=[]), gateway.job()]

    ended = darkroom("jobs", "watch", "job_1", "-o", "out.png")

    assert (folder / "out.png").read_bytes() == PICTURE
    assert ended.out == "Saved out.png\n$0.007152 from therouter, 41 s (job_1)\n"


def test_watching_alone_saves_nothing(gateway: FakeGateway, folder: Path) -> None:
    ended = darkroom("jobs", "watch", "job_1", "--json")

    assert ended.json == {"job": gateway.job(), "files": []}
    assert not list(folder.iterdir())


def test_pictures_that_were_deleted_are_a_sentence(gateway: FakeGateway) -> None:
    gateway.stages = [gateway.job(unsigned_urls=[])]

    ended = darkroom("jobs", "watch", "job_1", "-o", "out.png")

    assert ended.code == 1
    assert "no longer kept" in ended.err


async def test_a_job_that_came_by_imarouters_api_is_shown_and_watched_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> None:
    house = opener(monkeypatch, tmp_path, sqlite_url)
    async with OpenAi(api_key="sk-test") as vendor, house(vendor) as running:
        made = await running.client.post("/v1/image/gpt-image-2/generate", json={"prompt": "a boat"})
        at = ("--base-url", running.address, "--api-key", API_KEY)
        job_id = made.json()["id"]
        watched = await asyncio.to_thread(darkroom, "jobs", "watch", job_id, "-o", "out.png", *at)
        assert "Saved out.png\n" in watched.out
        shown = await asyncio.to_thread(darkroom, "jobs", "show", job_id, "--json", *at)
        assert (shown.json["object"], shown.json["status"]) == ("image_job", "succeeded")
        theirs = (await running.client.get(f"/v1/jobs/{job_id}")).json()
        assert theirs["status"] == "completed"
        refused = await running.client.get(f"/v1/jobs/{job_id}?shape=square")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "shape")
