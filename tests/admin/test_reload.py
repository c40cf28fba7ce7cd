"""The catalog: shown, checked, reloaded while requests run, followed by every process, kept by running jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from app.accounts.service import CACHED_S
from app.admin.audit import Audit
from app.admin.configuration import Configuration
from app.assembly import Parts, in_background
from app.catalog.entries import Catalog
from app.jobs.lifecycle import Status
from tests.admin.conftest import Office, offline_catalog, open_office
from tests.kitchen import catalog_of, open_kitchen, write_settings
from tests.simulators.openai import OpenAi


def _changed(**routing: Any) -> dict[str, Any]:
    catalog = deepcopy(offline_catalog())
    catalog["models"]["gpt-image-2"]["routing"] |= routing
    return catalog


def _write(parts: Parts, catalog: dict[str, Any]) -> None:
    YAML(typ="safe").dump(catalog, parts.settings.config)


async def _until(parts: Parts, version: str) -> Catalog:
    """Wait until a process serves from this version."""
    async with asyncio.timeout(20):
        changed = asyncio.Event()
        with parts.events.listen("catalog", changed.set):
            while parts.catalog.get().version != version:
                # The process itself looks every two seconds, woken or not.
                await asyncio.wait([asyncio.ensure_future(changed.wait())], timeout=0.05)
    return parts.catalog.get()


async def _looked(office: Office) -> None:
    """Wait until a process has written something down."""
    async with asyncio.timeout(20):
        while not await office.audit():
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.05))])


async def test_the_catalog_in_force_is_shown(office: Office) -> None:
    shown = (await office.admin.get("/admin/v1/config")).json()
    assert shown["version"] == shown["in_force"] == office.parts.catalog.get().version
    assert shown["content"] == office.parts.settings.config.read_text()
    assert shown["upstreams"]["openai"]["api_key_env"] == "OPENAI_TEST_KEY"
    assert list(shown["models"]) == ["gpt-image-2"]


async def test_a_check_answers_every_mistake_with_its_place(office: Office) -> None:
    before = office.parts.catalog.get()
    content = b"version: 1\nupstreams:\n  shop:\n    adapter: none\n    base_url: nowhere\nmodels: {}\n"
    found = (await office.admin.post("/admin/v1/config/check", content=content)).json()
    assert (found["valid"], found["version"]) == (False, None)
    places = [(item["line"], item["key"]) for item in found["mistakes"]]
    assert places[:2] == [(4, "upstreams.shop.adapter"), (5, "upstreams.shop.base_url")]
    assert all(item["problem"] and item["fix"] for item in found["mistakes"])
    assert office.parts.catalog.get() is before


async def test_a_check_of_a_good_file_changes_nothing_and_learns_no_key(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = office.parts.settings.config.read_bytes().replace(b"OPENAI_TEST_KEY", b"PATH")
    found = (await office.admin.post("/admin/v1/config/check", content=content)).json()
    assert found["valid"] is True
    assert office.parts.catalog.get().version not in ("", found["version"])
    assert office.parts.catalog.get().upstreams["openai"].api_key_env == "OPENAI_TEST_KEY"


async def test_a_reload_puts_the_file_in_force(office: Office) -> None:
    _write(office.parts, _changed(max_attempts=7))
    reloaded = await office.admin.post("/admin/v1/config/reload")
    catalog = office.parts.catalog.get()
    assert reloaded.json()["version"] == catalog.version
    assert catalog.models["gpt-image-2"].routing.max_attempts == 7
    (entry,) = await office.audit()
    assert (entry["action"], entry["after"]["version"]) == ("config.reloaded", catalog.version)
    assert entry["before"]["version"] != catalog.version


async def test_a_bad_file_is_refused_with_its_mistakes_and_the_old_one_stays(office: Office) -> None:
    before = office.parts.catalog.get()
    _write(office.parts, _changed(max_attempts=0, policy="dearest"))
    refused = await office.admin.post("/admin/v1/config/reload")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_value")
    assert "max_attempts" in error["message"]
    assert "policy" in error["message"]
    assert office.parts.catalog.get() is before
    assert [entry["action"] for entry in await office.audit()] == ["config.reload_refused"]


async def test_sandbox_options_that_cannot_be_are_mistakes_of_the_file(office: Office) -> None:
    catalog = _changed()
    catalog["upstreams"]["sandbox"] = {
        "adapter": "sandbox",
        "base_url": "http://sandbox.invalid/v1",
        "options": {"delay_s": -1},
    }
    _write(office.parts, catalog)
    refused = await office.admin.post("/admin/v1/config/reload")
    assert refused.status_code == 400
    assert "upstreams.sandbox" in refused.json()["error"]["message"]


async def test_a_signal_reloads_and_a_bad_file_ends_nothing(office: Office) -> None:
    first = office.parts.catalog.get().version
    _write(office.parts, _changed(max_attempts=0))
    office.parts.catalogs.reload_soon()
    _write(office.parts, _changed(max_attempts=9))
    good = (await office.parts.catalogs.check(office.parts.settings.config.read_bytes())).version
    office.parts.catalogs.reload_soon()
    assert (await _until(office.parts, good)).version != first


@pytest.mark.parametrize("turns", range(4))
async def test_a_process_that_is_woken_while_it_stops_stops(office: Office, turns: int) -> None:
    following = asyncio.ensure_future(office.parts.catalogs.run())
    await asyncio.sleep(0.2)
    office.parts.catalogs.reload_soon()
    for _ in range(turns):
        await asyncio.sleep(0)
    following.cancel()

    ended, _ = await asyncio.wait([following], timeout=10)

    assert ended


async def test_a_job_keeps_the_catalog_that_it_began_with(office: Office) -> None:
    job = (await office.parts.jobs.view(await office.kitchen.order(), None)).job
    for attempts in range(5, 9):
        _write(office.parts, _changed(max_attempts=attempts))
        assert (await office.admin.post("/admin/v1/config/reload")).status_code == 200
    kept = await office.parts.catalog.version(job.catalog_version)
    assert kept.models["gpt-image-2"].routing.max_attempts == 4
    assert office.parts.catalog.get().models["gpt-image-2"].routing.max_attempts == 8


async def test_no_request_fails_or_sees_half_a_catalog_while_it_is_reloaded(office: Office) -> None:
    prices = {"low": 0.006, "medium": 0.053, "high": 0.211}
    is_over = asyncio.Event()

    async def reload() -> None:
        for number in range(12):
            catalog = _changed(max_attempts=number % 5 + 1)
            routes = catalog["models"]["gpt-image-2"]["routes"]
            routes[0]["prices"] = {"per_image": dict.fromkeys(prices, number % 5 + 1)}
            _write(office.parts, catalog)
            assert (await office.admin.post("/admin/v1/config/reload")).status_code == 200
        is_over.set()

    async def ask() -> int:
        count = 0
        while not is_over.is_set():
            wanted = {"model": "gpt-image-2", "prompt": f"a boat {count}"}
            taken = await office.team.post("/v1/images/generations?async=true", json=wanted)
            assert taken.status_code == 202, taken.text
            shown = (await office.team.get("/v1/models/gpt-image-2")).json()["darkroom"]
            price = shown["routes"][0]["prices"]["per_image"]["low"]
            assert price in ("0.006", str(shown["routing"]["max_attempts"]))
            count += 1
        return count

    counts = [asyncio.ensure_future(ask()) for _ in range(3)]
    await asyncio.gather(reload(), *counts)
    assert all(count.result() > 3 for count in counts)


@pytest.fixture
async def pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str, redis_url: str
) -> AsyncIterator[tuple[Office, Office]]:
    """Two processes on one Postgres and one Redis, each with a file of its own, equal at first."""
    monkeypatch.setenv("OPENAI_TEST_KEY", "sk-test")
    async with AsyncExitStack() as closing:
        offices = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            settings = write_settings(
                monkeypatch,
                folder,
                offline_catalog(),
                database_url=postgres_url,
                REDIS_URL=redis_url,
                STORAGE_URL=f"file://{tmp_path / 'store'}",
            )
            kitchen = await closing.enter_async_context(open_kitchen(settings, is_working=False))
            offices.append(await open_office(kitchen, closing))
        yield offices[0], offices[1]


async def test_every_process_follows_a_reload(pair: tuple[Office, Office]) -> None:
    first, second = pair
    _write(first.parts, _changed(max_attempts=9))
    version = (await first.admin.post("/admin/v1/config/reload")).json()["version"]
    followed = await _until(second.parts, version)
    assert followed.models["gpt-image-2"].routing.max_attempts == 9


async def test_a_process_finds_the_catalog_of_a_job_that_began_before_it_started(
    pair: tuple[Office, Office], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = pair
    began_with = first.parts.catalog.get().version
    _write(first.parts, _changed(max_attempts=9))
    version = (await first.admin.post("/admin/v1/config/reload")).json()["version"]
    await _until(second.parts, version)
    folder = tmp_path / "third"
    folder.mkdir()
    settings = write_settings(
        monkeypatch,
        folder,
        _changed(max_attempts=2),
        database_url=first.parts.settings.database_url,
        REDIS_URL=str(first.parts.settings.redis_url),
    )
    async with open_kitchen(settings, is_working=False) as third:
        found = await third.parts.catalog.version(began_with)
        assert found.version == began_with
        assert found.models["gpt-image-2"].routing.max_attempts == 4
        # The last one to start decides.
        assert (await _until(first.parts, third.parts.catalog.get().version)).version not in (
            began_with,
            version,
        )


async def test_maintenance_holds_in_every_process(pair: tuple[Office, Office]) -> None:
    first, second = pair
    await first.admin.post("/admin/v1/maintenance", json={"drain": True})
    wanted = {"model": "gpt-image-2", "prompt": "a boat"}
    refused = await second.team.post("/v1/images/generations?async=true", json=wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert (await second.admin.get("/admin/v1/maintenance")).json()["drain"] is True


async def test_a_revoked_key_is_soon_refused_in_every_process(pair: tuple[Office, Office]) -> None:
    first, second = pair
    made = (await first.admin.post("/admin/v1/keys", json={"team_id": "default", "name": "x"})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await second.anonymous.get("/v1/models", headers=headers)).status_code == 200
    await first.admin.delete(f"/admin/v1/keys/{made['id']}")
    # At once by an event; should that be lost, the second process forgets by itself.
    async with asyncio.timeout(CACHED_S + 1):
        while (await second.anonymous.get("/v1/models", headers=headers)).status_code != 401:
            continue


async def test_a_waiting_job_is_bought_by_the_catalog_that_it_was_admitted_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str
) -> None:
    monkeypatch.setenv("OPENAI_TEST_KEY", "sk-test")
    async with OpenAi(api_key="sk-test") as vendor:
        settings = write_settings(
            monkeypatch, tmp_path, catalog_of({"openai": vendor}), database_url=database_url
        )
        async with open_kitchen(settings, is_working=False) as kitchen:
            job = await kitchen.order(size="1024x1024", quality="low")
            moved = catalog_of({"openai": vendor})
            moved["upstreams"]["elsewhere"] = moved["upstreams"].pop("openai")
            moved["models"]["gpt-image-2"]["routes"][0] |= {"upstream": "elsewhere", "model": "other"}
            _write(kitchen.parts, moved)
            await kitchen.parts.catalogs.reload()
            async with in_background(kitchen.parts.engine.run()):
                view = await kitchen.served(job)
                later = await kitchen.served(await kitchen.order(size="1024x1024", quality="low"))
    assert view.job.status is Status.SUCCEEDED
    assert [item.upstream for item in view.attempts] == ["openai"]
    assert [item.cost_micros for item in view.attempts] == [6000]
    assert {item.upstream for item in later.attempts} == {"elsewhere"}


async def test_a_check_without_a_file_looks_at_this_processs_own(office: Office) -> None:
    version = office.parts.catalog.get().version
    found = (await office.admin.post("/admin/v1/config/check")).json()
    assert (found["valid"], found["version"]) == (True, version)
    _write(office.parts, _changed(policy="dearest"))
    found = (await office.admin.post("/admin/v1/config/check")).json()
    assert (found["valid"], found["mistakes"][0]["key"]) == (False, "models.gpt-image-2.routing.policy")


async def test_a_dry_run_of_a_reload_puts_nothing_in_force(office: Office) -> None:
    before = office.parts.catalog.get()
    path = "/admin/v1/config/reload?dry_run=true"
    same = (await office.admin.post(path)).json()
    assert (same["version"], same["would"]) == (
        before.version,
        {"version": before.version, "is_changed": False},
    )
    _write(office.parts, _changed(max_attempts=7))
    other = (await office.admin.post(path)).json()
    assert (other["version"], other["would"]["is_changed"]) == (before.version, True)
    _write(office.parts, _changed(max_attempts=0))
    assert (await office.admin.post(path)).status_code == 400
    assert office.parts.catalog.get() is before
    assert await office.audit() == []


async def test_a_reload_by_signal_is_written_down_as_the_processs_own(office: Office) -> None:
    by_signal = Configuration(office.parts.catalogs, Audit(office.parts.database), process="host:1")
    _write(office.parts, _changed(max_attempts=0))
    office.parts.catalogs.reload_soon(by_signal.reload_by_signal)
    await _looked(office)
    _write(office.parts, _changed(max_attempts=9))
    good = (await office.parts.catalogs.check(None)).version
    office.parts.catalogs.reload_soon(by_signal.reload_by_signal)
    await _until(office.parts, good)
    refused, reloaded = await office.audit()
    process = {"key_id": None, "key_name": None, "process": "host:1"}
    assert (refused["action"], refused["actor"]) == ("config.reload_refused", process)
    assert (reloaded["action"], reloaded["actor"]) == ("config.reloaded", process)
    assert reloaded["after"]["version"] == good
