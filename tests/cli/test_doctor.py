"""`darkroom doctor` and `darkroom migrate`, on real databases and a real Redis."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.cli import checks
from app.settings import Settings
from tests.cli.command import darkroom
from tests.cli.gateway import FakeGateway, error
from tests.cli.test_config import PRODUCTION, SMALL


@pytest.fixture(autouse=True)
def catalog(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog with one vendor and the sandbox."""
    path = folder / "gateway.yaml"
    path.write_text(SMALL)
    monkeypatch.setenv("DARKROOM_CONFIG", str(path))
    return path


def findings(*arguments: str) -> dict[str, dict[str, Any]]:
    """The last finding of each check."""
    ended = darkroom("doctor", "--json", *arguments)
    assert ended.json["ok"] is (ended.code == 0)
    return {finding["check"]: finding for finding in ended.json["checks"]}


def verdicts() -> dict[str, str]:
    return {check: finding["verdict"] for check, finding in findings().items()}


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(folder: Path) -> None:
    assert verdicts() == {
        "settings": "ok",
        "catalog": "ok",
        "database": "off",
        "redis": "off",
        "storage": "off",
        "upstream shop": "off",
        "upstream sandbox": "ok",
    }
    assert [each.name for each in folder.iterdir()] == ["gateway.yaml"]


def test_after_migrate_the_embedded_default_is_healthy(folder: Path) -> None:
    migrated = darkroom("migrate")
    again = darkroom("migrate")

    assert migrated.out == again.out
    assert "newest revision" in migrated.out
    assert (folder / "data" / "darkroom.db").exists()
    assert (findings()["database"]["verdict"], findings()["clock"]["verdict"]) == ("ok", "ok")


def test_settings_that_cannot_be_used_are_a_finding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_PORT", "abc")
    found = findings()
    assert set(found) == {"settings"}
    assert found["settings"]["verdict"] == "fail"
    assert "DARKROOM_PORT cannot be 'abc'" in found["settings"]["detail"]


def test_for_people_each_finding_is_a_line_with_its_fix_below() -> None:
    ended = darkroom("doctor")

    assert ended.code == 0
    assert "off   upstream shop     SHOP_KEY is not set\n" in ended.out
    assert "Set SHOP_KEY to turn it on." in ended.out


def in_production(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: str) -> None:
    storage = {
        "DARKROOM_STORAGE_URL": (folder / "pictures").as_uri(),
        "DARKROOM_PUBLIC_URL": "https://x.example",
    }
    for name, value in {**PRODUCTION, **storage, **changes}.items():
        monkeypatch.setenv(name, value)


def test_production_is_healthy(
    monkeypatch: pytest.MonkeyPatch, folder: Path, postgres_url: str, redis_url: str
) -> None:
    in_production(monkeypatch, folder, DARKROOM_DATABASE_URL=postgres_url, DARKROOM_REDIS_URL=redis_url)

    found = findings()

    assert {found[check]["verdict"] for check in ("settings", "database", "clock", "redis", "storage")} == {
        "ok"
    }
    assert found["catalog"]["detail"].endswith("nothing can serve sketch")
    assert found["catalog"]["fix"] == "Set one of SHOP_KEY."


def test_a_database_without_tables_wants_to_be_migrated(
    monkeypatch: pytest.MonkeyPatch, folder: Path, empty_postgres_url: str
) -> None:
    in_production(monkeypatch, folder, DARKROOM_DATABASE_URL=empty_postgres_url)

    before = findings()["database"]
    darkroom("migrate")

    assert (before["verdict"], before["fix"]) == ("fail", "Run `darkroom migrate`.")
    assert findings()["database"]["verdict"] == "ok"


@pytest.mark.parametrize(
    "revision, verdict, said",
    [("0001", "fail", "Run `darkroom migrate`."), ("9999", "warn", "start the newer one soon")],
)
def test_an_older_schema_wants_to_be_migrated_and_a_newer_one_a_newer_release(
    folder: Path, revision: str, verdict: str, said: str
) -> None:
    darkroom("migrate")
    with closing(sqlite3.connect(folder / "data" / "darkroom.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    found = findings("--integrity")

    assert (found["database"]["verdict"], said in found["database"]["fix"]) == (verdict, True)
    assert found["integrity"]["verdict"] == "off"


def test_promises_are_looked_through_once_there_are_any() -> None:
    before = findings("--integrity")["integrity"]
    darkroom("migrate")

    assert before["verdict"] == "off"
    assert findings("--integrity")["integrity"]["verdict"] == "ok"


@pytest.mark.parametrize("ahead_s, verdict", [(3, "warn"), (-30, "fail")])
def test_a_clock_that_differs_from_the_databases_is_told(
    monkeypatch: pytest.MonkeyPatch, folder: Path, postgres_url: str, ahead_s: int, verdict: str
) -> None:
    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # no subclass is needed
            return datetime.now(tz) + timedelta(seconds=ahead_s)

    in_production(monkeypatch, folder, DARKROOM_DATABASE_URL=postgres_url)
    monkeypatch.setattr(checks, "datetime", Skewed)

    clock = findings()["clock"]

    assert clock["verdict"] == verdict
    assert ("ahead of" if ahead_s > 0 else "behind") in clock["detail"]


def test_what_does_not_answer_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    in_production(
        monkeypatch,
        folder,
        DARKROOM_DATABASE_URL="postgresql://darkroom:hunter2@127.0.0.1:9/darkroom",
        DARKROOM_REDIS_URL="redis://:hunter2@127.0.0.1:9/0",
    )

    ended = darkroom("doctor")

    assert ended.code == 1
    assert "fail  database          The database does not answer\n" in ended.out
    assert "fail  redis" in ended.out
    assert "Check DARKROOM_REDIS_URL." in ended.out
    assert "hunter2" not in ended.out
    migrated = darkroom("migrate")
    assert (migrated.code, "does not answer" in migrated.err) == (1, True)


def test_a_refused_user_and_a_missing_database_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, folder: Path, postgres_url: str
) -> None:
    parts = urlsplit(postgres_url)
    in_production(monkeypatch, folder, DARKROOM_DATABASE_URL=parts._replace(path="/nowhere").geturl())
    missing = findings()["database"]

    assert missing["detail"] == "There is no database of that name on the server"
    assert "no database of that name" in darkroom("migrate").err


def test_an_upstream_that_knows_the_key_is_fine(
    monkeypatch: pytest.MonkeyPatch, catalog: Path, gateway: FakeGateway
) -> None:
    catalog.write_text(SMALL.replace("https://shop.example/v1", f"{gateway.url}/v1"))
    monkeypatch.setenv("SHOP_KEY", "the-key-of-the-shop")
    gateway.refusal = (200, {"object": "list", "data": []})

    assert findings()["upstream shop"]["verdict"] == "ok"
    (asked,) = gateway.asked
    assert (asked.method, asked.path) == ("GET", "/v1/models")
    assert asked.headers["authorization"] == "Bearer the-key-of-the-shop"


@pytest.mark.parametrize("status, verdict", [(401, "fail"), (403, "fail"), (404, "ok"), (503, "warn")])
def test_an_upstream_is_judged_by_its_answer(
    monkeypatch: pytest.MonkeyPatch, catalog: Path, gateway: FakeGateway, status: int, verdict: str
) -> None:
    catalog.write_text(SMALL.replace("https://shop.example/v1", f"{gateway.url}/v1"))
    monkeypatch.setenv("SHOP_KEY", "the-key-of-the-shop")
    gateway.refusal = (status, error("no", "no"))

    found = findings()["upstream shop"]

    assert found["verdict"] == verdict
    assert "the-key-of-the-shop" not in str(found)


def test_an_upstream_that_cannot_be_reached_fails(monkeypatch: pytest.MonkeyPatch, catalog: Path) -> None:
    catalog.write_text(SMALL.replace("https://shop.example/v1", "http://127.0.0.1:9/v1"))
    monkeypatch.setenv("SHOP_KEY", "the-key-of-the-shop")

    found = findings()["upstream shop"]

    assert (found["verdict"], "does not answer" in found["detail"]) == ("fail", True)


def test_a_catalog_with_mistakes_does_not_hide_the_rest(catalog: Path) -> None:
    catalog.write_text("version: 2")

    found = verdicts()

    assert (found["catalog"], found["database"]) == ("fail", "off")


def test_secrets_that_others_can_read_and_misspelled_names_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Settings.load().secrets_file.chmod(0o644)
    monkeypatch.setenv("DARKROOM_DATABSE_URL", "postgresql://db")

    ended = darkroom("doctor")

    assert "can be read by others (mode 0644)" in ended.out
    assert "Did you mean DARKROOM_DATABASE_URL?" in ended.out


def test_storage_that_is_not_writable_fails(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "taken").write_text("a file")
    nowhere = "postgresql://127.0.0.1:9/darkroom"
    taken = (folder / "taken").as_uri()
    in_production(monkeypatch, folder, DARKROOM_DATABASE_URL=nowhere, DARKROOM_STORAGE_URL=taken)

    storage = findings()["storage"]

    assert (storage["verdict"], "another place" in storage["fix"]) == ("fail", True)
    assert "Errno" not in storage["detail"]
