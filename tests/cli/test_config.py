"""`darkroom config check`."""

import shutil
from pathlib import Path

import pytest

from tests.catalog.shipped import FILE
from tests.cli.command import darkroom

SMALL = """\
version: 1
upstreams:
  shop:
    adapter: openai
    base_url: https://shop.example/v1
    api_key: env:SHOP_KEY
    max_concurrency: 5
    timeout_s: 60
  sandbox:
    adapter: sandbox
    base_url: http://sandbox.invalid/v1
    max_concurrency: 5
    timeout_s: 60
models:
  sketch:
    capabilities:
      sizes: [1024x1024]
    routes:
      - upstream: shop
        model: sketch-1
"""
PRODUCTION = {
    "DARKROOM_DATABASE_URL": "postgresql://db/darkroom",
    "DARKROOM_API_KEY": "an-api-key-0f3b9c27d1e84a65b2c7e9",
    "DARKROOM_ADMIN_KEY": "an-admin-key-7c1de0459ab3f26688d1",
    "DARKROOM_SECRET_KEY": "a-signing-secret-4be1c09f7d2a83561",
}


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(SMALL)
    return path


def test_the_shipped_catalog_is_fine_and_found_by_default(folder: Path) -> None:
    (folder / "config").mkdir()
    shutil.copy(FILE, folder / "config")

    ended = darkroom("config", "check")

    assert ended.code == 0, ended.err
    assert ended.out.startswith("config/gateway.yaml is fine:")
    assert not (folder / "data").exists()


def test_an_upstream_that_is_off_says_what_turns_it_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = darkroom("config", "check", str(file))
    monkeypatch.setenv("SHOP_KEY", "a-key")
    on = darkroom("config", "check", str(file))

    assert "  shop     off: set SHOP_KEY\n  sandbox  on\n" in off.out
    assert "  sketch   served by the sandbox until a key is set; else shop (off)\n" in off.out
    assert "  shop     on\n" in on.out
    assert "  sketch   shop\n" in on.out


def test_in_production_a_model_without_a_key_is_not_available(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)

    assert "  sketch   not available: shop (off)\n" in darkroom("config", "check", str(file)).out


def test_each_mistake_is_told_with_its_place_and_its_fix(file: Path) -> None:
    file.write_text(
        SMALL.replace("adapter: openai", "adapter: opnai").replace("timeout_s: 60", "timeout_s: 0")
    )

    ended = darkroom("config", "check", str(file))

    assert ended.code == 1
    assert not ended.out
    *mistakes, count = ended.err.splitlines()
    assert [said.split(": ")[:2] for said in mistakes] == [
        ["gateway.yaml:4", "upstreams.shop.adapter"],
        ["gateway.yaml:8", "upstreams.shop.timeout_s"],
        ["gateway.yaml:13", "upstreams.sandbox.timeout_s"],
    ]
    assert "openai" in mistakes[0]
    assert count == f"3 mistakes in {file}."


def test_a_wrong_option_of_the_sandbox_is_a_mistake_too(file: Path) -> None:
    text = SMALL.replace(
        "http://sandbox.invalid/v1\n", "http://sandbox.invalid/v1\n    options: {delay: 3}\n"
    )
    file.write_text(text)

    ended = darkroom("config", "check", str(file))

    assert ended.code == 1
    assert "upstreams.sandbox.options" in ended.err
    assert ended.err.endswith(f"1 mistake in {file}.\n")


def test_a_missing_file_is_a_mistake() -> None:
    ended = darkroom("config", "check", "nowhere.yaml")

    assert ended.code == 1
    assert "cannot be read" in ended.err


def test_wrong_settings_are_told_before_the_catalog(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_PORT", "none")

    ended = darkroom("config", "check", str(file))

    assert ended.code == 1
    assert ended.err.startswith("The settings cannot be used:\n  DARKROOM_PORT cannot be 'none'.")
