"""Carries out what adapters write: one HTTP request to an upstream, with every limit, and the answer as plain values.

It knows no vendor, waits for no job and repeats nothing that could be paid for.
"""

import asyncio
import contextlib
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

import pybase64

from app.catalog.entries import Upstream
from app.domain.failures import FailureKind, UpstreamFailure
from app.kit.backoff import full_jitter
from app.kit.http import (
    Answer,
    DownloadRefused,
    DownloadTooLarge,
    EgressDenied,
    GuardedClient,
    NoAnswer,
    Timeouts,
    Transport,
    origin_of,
)
from app.kit.spool import SpoolLimits, SpoolMalformed, SpoolOverflow, spool_json
from app.kit.tracing import NoTracing, SpanKind, Tracing
from app.upstreams.bodies import InputSource, Payload, lay_out
from app.upstreams.contract import Blob, Call, Reply, ServerEvent
from app.upstreams.event_stream import read_events
from app.upstreams.instruments import Exchange, UpstreamInstruments

_MIB: Final = 1024 * 1024
# A noise PNG of 3840x2160 is 21 MB, 28 MB as base64: there is room for twice that (reliability.md 2.3).
_PICTURE_REPLY_BYTES: Final = 64 * _MIB
_PICTURE_BYTES: Final = 48 * _MIB
# A refusal is a short document; a longer one is some edge's page.
_ERROR_LIMITS: Final = SpoolLimits(total_bytes=_MIB)
# Answers with pictures that one upstream may be sending at the same time. 16 of the largest come to 450 MB of files;
# a slow upstream holds up itself alone.
_RECEIVED_AT_ONCE: Final = 16
_SMALL_BYTES: Final = _MIB
_FETCH_ATTEMPTS: Final = 5
# Links may lag behind the answer that names them.
_LAGGING: Final = frozenset({403, 404, 408, 425, 429})
# What a header can carry without quoting.
_KEY: Final = re.compile(r"[!-~]+")


class PollFailed(Exception):
    """Asking after an order brought no readable answer. It says nothing about the order: ask again."""


class FetchFailed(Exception):
    """A picture that was made could not be fetched by its link. It says nothing about the picture: it is paid for."""

    def __init__(self, detail: str, *, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


class Caller:
    """Sends calls to upstreams and fetches the pictures that they link to."""

    def __init__(
        self,
        client: GuardedClient,
        inputs: InputSource,
        *,
        links: Callable[[str], Awaitable[str]],
        transports: Mapping[str, Transport] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        instruments: UpstreamInstruments | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`links` makes a short-lived public link to a stored file.

        `transports` names upstreams that answer within this process, instead of over the network; it is looked into
        for each call, so it may change.
        """
        self._client = client
        self._inputs = inputs
        self._links = links
        self._transports = {} if transports is None else transports
        self._sleep = sleep
        self._instruments = instruments or UpstreamInstruments()
        self._tracing = tracing or NoTracing()
        self._receiving: dict[str, asyncio.Semaphore] = {}

    async def call(
        self,
        call: Call,
        *,
        upstream: Upstream,
        api_key: str | None,
        attempt_id: str,
        timeout_s: float,
        spool_dir: Path,
        pictures: int = 10,
        on_sent: Callable[[], None] | None = None,
        on_event: Callable[[ServerEvent], Awaitable[None]] | None = None,
    ) -> Reply:
        """Send one call and return the complete answer, whatever its status.

        A success that comes as events is handed to `on_event` one by one, and the answer then `is_stream`.

        `timeout_s` bounds everything, from the look-up of the name to the last byte of the answer. `on_sent` is
        called right before the first byte may leave. `pictures` bounds the size of the answer. The files behind the
        blobs of the answer are in `spool_dir`, and are the caller's to remove; on an error there are none.

        Raises:
            UpstreamFailure: there is no complete answer: `down` if nothing left, else `timed_out`; or a success
                that cannot be read, `garbled`; or a key that no header can carry, `credentials`.
            PollFailed: the same, for a GET: an order that exists is neither down nor garbled.
        """
        is_poll = call.method == "GET"
        with self._observed(upstream, "poll" if is_poll else "submit", attempt_id) as exchange:
            try:
                reply = await self._call(
                    call, upstream, api_key, attempt_id, timeout_s, spool_dir, pictures, on_sent, on_event
                )
            except UpstreamFailure as failure:
                self._note(exchange, failure.kind.value, is_failure=True)
                if is_poll:
                    raise PollFailed(failure.detail) from failure
                raise
            self._note(exchange, f"{reply.status // 100}xx", is_failure=reply.status >= 400)
            return reply

    @contextlib.contextmanager
    def _observed(self, upstream: Upstream, call: str, attempt_id: str | None = None) -> Iterator[Exchange]:
        """Count and trace one call. Of the address, which may hold anything, only the upstream's own host is told."""
        with (
            self._tracing.span(
                f"upstream.{call}",
                kind=SpanKind.CLIENT,
                upstream=upstream.name,
                host=urlsplit(upstream.base_url).hostname,
                attempt_id=attempt_id,
            ),
            self._instruments.call(upstream.name, call) as exchange,
        ):
            yield exchange

    def _note(self, exchange: Exchange, outcome: str, *, is_failure: bool) -> None:
        exchange.outcome = outcome
        if is_failure:
            self._tracing.fail(outcome)
        else:
            self._tracing.note(outcome=outcome)

    async def fetch(
        self, link: str, *, upstream: Upstream, api_key: str | None, spool_dir: Path, timeout_s: float = 120.0
    ) -> Blob:
        """Fetch a picture by the link that an upstream gave, into a file in `spool_dir` that is the caller's.

        A `data:` URL is decoded. Links that lag or break are tried again, up to five times within `timeout_s`. The
        key is sent to the upstream's own origin only.

        Raises:
            FetchFailed: the picture could not be fetched; a fresh link may help.
        """
        await asyncio.to_thread(spool_dir.mkdir, parents=True, exist_ok=True)
        if link.startswith("data:"):
            return await asyncio.to_thread(_decode, link, spool_dir)
        with self._observed(upstream, "fetch") as exchange:
            try:
                async with asyncio.timeout(timeout_s):
                    blob = await self._download(link, upstream, api_key, spool_dir, timeout_s)
            except TimeoutError as exc:
                self._note(exchange, FailureKind.TIMED_OUT.value, is_failure=True)
                raise FetchFailed(f"the picture did not come within {timeout_s} s") from exc
            except FetchFailed as exc:
                outcome = FailureKind.DOWN.value if exc.status is None else f"{exc.status // 100}xx"
                self._note(exchange, outcome, is_failure=True)
                raise
            self._note(exchange, "2xx", is_failure=False)
            return blob

    async def _call(
        self,
        call: Call,
        upstream: Upstream,
        api_key: str | None,
        attempt_id: str,
        timeout_s: float,
        spool_dir: Path,
        pictures: int,
        on_sent: Callable[[], None] | None,
        on_event: Callable[[ServerEvent], Awaitable[None]] | None,
    ) -> Reply:
        payload = None if call.body is None else await lay_out(call.body, self._inputs, self._links)
        await asyncio.to_thread(spool_dir.mkdir, parents=True, exist_ok=True)
        sent = _Sent(on_sent)
        clock = asyncio.timeout(timeout_s)
        try:
            credential = self._credential(call.url, upstream, api_key)
            async with (
                clock,
                self._client.exchange(
                    call.method,
                    call.url,
                    headers=_headers(call, payload, attempt_id, credential),
                    timeouts=Timeouts(read_s=timeout_s),
                    content=None if payload is None else payload.stream(),
                    trusted_url=upstream.base_url,
                    keep_alive=call.method == "GET",
                    transport=self._transports.get(upstream.name),
                    on_sent=sent,
                ) as answer,
            ):
                if on_event is not None and _is_stream(answer):
                    return await self._stream(answer, spool_dir, on_event)
                return await self._reply(answer, upstream, spool_dir, pictures)
        except EgressDenied as exc:
            raise UpstreamFailure(FailureKind.DOWN, f"the guard refused its address: {exc}") from exc
        except NoAnswer as exc:
            raise _broken(exc.reason, may_have_left=exc.may_have_left) from exc
        except TimeoutError as exc:
            if not clock.expired():
                raise
            raise _broken(f"no complete answer within {timeout_s} s", may_have_left=sent.happened) from exc

    async def _reply(self, answer: Answer, upstream: Upstream, spool_dir: Path, pictures: int) -> Reply:
        unreadable = Reply(status=answer.status, headers=answer.headers, body=None, is_json=False)
        if not _may_be_json(answer):
            return unreadable
        is_success = 200 <= answer.status < 300
        limits = _ERROR_LIMITS
        if is_success:
            limits = SpoolLimits(total_bytes=pictures * _PICTURE_REPLY_BYTES, blob_bytes=_PICTURE_BYTES)
        try:
            if is_success and not _is_small(answer):
                async with self._receiving.setdefault(upstream.name, asyncio.Semaphore(_RECEIVED_AT_ONCE)):
                    body = await spool_json(answer.body, spool_dir, limits)
            else:
                body = await spool_json(answer.body, spool_dir, limits)
        except (SpoolOverflow, SpoolMalformed) as exc:
            if is_success:
                raise UpstreamFailure(FailureKind.GARBLED, str(exc), status=answer.status) from exc
            return unreadable
        return Reply(status=answer.status, headers=answer.headers, body=body, is_json=True)

    async def _stream(
        self, answer: Answer, spool_dir: Path, on_event: Callable[[ServerEvent], Awaitable[None]]
    ) -> Reply:
        limits = SpoolLimits(total_bytes=_PICTURE_REPLY_BYTES, blob_bytes=_PICTURE_BYTES)
        try:
            async with contextlib.aclosing(read_events(answer.body, spool_dir, limits)) as events:
                async for event in events:
                    await on_event(event)
        except (SpoolOverflow, SpoolMalformed) as exc:
            raise UpstreamFailure(FailureKind.GARBLED, str(exc), status=answer.status) from exc
        return Reply(status=answer.status, headers=answer.headers, body=None, is_json=False, is_stream=True)

    async def _download(
        self, link: str, upstream: Upstream, api_key: str | None, spool_dir: Path, timeout_s: float
    ) -> Blob:
        for attempt in range(1, _FETCH_ATTEMPTS + 1):
            try:
                is_own = origin_of(link) == origin_of(upstream.base_url)
                return await self._client.download(
                    link,
                    spool_dir,
                    max_bytes=_PICTURE_BYTES,
                    timeout_s=timeout_s,
                    authorization=self._credential(link, upstream, api_key),
                    trusted_url=upstream.base_url,
                    transport=self._transports.get(upstream.name) if is_own else None,
                )
            except UpstreamFailure as failure:
                raise FetchFailed(failure.detail) from failure
            except EgressDenied as exc:
                raise FetchFailed(f"the guard refused the picture's address: {exc}") from exc
            except DownloadTooLarge as exc:
                raise FetchFailed(f"the picture is too large: {exc}") from exc
            except DownloadRefused as exc:
                is_lagging = exc.status in _LAGGING or exc.status >= 500
                if not is_lagging or attempt == _FETCH_ATTEMPTS:
                    raise FetchFailed("the picture's link was refused", status=exc.status) from exc
            except NoAnswer as exc:
                if attempt == _FETCH_ATTEMPTS:
                    raise FetchFailed(f"the picture's link does not answer: {exc}") from exc
            await self._sleep(full_jitter(attempt, base_s=0.5, cap_s=8.0))
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def _credential(url: str, upstream: Upstream, api_key: str | None) -> str | None:
        if api_key is None or origin_of(url) != origin_of(upstream.base_url):
            return None
        if not _KEY.fullmatch(api_key):
            raise UpstreamFailure(
                FailureKind.CREDENTIALS, "the key is empty or holds what no header can carry"
            )
        return f"Bearer {api_key}"


class _Sent:
    """Remembers that bytes may have left, and passes it on."""

    def __init__(self, on_sent: Callable[[], None] | None) -> None:
        self._on_sent = on_sent
        self.happened = False

    def __call__(self) -> None:
        self.happened = True
        if self._on_sent is not None:
            self._on_sent()


def _headers(call: Call, payload: Payload | None, attempt_id: str, credential: str | None) -> dict[str, str]:
    headers = {name.lower(): value for name, value in call.headers.items()}
    headers |= {"accept": "application/json", "accept-encoding": "identity", "user-agent": "darkroom"}
    if payload is not None:
        headers |= {"content-type": payload.content_type, "content-length": str(payload.size_bytes)}
    if call.method == "POST":
        # Harmless where they are ignored; where they are honoured, a repeated order is recognised.
        headers |= {"idempotency-key": attempt_id, "x-request-id": attempt_id}
    if credential is not None:
        headers["authorization"] = credential
    return headers


def _broken(reason: str, *, may_have_left: bool) -> UpstreamFailure:
    kind = FailureKind.TIMED_OUT if may_have_left else FailureKind.DOWN
    return UpstreamFailure(kind, reason)


def _may_be_json(answer: Answer) -> bool:
    # Some servers label their documents carelessly; a page is labelled as what it is.
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "json" in media_type or media_type in {"", "text/plain", "application/octet-stream"}


def _is_stream(answer: Answer) -> bool:
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return 200 <= answer.status < 300 and media_type == "text/event-stream"


def _is_small(answer: Answer) -> bool:
    length = answer.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= _SMALL_BYTES


def _decode(link: str, spool_dir: Path) -> Blob:
    head, _, encoded = link.partition(",")
    if not head.endswith(";base64"):
        raise FetchFailed("the picture's data URL is not base64")
    try:
        data = pybase64.b64decode(encoded, validate=True)
    except ValueError as exc:
        raise FetchFailed("the picture's data URL is not base64") from exc
    file: IO[bytes]
    with tempfile.NamedTemporaryFile(dir=spool_dir, prefix="spool-", delete=False) as file:
        file.write(data)
    return Blob(path=Path(file.name), size_bytes=len(data))
