"""Buys one small picture straight from a vendor, without a gateway, and writes down what was said.

For `darkroom upstreams check --buy`: the one proof that our reading of a vendor's format is right.
"""

import asyncio
import contextlib
import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit, urlunsplit

from app.assets.errors import PictureBroken
from app.assets.inspection import inspect
from app.catalog.entries import Model, Route, Upstream
from app.catalog.pricing import Cost, actual
from app.cli.catalog import CheckedCatalog
from app.cli.errors import CommandFailed, UsageMistake
from app.domain.failures import UpstreamFailure
from app.domain.pictures import Size
from app.domain.requests import ImageRequest
from app.kit.http import GuardedClient
from app.kit.ids import new_id
from app.kit.streams import SizedStream
from app.settings import Settings
from app.upstreams.caller import Caller, FetchFailed, PollFailed
from app.upstreams.contract import Blob, Call, Finished, JsonBody, Reply, Target, Waiting
from app.upstreams.registry import adapter

_PROMPT: Final = "A plain grey circle on a white background."
_SMALL: Final = Size(1024, 1024)
"""Offered by every model so far; larger ones cost more, and many have a floor of pixels."""
_CHEAP: Final = "low"

# What a reply tells about its maker's software and its limits; everything else may tell of an account.
_HEADERS_KEPT: Final = frozenset({"content-type", "date", "retry-after", "retry-after-ms"})
_LINK: Final = re.compile(r"https?://\S+")
# 2x2 pixels, in the place of every picture: an adapter still reads the sample as it read the reply.
_STAND_IN: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGPUmtvPwMDAxMDAwMDAAAAP"
    "zQFaLDVDUQAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """One picture, bought."""

    model: str
    """The name that the upstream knows."""
    format: str
    size: str
    cost: Cost
    took_s: float
    samples: tuple[Path, ...]
    """The exchange: one file per reply, as the repository keeps samples, without secrets, links and pictures."""


def cheapest_route(
    checked: CheckedCatalog, upstream: Upstream, public_name: str | None
) -> tuple[Model, Route]:
    """Choose what to buy at an upstream: the named model, else the first one of the catalog that it sells.

    Raises:
        UsageMistake: it sells no such model.
    """
    sold = [
        (model, route)
        for model in checked.catalog.models.values()
        for route in model.routes
        if route.upstream.name == upstream.name and route.supports.generations
    ]
    wanted = None if public_name is None else checked.catalog.names.get(public_name)
    for model, route in sold:
        if public_name is None or model.name == wanted:
            return model, route
    known = ", ".join(model.name for model, _ in sold) or "none that makes pictures from a prompt"
    raise UsageMistake(f"The upstream {upstream.name!r} does not sell that model. It sells: {known}.")


async def buy_one(settings: Settings, checked: CheckedCatalog, model: Model, route: Route) -> Purchase:
    """Buy one picture of low quality, and write the exchange down under DATA_DIR/samples.

    Raises:
        CommandFailed: no picture came of it; says why, and where the exchange is written down.
    """
    client = GuardedClient(allow_networks=settings.allow_networks)
    record = _Record(route, settings.data_dir / "samples" / route.upstream.name)
    try:
        with tempfile.TemporaryDirectory() as spool:
            counter = _Counter(
                Caller(client, _NoInputs(), links=_no_links), checked, route, record, Path(spool)
            )
            try:
                async with asyncio.timeout(route.upstream.timeout_s):
                    return await counter.buy(model)
            except (UpstreamFailure, FetchFailed, PictureBroken) as exc:
                raise CommandFailed(f"No picture from {route.upstream.name}: {exc}. {record.told()}") from exc
            except TimeoutError as exc:
                raise CommandFailed(
                    f"No picture from {route.upstream.name} within {route.upstream.timeout_s:g} s; "
                    f"it may have been paid for. {record.told()}"
                ) from exc
    finally:
        await client.aclose()


@dataclass
class _Record:
    """The exchange, as it goes into files."""

    route: Route
    folder: Path
    paths: list[Path] = field(default_factory=list)

    def told(self) -> str:
        """Where it is, for people."""
        return f"The exchange is in {self.folder}." if self.paths else "Nothing was answered."

    def write(self, call: Call, reply: Reply, ticket: str | None, outcome: str) -> None:
        """Write one call and its reply."""
        at = datetime.now(UTC)
        sample: dict[str, Any] = {
            "source": f"recorded by `darkroom upstreams check {self.route.upstream.name} --buy`",
            "read_on": at.date().isoformat(),
            "how": "recorded; links lost their signatures, pictures are 2x2 pixels of ours",
            "request": {
                "method": call.method,
                "path": urlsplit(call.url).path,
                "body": _redacted(call.body.value) if isinstance(call.body, JsonBody) else None,
            },
        }
        if ticket is not None:
            sample["ticket"] = ticket
        headers = {name: value for name, value in reply.headers.items() if name in _HEADERS_KEPT}
        sample["reply"] = {"status": reply.status, "headers": headers}
        sample["reply"] |= {"body": _redacted(reply.body)} if reply.is_json else {"text": ""}
        sample["outcome"] = outcome
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{at:%Y%m%dT%H%M%S}-{len(self.paths) + 1}.json"
        path.write_text(json.dumps(sample, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self.paths.append(path)


class _Counter:
    """Where one picture is bought."""

    def __init__(
        self, caller: Caller, checked: CheckedCatalog, route: Route, record: _Record, spool: Path
    ) -> None:
        self._caller = caller
        self._key = checked.keys.key(route.upstream)
        self._route = route
        self._record = record
        self._spool = spool
        self._adapter = adapter(route.upstream.adapter)
        self._attempt_id = new_id("att")

    async def buy(self, model: Model) -> Purchase:
        """Buy it, follow the order, fetch the picture, and price it."""
        began = time.monotonic()
        upstream = self._route.upstream
        request = _request(model, self._route)
        target = Target(
            base_url=upstream.base_url, model=self._route.model, pictures=1, options=upstream.options
        )
        outcome = await self._ask(self._adapter.submit(request, target), None)
        while isinstance(outcome, Waiting):
            ticket, chosen = outcome.ticket, upstream.options.get("poll_every_s")
            await asyncio.sleep(chosen if isinstance(chosen, int | float) else outcome.poll_after_s)
            # A poll that fails says nothing of the order.
            with contextlib.suppress(PollFailed):
                outcome = await self._ask(self._adapter.resume(ticket, target), ticket)
        picture = await self._picture(outcome)
        found = await asyncio.to_thread(inspect, picture.path)
        return Purchase(
            model=self._route.model,
            format=found.format.value,
            size=f"{found.width_px}x{found.height_px}",
            cost=actual(
                self._route,
                model,
                request,
                1,
                usage=outcome.usage,
                cost_usd=outcome.cost_usd,
                size=outcome.size,
                quality=outcome.quality,
            ),
            took_s=time.monotonic() - began,
            samples=tuple(self._record.paths),
        )

    async def _ask(self, call: Call, ticket: str | None) -> Waiting | Finished:
        reply = await self._caller.call(
            call,
            upstream=self._route.upstream,
            api_key=self._key,
            attempt_id=self._attempt_id,
            timeout_s=self._route.upstream.timeout_s,
            spool_dir=self._spool,
            pictures=1,
        )
        try:
            outcome = self._adapter.read(reply, ticket)
        except UpstreamFailure as failure:
            await asyncio.to_thread(self._record.write, call, reply, ticket, failure.kind.value)
            raise
        told = "finished" if isinstance(outcome, Finished) else "waiting"
        await asyncio.to_thread(self._record.write, call, reply, ticket, told)
        return outcome

    async def _picture(self, outcome: Finished) -> Blob:
        if not outcome.pictures:
            raise PictureBroken("is missing from the answer")
        source = outcome.pictures[0].source
        if isinstance(source, Blob):
            return source
        return await self._caller.fetch(
            source, upstream=self._route.upstream, api_key=self._key, spool_dir=self._spool
        )


def _request(model: Model, route: Route) -> ImageRequest:
    """The smallest order that this route takes: what it does not offer is left out."""
    request = ImageRequest(model=model.name, prompt=_PROMPT)
    qualities = route.supports.qualities or model.capabilities.qualities
    sizes = route.supports.sizes
    if _CHEAP in qualities:
        request = replace(request, quality=_CHEAP)
    if sizes is None or _SMALL in sizes:
        request = replace(request, size=str(_SMALL))
    return request


def _redacted(value: object) -> object:
    match value:
        case Blob():
            return _STAND_IN
        case str():
            return _LINK.sub(lambda found: _unsigned(found[0]), value)
        case Mapping():
            return {name: _redacted(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_redacted(inner) for inner in value]
        case _:
            return value


def _unsigned(link: str) -> str:
    parts = urlsplit(link)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "redacted" if parts.query else "", ""))


class _NoInputs:
    """A picture from a prompt has no input pictures."""

    async def open(self, file_id: str) -> SizedStream:
        """Refuse: nothing asks for one."""
        raise AssertionError(file_id)


async def _no_links(file_id: str) -> NoReturn:
    raise AssertionError(file_id)
