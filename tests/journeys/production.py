"""Processes of the product as operators start them, each in a folder of its own with its settings in `.env`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.chaos.cluster import Member

DARKROOM: Final = str(Path(sys.executable).with_name("darkroom"))
_UP_WITHIN_S: Final = 90.0


def member(folder: Path, name: str, command: str, settings: Mapping[str, str]) -> Member:
    """A process of `darkroom serve` or `darkroom worker`, still to be started."""
    (folder / name).mkdir()
    lines = [f"{variable}='{value}'" for variable, value in settings.items()]
    (folder / name / ".env").write_text("\n".join(lines), encoding="utf-8")
    ready = b"server.started" if command == "serve" else b"worker.started"
    return Member(name, (DARKROOM, command), folder / name, ready)


async def come_up(*members: Member) -> None:
    """Start processes, and wait until they have come up."""
    for each in members:
        each.start()
    async with asyncio.timeout(_UP_WITHIN_S):
        for each in members:
            while not each.is_ready():
                assert each.ended_with() is None, each.everything_printed()[-3000:]
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(*members: Member) -> AsyncIterator[None]:
    """Run processes while the context is open."""
    try:
        await come_up(*members)
        yield
    finally:
        for each in members:
            await each.kill()
