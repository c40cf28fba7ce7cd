"""The page on metrics names what a process exports, all of it and nothing else."""

import re
from pathlib import Path
from typing import Final

import pytest

from app.assembly import assemble
from tests.admin.conftest import offline_catalog
from tests.docs.pages import DOCS
from tests.kitchen import write_settings

PAGE: Final = (DOCS / "observability.md").read_text(encoding="utf-8")
_ROW: Final = re.compile(r"^\| `(darkroom_\w+)` \|([^|]*)\| ([^|]+) \|$", re.MULTILINE)
_SUFFIX: Final = {"counter": "_total", "info": "_info"}
_OF_A_HISTOGRAM: Final = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture
async def exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> dict[str, str]:
    """The names under which an API process, which is a worker as well, exports its metrics, and their types."""
    settings = write_settings(monkeypatch, tmp_path, offline_catalog(), database_url=sqlite_url)
    async with assemble(settings) as parts:
        return {
            family.name + _SUFFIX.get(family.type, ""): family.type
            for family in parts.registry.collect()
            if family.name.startswith("darkroom_")
        }


def test_every_metric_stands_on_the_page_and_nothing_else(exported: dict[str, str]) -> None:
    written = {name: meaning for name, _, meaning in _ROW.findall(PAGE)}
    assert written.keys() == exported.keys()
    histograms = {name for name, meaning in written.items() if meaning.startswith("histogram: ")}
    assert histograms == {name for name, kind in exported.items() if kind == "histogram"}


def test_the_alerts_ask_for_metrics_that_there_are(exported: dict[str, str]) -> None:
    named = set(re.findall(r"\bdarkroom_[a-z_]+", PAGE))
    assert {name for name in named if _OF_A_HISTOGRAM.sub("", name) not in exported} == set()
