"""The one guarded client by which HTTP leaves the gateway.

It resolves a name once, judges every address, dials a judged literal, follows nothing by itself, knows no proxy and
no unix socket, and says after a failure whether bytes may have left.
"""

import asyncio
import logging
import re
import socket
import ssl
import tempfile
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Final, TypeAlias

import httpcore2
import httpx2

from app.kit.addresses import Network
from app.kit.egress import Denied, Guard, Resolver
from app.kit.spool import SpooledBytes

Transport: TypeAlias = httpx2.AsyncBaseTransport
"""What answers requests within this process instead of the network."""

# getaddrinfo cannot be cancelled: slow name servers may fill these threads, and no others.
_DNS_THREADS: Final = 8
_WRITE_BYTES: Final = 1024 * 1024
_INFLATED_BYTES: Final = 256 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOST_NAME: Final = re.compile(r"[0-9a-z_.-]{1,253}")

_BROKEN: Final = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpx2.TransportError,
)


class EgressDenied(Exception):
    """The guard does not let this address be reached. The message names the host at most, never path or query."""


class NoAnswer(Exception):
    """An exchange broke before its answer was complete. The message is a word or two, without any address."""

    def __init__(self, reason: str, *, may_have_left: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_left = may_have_left
        """Whether the peer may have received any byte of the request."""


class DownloadRefused(Exception):
    """A download was answered with something else than the file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class DownloadTooLarge(Exception):
    """A download holds more bytes than allowed."""


class GuardBroken(Exception):
    """The guard let through what it must refuse; nothing may be started with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. Each bounds one step; whoever calls bounds the whole."""

    connect_s: float = 5.0
    write_s: float = 30.0
    """For each piece of the request."""
    read_s: float
    """For each piece of the answer, the wait for the first included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer whose body is still on its way."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: AsyncIterator[bytes]
    """The body without its content encoding, in pieces of at most a few hundred KB. Raises NoAnswer."""


class GuardedClient:
    """Sends requests to public addresses, to `allow_networks`, and to the origin that a call itself trusts."""

    def __init__(
        self,
        *,
        allow_networks: Sequence[Network] = (),
        ports: frozenset[int] | None = None,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`ports`: when given, no other is dialled. `resolver` and `tls` stand in for the system's own."""
        # At DEBUG and INFO these write whole URLs and headers, keys and signatures included.
        for library in ("httpx2", "httpcore2"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._allow_networks = tuple(allow_networks)
        self._ports = ports
        self._threads = ThreadPoolExecutor(_DNS_THREADS, thread_name_prefix="dns")
        self._resolver = resolver or self._look_up
        self._tls = tls or httpcore2.default_ssl_context()
        self._pools: dict[tuple[tuple[str, int] | None, bool], _Pool] = {}

    async def judge(self, url: str) -> None:
        """Resolve a URL's host and judge where it leads, without dialling: for URLs that are kept for later.

        It is judged again whenever it is dialled, because a name may lead elsewhere by then.

        Raises:
            EgressDenied: the URL or an address behind it may not be reached.
            NoAnswer: the host could not be resolved.
        """
        _, host, port = origin_of(url)
        guard = Guard(self._resolver, self._allow_networks, self._ports, None)
        with _translated(_Flight(None)):
            await guard.judged(host, port)

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        content: AsyncIterable[bytes] | None = None,
        trusted_url: str | None = None,
        keep_alive: bool = False,
        transport: Transport | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Answer]:
        """Send one request and hand over the answer; leaving the context closes it, read or not.

        `content` goes out as it comes, chunked unless `headers` hold a Content-Length. The origin of `trusted_url`
        may be reached wherever it resolves to. Without `keep_alive` the connection is a fresh one and is closed
        afterwards. `transport` answers instead of the network. `on_sent` is called right before the first byte
        may leave.

        Raises:
            EgressDenied: the URL or an address behind it may not be reached; nothing was sent.
            NoAnswer: the exchange broke; it says whether anything may have left.
        """
        target = _checked(url)
        flight = _Flight(on_sent)
        request = httpx2.Request(
            method,
            target,
            headers=dict(headers),
            content=None if content is None else flight.watch(content),
            extensions={
                "timeout": {
                    "connect": timeouts.connect_s,
                    "write": timeouts.write_s,
                    "read": timeouts.read_s,
                    "pool": timeouts.connect_s,
                },
                "trace": flight.trace,
            },
        )
        chosen = transport or self._pool(trusted_url, keep_alive)
        with _translated(flight):
            response = await chosen.handle_async_request(request)
        flight.leave()
        body = _body(response, flight)
        try:
            headers = {name.lower(): value for name, value in response.headers.items()}
            yield Answer(status=response.status_code, headers=headers, body=body)
        finally:
            await body.aclose()
            await response.aclose()

    async def download(
        self,
        url: str,
        directory: Path,
        *,
        max_bytes: int,
        timeout_s: float,
        max_redirects: int = 5,
        authorization: str | None = None,
        trusted_url: str | None = None,
        transport: Transport | None = None,
    ) -> SpooledBytes:
        """Fetch a URL into a new file in `directory`, which must exist; the file is the caller's.

        `timeout_s` bounds the whole, redirects included. Each hop is judged anew, and `authorization` is sent to the
        origin of `url` alone. `max_bytes` counts the file, whatever its encoding on the way.

        Raises:
            EgressDenied: the URL, or one that it redirects to, may not be reached.
            NoAnswer: the exchange broke, or took longer than `timeout_s`.
            DownloadRefused: the answer was no success, or one redirect too many.
            DownloadTooLarge: there is more than `max_bytes`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(
                    url,
                    directory,
                    max_bytes,
                    Timeouts(read_s=timeout_s),
                    max_redirects,
                    authorization,
                    trusted_url,
                    transport,
                )
        except TimeoutError as exc:
            raise NoAnswer("hard timeout", may_have_left=True) from exc

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(
        self,
        url: str,
        directory: Path,
        max_bytes: int,
        timeouts: Timeouts,
        max_redirects: int,
        authorization: str | None,
        trusted_url: str | None,
        transport: Transport | None,
    ) -> SpooledBytes:
        first = origin_of(url)
        for _ in range(max_redirects + 1):
            headers = {"accept-encoding": "identity", "user-agent": "darkroom"}
            if authorization is not None and origin_of(url) == first:
                headers["authorization"] = authorization
            async with self.exchange(
                "GET", url, headers=headers, timeouts=timeouts, trusted_url=trusted_url, transport=transport
            ) as answer:
                location = answer.headers.get("location")
                if answer.status == 200:
                    return await _to_file(answer, directory, max_bytes)
                if answer.status not in _REDIRECTS or location is None:
                    raise DownloadRefused(answer.status)
                url = _joined(url, location)
                if origin_of(url) != first:
                    # Once the way has left the origin, nothing brings the credential back.
                    authorization = None
        raise DownloadRefused(310)

    def _pool(self, trusted_url: str | None, keep_alive: bool) -> "_Pool":
        trusted = None if trusted_url is None else origin_of(trusted_url)[1:]
        key = (trusted, keep_alive)
        if key not in self._pools:
            guard = Guard(self._resolver, self._allow_networks, self._ports, trusted)
            self._pools[key] = _Pool(guard, self._tls, keep_alive)
        return self._pools[key]

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(entry[4][0]) for entry in found]


async def prove_guard() -> None:
    """Try to reach this very machine, as a start-up test.

    Raises:
        GuardBroken: the guard did not refuse.
    """
    client = GuardedClient()
    try:
        for url in ("http://127.0.0.1:9/", "http://[::1]:9/", "http://[::ffff:127.0.0.1]:9/"):
            try:
                async with client.exchange("GET", url, headers={}, timeouts=Timeouts(connect_s=1, read_s=1)):
                    pass
            except EgressDenied:
                continue
            except NoAnswer:
                pass
            raise GuardBroken(f"the egress guard does not refuse {url!r}; was the HTTP library changed?")
    finally:
        await client.aclose()


def check_url(url: str) -> None:
    """Judge a URL by its text alone, as far as that goes; its addresses are judged when it is dialled.

    Raises:
        EgressDenied: the URL is not one that this client would follow; says why.
    """
    _checked(url)


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL, each in its normal form.

    Raises:
        EgressDenied: the URL is not one that this client would follow.
    """
    target = _checked(url)
    return (
        target.scheme,
        target.raw_host.decode("ascii"),
        target.port or (443 if target.scheme == "https" else 80),
    )


def _checked(url: str) -> httpx2.URL:
    try:
        target = httpx2.URL(url)
    except httpx2.InvalidURL as exc:
        raise EgressDenied("this is not a URL") from exc
    if target.scheme not in {"http", "https"}:
        raise EgressDenied("only http and https URLs can be reached")
    if target.userinfo:
        raise EgressDenied("a URL with a user name or password is not followed")
    if target.fragment:
        raise EgressDenied("a URL with a fragment is not followed")
    if target.port is not None and not 0 < target.port < 65536:
        raise EgressDenied("the URL has no possible port")
    host = target.raw_host.decode("ascii")
    if not _HOST_NAME.fullmatch(host) and not _is_ipv6(host):
        raise EgressDenied("the URL has no possible host")
    return target


def _is_ipv6(host: str) -> bool:
    try:
        # A zone names one of our own network cards.
        return "%" not in host and ip_address(host).version == 6
    except ValueError:
        return False


def _joined(url: str, location: str) -> str:
    try:
        return str(httpx2.URL(url).join(location))
    except httpx2.InvalidURL as exc:
        raise EgressDenied("a redirect leads to no URL") from exc


class _Pool(httpx2.AsyncBaseTransport):
    """Connections behind one guard."""

    def __init__(self, guard: Guard, tls: ssl.SSLContext, keep_alive: bool) -> None:
        # Without keep-alive a paid request never meets a connection that the peer is just closing.
        self._connections = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,
            max_keepalive_connections=20 if keep_alive else 0,
            keepalive_expiry=5.0,
            retries=0,
            network_backend=guard,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._connections.handle_async_request(
            httpcore2.Request(
                request.method,
                httpcore2.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(response.status, headers=response.headers, stream=_Stream(response))

    async def aclose(self) -> None:
        await self._connections.aclose()


class _Stream(httpx2.AsyncByteStream):
    """The body of an answer, closed together with its connection."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class _Flight:
    """Knows whether bytes of a request may have left.

    Neither the exception nor the progress of the body tells: a connection reset on accept and one reset after the
    whole body look alike, because the kernel takes what the peer never reads.
    """

    def __init__(self, on_sent: Callable[[], None] | None) -> None:
        self._on_sent = on_sent
        self.may_have_left = False

    def leave(self) -> None:
        if self.may_have_left:
            return
        self.may_have_left = True
        if self._on_sent is not None:
            self._on_sent()

    async def trace(self, event: str, _: object) -> None:
        if event.endswith("send_request_headers.started"):
            self.leave()

    async def watch(self, content: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
        # A transport within the process sends no trace; for it, the body leaves when it is asked for.
        self.leave()
        try:
            async for chunk in content:
                yield chunk
        finally:
            if isinstance(content, AsyncGenerator):
                await content.aclose()


@contextmanager
def _translated(flight: _Flight) -> Iterator[None]:
    try:
        yield
    except Denied as exc:
        raise EgressDenied(str(exc)) from exc
    except (httpcore2.ProtocolError, httpx2.ProtocolError) as exc:
        # Without the cause: it quotes the bytes that it stumbled on, our credential or their body.
        raise NoAnswer(type(exc).__name__, may_have_left=flight.may_have_left) from None
    except _BROKEN as exc:
        raise NoAnswer(type(exc).__name__, may_have_left=flight.may_have_left) from exc


async def _body(response: httpx2.Response, flight: _Flight) -> AsyncGenerator[bytes]:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"}:
        async for chunk in _encoded(response, flight):
            yield chunk
        return
    # Nothing but identity was asked for; these come from those who do not listen.
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise NoAnswer("unknown content encoding", may_have_left=True)
    inflater = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        async for chunk in _encoded(response, flight):
            rest = chunk
            while rest and not inflater.eof:
                # In bounded pieces: a few bytes can stand for many.
                yield inflater.decompress(rest, _INFLATED_BYTES)
                rest = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as exc:
        raise NoAnswer("broken content encoding", may_have_left=True) from exc
    if not inflater.eof:
        raise NoAnswer("broken content encoding", may_have_left=True)


async def _encoded(response: httpx2.Response, flight: _Flight) -> AsyncGenerator[bytes]:
    stream = response.stream
    if not isinstance(stream, httpx2.AsyncByteStream):
        raise TypeError("a transport answers with an asynchronous body")
    with _translated(flight):
        async for chunk in stream:
            yield chunk


async def _to_file(answer: Answer, directory: Path, max_bytes: int) -> SpooledBytes:
    file: IO[bytes] = await asyncio.to_thread(
        tempfile.NamedTemporaryFile, dir=directory, prefix="spool-", delete=False
    )
    path = Path(file.name)
    try:
        size_bytes = await _copy(answer.body, file, max_bytes)
        await asyncio.to_thread(file.close)
    except BaseException:
        file.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one quick call, while a cancellation may be waiting
        raise
    return SpooledBytes(path=path, size_bytes=size_bytes)


async def _copy(chunks: AsyncIterator[bytes], file: IO[bytes], max_bytes: int) -> int:
    size_bytes = held_bytes = 0
    batch: list[bytes] = []
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise DownloadTooLarge(f"there is more than {max_bytes} bytes")
        batch.append(chunk)
        held_bytes += len(chunk)
        if held_bytes >= _WRITE_BYTES:
            # By a thread, because a disk may stall.
            await asyncio.to_thread(file.write, b"".join(batch))
            batch, held_bytes = [], 0
    await asyncio.to_thread(file.write, b"".join(batch))
    return size_bytes
