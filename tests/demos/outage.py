"""An outage, told by the gateway's own log: two vendors fail, the third delivers, the first comes back.

`python -m tests.demos.outage` prints what `docs/outage.md` quotes, with ids numbered and without times.
"""

import asyncio
import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from app.db.migrate import upgrade
from app.kit.telemetry import configure_logging
from tests.house import House, opener, pass_time
from tests.simulators.openai import OpenAi
from tests.simulators.therouter import TheRouter
from tests.simulators.xairouter import XaiRouter

_JOB_ID: Final = re.compile(r"\bjob_[0-9a-z]{20,}")
_LEFT_OUT: Final = frozenset({"at", "level", "logger", "event", "attempt_id", "round", "pictures"})
"""What is the same on every line, or different at every run."""
_PICTURE: Final[dict[str, Any]] = {
    "model": "gpt-image-2",
    "prompt": "a lighthouse",
    "quality": "low",
    "size": "1024x1024",
}


class _Story:
    """The log, read as it is written."""

    def __init__(self, log: io.StringIO) -> None:
        self._log = log
        self._read = 0
        self._ids: dict[str, str] = {}

    def chapter(self, title: str) -> Iterator[str]:
        """A title, and what the gateway has logged since the last one."""
        yield f"# {title}"
        written = self._log.getvalue()
        for line in written[self._read :].splitlines():
            entry = json.loads(line)
            if entry["event"].startswith(("attempt.", "upstream.")):
                facts = [f"{name}={entry[name]}" for name in entry if name not in _LEFT_OUT]
                yield _JOB_ID.sub(
                    self._numbered, f"{entry['event']:<19} {' '.join(sorted(facts, key=_rank))}"
                )
        self._read = len(written)
        yield ""

    def _numbered(self, found: re.Match[str]) -> str:
        return self._ids.setdefault(found[0], f"job_{len(self._ids) + 1}")


def _rank(fact: str) -> tuple[int, str]:
    """Who comes first, then what happened, then the ids."""
    name = fact.partition("=")[0]
    order = ("upstream", "failure", "reason", "detail", "status", "cost_micros", "model", "for_s")
    return (order.index(name) if name in order else len(order), fact)


async def _lived_through(folder: Path, log: io.StringIO) -> list[str]:
    database_url = f"sqlite:///{folder / 'demo.db'}"
    await asyncio.to_thread(upgrade, database_url)
    story = _Story(log)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        house = opener(patch, folder, database_url)
        async with (
            OpenAi(api_key="sk-first") as first,
            XaiRouter(api_key="sk-second") as second,
            TheRouter(api_key="sk-third") as third,
            house(first, second, third) as running,
        ):
            first.script(*["503"] * 5)
            second.script("429:30")
            for number in range(1, 7):
                await _bought(running)
                lines += story.chapter(f"Picture {number}")
            lines += await _explained(running)
            await pass_time(running.kitchen.parts.database, 31)
            await _bought(running)
            lines += story.chapter("Picture 7, half a minute later")
            lines.append("# What each vendor was asked for, and made")
            lines += [
                f"{vendor.name:<9} {vendor.ledger.posts} asked  {vendor.ledger.pictures} made"
                for vendor in (first, second, third)
            ]
    return lines


async def _bought(house: House) -> None:
    """Buy a picture as a client does, and wait until the gateway has noted down how it went."""
    answer = await house.sdk.images.with_raw_response.generate(**_PICTURE)
    while house.kitchen.parts.engine.running:  # noqa: ASYNC110 - nobody announces it
        await asyncio.sleep(0.01)
    assert answer.parse().data


async def _explained(house: House) -> list[str]:
    answer = (await house.client.post("/v1/images/route", json=_PICTURE)).json()
    asked = ", ".join(route["upstream"] for route in answer["routes"])
    reasons = [f"left out: {item['kind']:<6} {item['reason']}" for item in answer["left_out"]]
    return ["# POST /v1/images/route, after picture 6", f"asked:    {asked}", *reasons, ""]


def told() -> str:
    """Live through the outage, and tell it."""
    log = io.StringIO()
    with contextlib.redirect_stderr(log), tempfile.TemporaryDirectory() as folder:
        configure_logging("json")
        lines = asyncio.run(_lived_through(Path(folder), log))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(told())
