"""The guarded client: where it goes, where it does not, and what it says when an exchange breaks."""

import asyncio
import gzip
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from app.kit.addresses import parse_networks
from app.kit.egress import Resolver
from app.kit.http import (
    DownloadRefused,
    DownloadTooLarge,
    EgressDenied,
    GuardBroken,
    GuardedClient,
    NoAnswer,
    Timeouts,
    check_url,
    origin_of,
    prove_guard,
)
from tests.kit.certificates import a_certificate
from tests.kit.scripted_server import Exchange, ScriptedServer, scripted_server

LOOPBACK = parse_networks(["127.0.0.0/8"])
TIMEOUTS = Timeouts(connect_s=2, write_s=2, read_s=2)
PUBLIC = "93.184.216.34"


@asynccontextmanager
async def a_client(**options: object) -> AsyncGenerator[GuardedClient]:
    client = GuardedClient(**options)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.aclose()


async def ask(client: GuardedClient, url: str, **options: object) -> tuple[int, bytes]:
    async with client.exchange("GET", url, headers={}, timeouts=TIMEOUTS, **options) as answer:  # type: ignore[arg-type]
        return answer.status, b"".join([chunk async for chunk in answer.body])


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def resolver_of(names: dict[str, Sequence[str]]) -> Resolver:
    async def resolve(host: str, _: int) -> Sequence[str]:
        return names[host]

    return resolve


async def numeric(host: str, port: int) -> Sequence[str]:
    """What the system makes of a number; asked itself, it would look like a look-up to the test network guard."""
    try:
        return [socket.inet_ntoa(socket.inet_aton(host))]
    except OSError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]


async def hello(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.answer(200, b"hello")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://017700000001/",
        "http://127.1/",
        "http://0/",
        "http://0.0.0.0/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://127.0.0.1:22/",
        "http://good.test@127.0.0.1/",
        "http://127.0.0.1\\@good.test/",
        "http://①②⑦.⓪.⓪.①/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://[fe80::1%25lo]/",
        "http://[fec0::1]/",
        "http://[fd00:ec2::254]/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.100.100.200/",
        "http://10.0.0.1/",
        "http://224.0.0.1/",
        "http:///x",
        "http://a b/",
        "http://x:0/",
        "http://x:99999/",
        "http://x/#fragment",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "",
    ],
)
async def test_no_spelling_of_a_forbidden_address_is_reached(url: str) -> None:
    async with a_client(resolver=numeric) as client:
        with pytest.raises(EgressDenied):
            await ask(client, url)
        with pytest.raises(EgressDenied):
            await client.judge(url)


@pytest.mark.parametrize(
    "answers",
    [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
)
async def test_one_forbidden_address_condemns_a_name(answers: list[str]) -> None:
    names = resolver_of({"mixed.test": answers, "localhost.": answers})
    async with a_client(resolver=names) as client:
        for host in ("mixed.test", "MIXED.test:8080", "localhost."):
            with pytest.raises(EgressDenied):
                await ask(client, f"http://{host}/")


async def test_what_is_judged_is_what_is_dialled() -> None:
    looked_up: list[str] = []

    async def rebinding(host: str, _: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else [PUBLIC]

    async with (
        scripted_server(hello) as server,
        a_client(resolver=rebinding, allow_networks=LOOPBACK) as client,
    ):
        assert await ask(client, f"http://rebind.test:{server.port}/") == (200, b"hello")

    assert looked_up == ["rebind.test"]


async def test_a_name_that_turns_bad_is_refused_on_its_next_connection() -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def rebinding(_: str, __: int) -> Sequence[str]:
        return next(answers)

    async with (
        scripted_server(hello) as server,
        a_client(resolver=rebinding, allow_networks=LOOPBACK) as client,
    ):
        await ask(client, f"http://rebind.test:{server.port}/")
        with pytest.raises(EgressDenied):
            await ask(client, f"http://rebind.test:{server.port}/")


async def test_only_the_named_ports_are_dialled() -> None:
    async with (
        scripted_server(hello) as server,
        a_client(allow_networks=LOOPBACK, ports=frozenset({443})) as client,
    ):
        with pytest.raises(EgressDenied):
            await ask(client, server.url)


async def test_a_trusted_origin_is_reached_and_nothing_beside_it() -> None:
    async with scripted_server(hello) as server, scripted_server(hello) as other, a_client() as client:
        trusted = f"{server.url}/v1"
        assert await ask(client, f"{server.url}/x", trusted_url=trusted) == (200, b"hello")
        with pytest.raises(EgressDenied):
            await ask(client, other.url, trusted_url=trusted)
        with pytest.raises(EgressDenied):
            await ask(client, f"http://localhost:{server.port}/", trusted_url=trusted)
        # Nor does the connection that trust opened serve anybody else.
        with pytest.raises(EgressDenied):
            await ask(client, server.url, keep_alive=True)


async def test_proxy_variables_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_server(hello) as server, a_client() as client:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, server.url)
        with pytest.raises(EgressDenied):
            await ask(client, "http://10.0.0.1/")
        assert server.connections == 0


async def test_a_name_that_does_not_resolve_never_left() -> None:
    async def nothing(_: str, __: int) -> Sequence[str]:
        raise OSError("no such name")

    async with a_client(resolver=nothing) as client:
        with pytest.raises(NoAnswer) as caught:
            await ask(client, "http://nowhere.test/")

    assert not caught.value.may_have_left


async def test_a_url_is_judged_without_being_dialled() -> None:
    names = resolver_of({"good.test": [PUBLIC], "mixed.test": [PUBLIC, "10.0.0.1"], "gone.test": []})
    async with a_client(resolver=names) as client:
        await client.judge("https://good.test:8443/hook?token=1")
        with pytest.raises(EgressDenied):
            await client.judge("https://mixed.test/hook")
        with pytest.raises(NoAnswer):
            await client.judge("https://gone.test/hook")


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with (
        scripted_server(hello) as server,
        a_client(
            resolver=resolver_of({"two.test": ["127.0.0.2", "127.0.0.1"]}), allow_networks=LOOPBACK
        ) as client,
    ):
        assert await ask(client, f"http://two.test:{server.port}/") == (200, b"hello")


async def test_the_guard_proves_itself() -> None:
    await prove_guard()


async def test_a_guard_that_lets_loopback_through_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.kit.egress.is_reachable", lambda *_: True)

    with pytest.raises(GuardBroken):
        await prove_guard()


def test_a_url_is_judged_by_its_text_before_anything_is_resolved() -> None:
    check_url("https://example.com/hook?x=1")
    with pytest.raises(EgressDenied):
        check_url("https://user:pw@example.com/")


def test_origins_are_compared_in_their_normal_form() -> None:
    assert origin_of("HTTPS://Example.COM/a") == origin_of("https://example.com:443/b")
    assert origin_of("https://example.com") != origin_of("http://example.com")
    assert origin_of("https://example.com") != origin_of("https://example.com:8443")


async def test_tls_is_verified_against_the_name_though_an_address_is_dialled(tmp_path: Path) -> None:
    server_tls, client_tls = a_certificate(tmp_path, "good.test")
    names = resolver_of({"good.test": ["127.0.0.1"], "evil.test": ["127.0.0.1"]})
    async with (
        scripted_server(hello, server_tls) as server,
        a_client(resolver=names, tls=client_tls, allow_networks=LOOPBACK) as client,
    ):
        assert await ask(client, f"https://good.test:{server.port}/") == (200, b"hello")
        with pytest.raises(NoAnswer) as caught:
            await ask(client, f"https://evil.test:{server.port}/")

    assert server.requests[0].headers["host"] == f"good.test:{server.port}"
    assert not caught.value.may_have_left
    assert len(server.requests) == 1


@pytest.mark.parametrize("keep_alive, connections", [(False, 2), (True, 1)])
async def test_connections_are_shared_only_on_request(keep_alive: bool, connections: int) -> None:
    async def twice(exchange: Exchange) -> None:
        await hello(exchange)
        await hello(exchange)

    async with scripted_server(twice) as server, a_client(allow_networks=LOOPBACK) as client:
        await ask(client, server.url, keep_alive=keep_alive)
        await ask(client, server.url, keep_alive=keep_alive)

        assert server.connections == connections


async def test_gzip_that_nobody_asked_for_is_read() -> None:
    data = b"x" * 3_000_000

    async def zipped(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(200, gzip.compress(data), content_encoding="gzip")

    async with (
        scripted_server(zipped) as server,
        a_client(allow_networks=LOOPBACK) as client,
        client.exchange("GET", server.url, headers={}, timeouts=TIMEOUTS) as answer,
    ):
        sizes = [len(chunk) async for chunk in answer.body]

    assert sum(sizes) == len(data)
    assert max(sizes) <= 256 * 1024


@pytest.mark.parametrize(
    "encoding, body", [("br", b"x"), ("gzip", b"x"), ("gzip", gzip.compress(b"x" * 99, mtime=0)[:-9])]
)
async def test_an_encoding_that_cannot_be_read_is_no_answer(encoding: str, body: bytes) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(200, body, content_encoding=encoding)

    async with scripted_server(odd) as server, a_client(allow_networks=LOOPBACK) as client:
        with pytest.raises(NoAnswer) as caught:
            await ask(client, server.url)

    assert caught.value.may_have_left


async def test_a_transport_of_this_process_stands_in_for_the_network() -> None:
    seen: list[bytes] = []
    sent: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(await request.aread())
        return httpx2.Response(201, json={"ok": True})

    async def content() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    async with (
        a_client() as client,
        client.exchange(
            "POST",
            "http://127.0.0.1/",
            headers={},
            timeouts=TIMEOUTS,
            content=content(),
            transport=httpx2.MockTransport(answer),
            on_sent=lambda: sent.append("sent"),
        ) as received,
    ):
        assert received.status == 201
        assert b"".join([chunk async for chunk in received.body]) == b'{"ok":true}'

    assert seen == [b"abcd"]
    assert sent == ["sent"]


class Hops:
    """Redirects `/n` to `/n-1`, and answers `/0` with a file."""

    def __init__(self, away: str = "") -> None:
        self.away = away

    async def __call__(self, exchange: Exchange) -> None:
        request = await exchange.request()
        left = int(request.line.split()[1].strip("/"))
        if left:
            await exchange.answer(302, location=f"{self.away}/{left - 1}")
        else:
            await exchange.answer(200, b"the file")


async def fetch(server: ScriptedServer, path: str, directory: Path, **options: object) -> bytes:
    async with a_client(allow_networks=LOOPBACK) as client:
        given = {"max_bytes": 1000, "timeout_s": 5, **options}
        handle = await client.download(server.url + path, directory, **given)  # type: ignore[arg-type]
    data = await asyncio.to_thread(handle.path.read_bytes)
    assert handle.size_bytes == len(data)
    return data


async def test_a_download_follows_five_redirects_and_no_more(tmp_path: Path) -> None:
    async with scripted_server(Hops()) as server:
        assert await fetch(server, "/5", tmp_path) == b"the file"
        with pytest.raises(DownloadRefused):
            await fetch(server, "/6", tmp_path)


async def test_a_credential_stays_on_its_origin(tmp_path: Path) -> None:
    async with scripted_server(Hops()) as other, scripted_server(Hops(other.url)) as server:
        await fetch(server, "/1", tmp_path, authorization="Bearer key")

    assert server.requests[0].headers["authorization"] == "Bearer key"
    assert "authorization" not in other.requests[0].headers


async def test_a_credential_does_not_come_back_after_a_detour(tmp_path: Path) -> None:
    async def detour(exchange: Exchange) -> None:
        request = await exchange.request()
        if request.line.startswith("GET /start"):
            await exchange.answer(302, location=f"{other.url}/1")
        else:
            await exchange.answer(200, b"x")

    async def back(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(302, location=f"{server.url}/end")

    async with scripted_server(back) as other, scripted_server(detour) as server:
        await fetch(server, "/start", tmp_path, authorization="Bearer key")

    assert ["authorization" in request.headers for request in server.requests] == [True, False]


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest", "http://10.0.0.1/", "file:///etc/passwd", "http://[::1"]
)
async def test_each_redirect_is_judged_anew(tmp_path: Path, location: str) -> None:
    async def away(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(302, location=location)

    async with scripted_server(away) as server:
        with pytest.raises(EgressDenied):
            await fetch(server, "/", tmp_path)

    assert files_in(tmp_path) == []


async def test_a_download_is_counted_as_it_comes_not_as_it_is_announced(tmp_path: Path) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(b"x" * 1001))

    async with scripted_server(endless) as server:
        with pytest.raises(DownloadTooLarge):
            await fetch(server, "/", tmp_path)

    assert files_in(tmp_path) == []


async def test_a_download_that_never_ends_is_ended(tmp_path: Path) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        await exchange.reader.read()

    async with scripted_server(silent) as server:
        with pytest.raises(NoAnswer):
            await fetch(server, "/", tmp_path, timeout_s=0.05)

    assert files_in(tmp_path) == []


@pytest.mark.parametrize("status", [204, 301, 403, 404, 500])
async def test_a_download_wants_a_success(tmp_path: Path, status: int) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(status)

    async with scripted_server(refuse) as server:
        with pytest.raises(DownloadRefused) as caught:
            await fetch(server, "/", tmp_path)

    assert caught.value.status == status


async def test_neither_logs_nor_errors_show_a_signed_url(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)

    async def refuse(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(403)

    async with scripted_server(refuse) as server:
        with pytest.raises(DownloadRefused) as caught:
            await fetch(server, "/a?sig=s3cret", tmp_path, authorization="Bearer k3y")
    with pytest.raises(EgressDenied) as denied:
        origin_of("ftp://host/a?sig=s3cret")

    shown = caplog.text + repr(caught.value) + repr(denied.value)
    assert "s3cret" not in shown
    assert "k3y" not in shown
