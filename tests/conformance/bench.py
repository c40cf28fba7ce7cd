"""Buys pictures through an adapter, the real caller and a real connection, without jobs, clocks or a database."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from app.catalog.entries import Route
from app.domain.requests import ImageRequest
from app.kit.http import GuardedClient
from app.kit.streams import SizedStream
from app.routing.candidates import pictures_per_call
from app.upstreams.caller import Caller, FetchFailed, PollFailed
from app.upstreams.contract import Call, Finished, RemotePicture, Reply, Target, Waiting
from app.upstreams.registry import adapter
from tests.conformance.vendors import KEY, Speech
from tests.simulators.pictures import picture
from tests.simulators.wire import Answer, Origin, Request

INPUTS: Final = {
    "file_a": picture(64, 48, "png", seed=1, mark="a"),
    "file_b": picture(32, 32, "jpeg", seed=2, mark="b"),
    "file_mask": picture(64, 48, "png", seed=3, mark="m", transparent=True),
}
"""Stored inputs; the mask fits the first."""

_MOST_POLLS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What one attempt brought."""

    finished: Finished
    pictures: tuple[bytes, ...]
    waits_s: tuple[float, ...]
    """The pauses that the adapter asked for, none of which was made."""


class Bench:
    """An adapter before its simulator."""

    def __init__(self, caller: Caller, route: Route, spool_dir: Path, links: Origin, can_link: bool) -> None:
        self.route = route
        self.spool_dir = spool_dir
        self.links = links
        self.sent = 0
        self._caller = caller
        self._adapter = adapter(route.upstream.adapter)
        self._can_link = can_link
        self._attempts = 0

    async def buy(self, request: ImageRequest, *, timeout_s: float = 30.0) -> list[Purchase]:
        """Buy all pictures of a request, in as many attempts as the route needs; the first failure ends it."""
        purchases: list[Purchase] = []
        left = request.n
        while left > 0:
            pictures = min(left, pictures_per_call(self.route, request))
            purchases.append(await self._attempt(request, pictures, timeout_s))
            left -= pictures
        return purchases

    def left_behind(self) -> list[Path]:
        """The spool files that nobody removed."""
        return list(self.spool_dir.iterdir()) if self.spool_dir.exists() else []

    async def _attempt(self, request: ImageRequest, pictures: int, timeout_s: float) -> Purchase:
        self._attempts += 1
        attempt_id = f"att_{self._attempts}"
        target = Target(
            base_url=self.route.upstream.base_url,
            model=self.route.model,
            pictures=pictures,
            options=self.route.upstream.options,
            can_link=self._can_link,
        )
        call = self._adapter.submit(request, target)
        outcome = self._adapter.read(await self._send(call, attempt_id, timeout_s, pictures), None)
        waits_s: list[float] = []
        ticket = outcome.ticket if isinstance(outcome, Waiting) else None
        for _ in range(_MOST_POLLS):
            if isinstance(outcome, Finished):
                try:
                    found = tuple([await self._bytes_of(remote) for remote in outcome.pictures])
                    return Purchase(finished=outcome, pictures=found, waits_s=tuple(waits_s))
                except FetchFailed:
                    if ticket is None:
                        raise
            else:
                waits_s.append(outcome.poll_after_s)
            assert ticket is not None
            resume = self._adapter.resume(ticket, target)
            try:
                outcome = self._adapter.read(
                    await self._send(resume, attempt_id, timeout_s, pictures), ticket
                )
            except PollFailed:
                outcome = Waiting(ticket=ticket, poll_after_s=0.0)
        raise AssertionError("the order never ended")

    async def _send(self, call: Call, attempt_id: str, timeout_s: float, pictures: int) -> Reply:
        return await self._caller.call(
            call,
            upstream=self.route.upstream,
            api_key=KEY,
            attempt_id=attempt_id,
            timeout_s=timeout_s,
            spool_dir=self.spool_dir,
            pictures=pictures,
            on_sent=self._mark_sent,
        )

    async def _bytes_of(self, remote: RemotePicture) -> bytes:
        source = remote.source
        if isinstance(source, str):
            source = await self._caller.fetch(
                source, upstream=self.route.upstream, api_key=KEY, spool_dir=self.spool_dir
            )
        data = await asyncio.to_thread(source.path.read_bytes)
        await asyncio.to_thread(source.path.unlink)
        return data

    def _mark_sent(self) -> None:
        self.sent += 1


@asynccontextmanager
async def a_bench(
    speech: Speech, base_url: str, spool_dir: Path, *, can_link: bool = True, **options: Any
) -> AsyncGenerator[Bench]:
    """Set an adapter before the simulator at `base_url`; `options` are added to its upstream's."""
    route = speech.route(base_url)
    route.upstream.options.update(options)  # type: ignore[attr-defined] # a dict of its own, made by `route`
    links = Origin(_Links())
    await links.start()

    async def link(file_id: str) -> str:
        return f"{links.url}/{file_id}"

    # Result links lead to another port of this machine.
    client = GuardedClient(allow_networks=[ip_network("127.0.0.0/8")])
    caller = Caller(client, _Inputs(), links=link, sleep=_no_sleep)
    try:
        yield Bench(caller, route, spool_dir / "spool", links, can_link)
    finally:
        await client.aclose()
        await links.stop()


def inputs_of(body: Any, links: Origin) -> list[bytes]:
    """The input pictures that a vendor was handed, the mask last, in whichever way they came."""
    if "files" in body:
        return [upload.content for upload in body["files"]]
    references = body.get("imageUrls") or body.get("images") or []
    mask = body.get("maskUrl") or body.get("mask")
    return [_input(reference, links) for reference in [*references, *([mask] if mask else [])]]


def _input(reference: Any, links: Origin) -> bytes:
    url = reference["image_url"] if isinstance(reference, dict) else reference
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    return INPUTS[url.removeprefix(f"{links.url}/")]


async def _no_sleep(_: float) -> None:
    pass


class _Inputs:
    """The gateway's storage."""

    async def open(self, file_id: str) -> SizedStream:
        """Hand out an input in two pieces."""
        data = INPUTS[file_id]

        async def chunks() -> AsyncIterator[bytes]:
            yield data[:100]
            yield data[100:]

        return SizedStream(len(data), chunks())


class _Links:
    """The gateway's public address, where vendors fetch inputs."""

    def accepted(self) -> None:
        """Let every connection in."""

    def announced(self, request: Request) -> None:
        """Let every request in."""

    async def handle(self, request: Request) -> Answer:
        """Hand out an input."""
        return Answer(headers={"content-type": "image/png"}, pieces=(INPUTS[request.path[1:]],))
