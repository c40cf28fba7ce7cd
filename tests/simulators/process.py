"""A simulator in a process of its own, and its control API from here."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.simulators.script import Occasion

_START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSimulator:
    """A running simulator, told and asked over HTTP."""

    name: str
    base_url: str
    api_key: str

    async def ledger(self, *, calls: bool = False) -> dict[str, Any]:
        """Read the ledger: totals, `attempts` by id, and the `calls` if asked."""
        reply = await self._ask("GET", "ledger?calls=1" if calls else "ledger")
        ledger: dict[str, Any] = reply.json()
        return ledger

    async def script(
        self,
        *steps: str,
        on: Occasion = "purchase",
        chances: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Queue steps, and set the chances if given."""
        wanted: dict[str, Any] = {"steps": steps, "on": on}
        if chances is not None:
            wanted |= {"chances": chances, "seed": seed}
        await self._ask("POST", "script", wanted)

    async def release(self) -> None:
        """Let every call go on that hangs."""
        await self._ask("POST", "release")

    async def reset(self) -> None:
        """Forget the script and the ledger."""
        await self._ask("POST", "reset")

    async def _ask(self, method: str, control: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
        url = f"{self.base_url.removesuffix('/v1')}/_sim/{control}"
        async with httpx2.AsyncClient(trust_env=False) as client:
            reply = await client.request(method, url, json=body)
        reply.raise_for_status()
        return reply


@asynccontextmanager
async def running(name: str, *options: str) -> AsyncIterator[RemoteSimulator]:
    """Run `python -m tests.simulators.NAME OPTIONS` and stop it afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.simulators.{name}", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
        yield RemoteSimulator(**json.loads(line))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
