"""The caller on a real connection: what it sends, what it makes of answers, and of connections that break."""

import asyncio
import base64
import json
import logging
import random
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.catalog.entries import Upstream
from app.domain.failures import FailureKind, UpstreamFailure
from app.kit.http import GuardedClient
from app.kit.streams import SizedStream
from app.upstreams.caller import Caller, FetchFailed, PollFailed
from app.upstreams.contract import (
    Blob,
    Call,
    FilePart,
    InputDataUrl,
    InputFile,
    InputLink,
    JsonBody,
    MultipartBody,
    Reply,
)
from tests.kit.scripted_server import Exchange, Script, ScriptedServer, scripted_server

INPUTS = {"file_a": b"\x89PNG first", "file_b": random.Random(1).randbytes(200_001), "file_e": b""}
KEY = "sk-k3y"
PROMPT = "a s3cret prompt"
PICTURE = random.Random(2).randbytes(30_000)


class Inputs:
    """Stored inputs, handed out in odd pieces."""

    async def open(self, file_id: str) -> SizedStream:
        data = INPUTS[file_id]

        async def chunks() -> AsyncIterator[bytes]:
            for place in range(0, len(data), 4099):
                yield data[place : place + 4099]

        return SizedStream(len(data), chunks())


class Bench:
    """A caller, and the upstream that it calls."""

    def __init__(self, caller: Caller, server: ScriptedServer, spool_dir: Path, naps: list[float]) -> None:
        self.caller = caller
        self.server = server
        self.spool_dir = spool_dir
        self.naps = naps
        self.sent = 0
        self.upstream = an_upstream(f"{server.url}/v1")

    async def post(self, body: Any = None, **options: Any) -> Reply:
        call = Call(
            method="POST",
            url=f"{self.server.url}/v1/images/generations",
            body=body or JsonBody(value={"prompt": PROMPT}),
        )
        return await self.send(call, **options)

    async def poll(self, **options: Any) -> Reply:
        return await self.send(Call(method="GET", url=f"{self.server.url}/v1/jobs/1"), **options)

    async def send(self, call: Call, **options: Any) -> Reply:
        given = {
            "upstream": self.upstream,
            "api_key": KEY,
            "attempt_id": "att_1",
            "timeout_s": 10.0,
            **options,
        }
        return await self.caller.call(call, spool_dir=self.spool_dir, on_sent=self.mark_sent, **given)

    async def failure(self, **options: Any) -> UpstreamFailure:
        with pytest.raises(UpstreamFailure) as caught:
            await self.post(**options)
        assert files_in(self.spool_dir) == []
        return caught.value

    async def fetch(self, link: str, **options: Any) -> bytes:
        blob = await self.caller.fetch(
            link, upstream=self.upstream, api_key=KEY, spool_dir=self.spool_dir, **options
        )
        data = await asyncio.to_thread(blob.path.read_bytes)
        assert blob.size_bytes == len(data)
        return data

    def mark_sent(self) -> None:
        self.sent += 1


def an_upstream(base_url: str) -> Upstream:
    return Upstream(
        name="vendor",
        adapter="openai",
        base_url=base_url,
        api_key_env="VENDOR_KEY",
        max_concurrency=1,
        requests_per_minute=None,
        images_per_minute=None,
        timeout_s=300,
    )


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.exists() else []


@asynccontextmanager
async def a_bench(
    script: Script, directory: Path, transports: dict[str, httpx2.AsyncBaseTransport] | None = None
) -> AsyncGenerator[Bench]:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    async def link(file_id: str) -> str:
        return f"https://me.test/{file_id}"

    client = GuardedClient()
    caller = Caller(
        client,
        Inputs(),
        links=link,
        transports=transports,
        sleep=sleep,
    )
    try:
        async with scripted_server(script) as server:
            yield Bench(caller, server, directory / "spool", naps)
    finally:
        await client.aclose()


def answering(status: int, body: bytes, **headers: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(status, body, **headers)

    return script


def a_document(value: Any) -> Script:
    return answering(200, json.dumps(value).encode(), content_type="application/json")


OK = a_document({"ok": True})


async def test_a_json_call_goes_out_whole_with_the_credential_and_the_attempts_id(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench:
        reply = await bench.post(JsonBody(value={"prompt": "ü", "n": 2}))

    [request] = bench.server.requests
    assert reply == Reply(status=200, headers=reply.headers, body={"ok": True}, is_json=True)
    assert request.line == "POST /v1/images/generations HTTP/1.1"
    assert json.loads(request.body) == {"prompt": "ü", "n": 2}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["idempotency-key"] == request.headers["x-request-id"] == "att_1"
    assert "transfer-encoding" not in request.headers
    assert bench.sent == 1


async def test_inputs_stand_in_a_json_body_as_data_urls_and_links(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench:
        await bench.post(
            JsonBody(
                value={
                    "images": [
                        {"image_url": InputDataUrl("file_b", "image/png")},
                        {"image_url": InputLink("file_a")},
                        {"image_url": InputDataUrl("file_e", "image/webp")},
                    ],
                    "prompt": 'quote " and more',
                }
            )
        )

    assert json.loads(bench.server.requests[0].body) == {
        "images": [
            {"image_url": "data:image/png;base64," + base64.b64encode(INPUTS["file_b"]).decode()},
            {"image_url": "https://me.test/file_a"},
            {"image_url": "data:image/webp;base64,"},
        ],
        "prompt": 'quote " and more',
    }


async def test_a_form_holds_the_fields_first_and_every_byte_of_the_files(tmp_path: Path) -> None:
    form = MultipartBody(
        fields=(("prompt", 'say "hi"\r\nü'), ("n", "1")),
        files=(
            FilePart(name="image[]", filename="a.png", media_type="image/png", content=InputFile("file_a")),
            FilePart(name="image[]", filename='b".png', media_type="image/png", content=InputFile("file_b")),
        ),
    )
    async with a_bench(OK, tmp_path) as bench:
        await bench.post(form)

    [request] = bench.server.requests
    kind, _, boundary = request.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    parts = request.body.split(f"--{boundary}".encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    assert [tuple(part.split(b"\r\n\r\n", 1)) for part in parts[1:-1]] == [
        (b'\r\nContent-Disposition: form-data; name="prompt"', 'say "hi"\r\nü\r\n'.encode()),
        (b'\r\nContent-Disposition: form-data; name="n"', b"1\r\n"),
        (
            b'\r\nContent-Disposition: form-data; name="image[]"; filename="a.png"\r\nContent-Type: image/png',
            INPUTS["file_a"] + b"\r\n",
        ),
        (
            b'\r\nContent-Disposition: form-data; name="image[]"; filename="b%22.png"\r\nContent-Type: image/png',
            INPUTS["file_b"] + b"\r\n",
        ),
    ]


async def test_the_key_is_sent_to_the_upstreams_own_origin_alone(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench, a_bench(OK, tmp_path) as other:
        call = Call(method="POST", url=bench.upstream.base_url + "/x", headers={"X-Own": "1"})
        await bench.send(call, api_key=None)
        # The guard refuses a foreign loopback address, so the foreign call is made through a transport.
        seen: list[httpx2.Request] = []

        async def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(200, json={})

        async with a_bench(OK, tmp_path, {"vendor": httpx2.MockTransport(answer)}) as inside:
            await inside.send(Call(method="POST", url="https://elsewhere.test/x"), upstream=other.upstream)
            await inside.send(
                Call(method="POST", url=other.upstream.base_url + "/x"), upstream=other.upstream
            )

    assert "authorization" not in bench.server.requests[0].headers
    assert bench.server.requests[0].headers["x-own"] == "1"
    assert ["authorization" in request.headers for request in seen] == [False, True]


@pytest.mark.parametrize("key", ["", "sk-a\nb", "sk-ü", "sk a"])
async def test_a_key_that_no_header_can_carry_is_a_matter_of_credentials(tmp_path: Path, key: str) -> None:
    async with a_bench(OK, tmp_path) as bench:
        failure = await bench.failure(api_key=key)

    assert failure.kind is FailureKind.CREDENTIALS
    assert bench.sent == 0
    assert bench.server.connections == 0


async def test_each_paid_call_has_a_connection_of_its_own_and_polls_share_one(tmp_path: Path) -> None:
    async def patient(exchange: Exchange) -> None:
        while True:
            await exchange.request()
            await exchange.answer(200, b"{}")

    async with a_bench(patient, tmp_path) as bench:
        await bench.post()
        await bench.post()
        assert bench.server.connections == 2
        await bench.poll()
        await bench.poll()
        assert bench.server.connections == 3


async def test_pictures_arrive_as_files(tmp_path: Path) -> None:
    encoded = base64.b64encode(PICTURE).decode()
    async with a_bench(
        a_document({"data": [{"b64_json": encoded}, {"b64_json": encoded}]}), tmp_path
    ) as bench:
        reply = await bench.post()

    assert isinstance(reply.body, dict)
    blobs = [item["b64_json"] for item in reply.body["data"]]  # type: ignore[union-attr,index,call-overload]
    for blob in blobs:
        assert isinstance(blob, Blob)
        assert blob.path.read_bytes() == PICTURE


async def test_a_picture_of_12_mb_costs_a_few_buffers(tmp_path: Path) -> None:
    piece = base64.b64encode(random.Random(3).randbytes(48 * 1024))

    async def big(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b'{"data":[{"b64_json":"',
            *[piece] * 256,
            b'"}]}',
        )

    async with a_bench(big, tmp_path) as bench:
        tracemalloc.start()
        try:
            await bench.post()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    [path] = files_in(bench.spool_dir)
    assert path.stat().st_size == 12 * 1024 * 1024
    assert peak_bytes < 8 * 1024 * 1024


async def test_an_upload_of_many_megabytes_costs_a_few_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless:
        async def open(self, file_id: str) -> SizedStream:
            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(400):
                    yield bytes(64 * 1024)

            return SizedStream(400 * 64 * 1024, chunks())

    async def swallow(exchange: Exchange) -> None:
        request = await exchange.head()
        left = int(request.headers["content-length"])
        while left:
            left -= len(await exchange.reader.read(65536))
        await exchange.answer(200, b"{}")

    async with a_bench(swallow, tmp_path) as bench:
        monkeypatch.setattr(bench.caller, "_inputs", Endless())
        part = FilePart(name="image", filename="a.png", media_type="image/png", content=InputFile("file_x"))
        tracemalloc.start()
        try:
            await bench.post(MultipartBody(fields=(), files=(part,)))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak_bytes < 8 * 1024 * 1024


async def reset_at_once(exchange: Exchange) -> None:
    exchange.reset()


async def reset_after_headers(exchange: Exchange) -> None:
    await exchange.head()
    exchange.reset()


async def reset_after_body(exchange: Exchange) -> None:
    await exchange.request()
    exchange.reset()


async def end_after_body(exchange: Exchange) -> None:
    await exchange.request()


async def cut_headers(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-le")


async def cut_body(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"a":')


async def cut_picture(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(
        b'HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{"data":["' + base64.b64encode(PICTURE) * 40
    )


async def no_http(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"SSH-2.0-OpenSSH\r\n\r\n")


async def bad_chunks(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")


async def cut_refusal(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b'HTTP/1.1 400 X\r\ncontent-length: 100\r\n\r\n{"a":')


@pytest.mark.parametrize(
    "script",
    [
        reset_at_once,
        reset_after_headers,
        reset_after_body,
        end_after_body,
        cut_headers,
        cut_body,
        cut_picture,
        no_http,
        bad_chunks,
        cut_refusal,
    ],
)
async def test_once_bytes_may_have_left_a_broken_connection_settles_nothing(
    tmp_path: Path, script: Script
) -> None:
    async with a_bench(script, tmp_path) as bench:
        failure = await bench.failure()

    assert failure.kind is FailureKind.TIMED_OUT
    assert bench.sent == 1
    assert bench.server.connections == 1


async def test_an_upstream_that_refuses_the_connection_is_down(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench:
        gone = bench.upstream
        async with scripted_server(OK) as closed:
            gone = an_upstream(closed.url)
        with pytest.raises(UpstreamFailure) as caught:
            await bench.send(Call(method="POST", url=f"{gone.base_url}/x"), upstream=gone)

    assert caught.value.kind is FailureKind.DOWN
    assert bench.sent == 0


async def test_an_upstream_at_a_forbidden_address_is_down(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench:
        elsewhere = Call(method="POST", url="http://169.254.169.254/v1")
        with pytest.raises(UpstreamFailure) as caught:
            await bench.send(elsewhere)

    assert caught.value.kind is FailureKind.DOWN
    assert bench.sent == 0


async def test_an_upstream_that_never_greets_is_down(tmp_path: Path) -> None:
    # The server waits for a plain request and so never answers the greeting of TLS.
    async with a_bench(OK, tmp_path) as bench:
        with pytest.raises(UpstreamFailure) as caught:
            await bench.send(
                Call(method="POST", url="https://127.0.0.1:" + bench.server.url.rpartition(":")[2]),
                upstream=an_upstream(bench.server.url.replace("http:", "https:")),
                timeout_s=0.2,
            )

    assert caught.value.kind is FailureKind.DOWN
    assert bench.sent == 0


async def silence(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.reader.read()


async def drip(exchange: Exchange) -> None:
    await exchange.request()
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        await exchange.send(b" ")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("script", [silence, drip])
async def test_nothing_outlasts_the_hard_limit(tmp_path: Path, script: Script) -> None:
    async with a_bench(script, tmp_path) as bench:
        failure = await bench.failure(timeout_s=1.0)

    assert failure.kind is FailureKind.TIMED_OUT
    assert bench.sent == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [',
        b"",
        b"<html>",
        b'{"a": NaN}',
        b"[" * 33,
        b'{"data":["' + base64.b64encode(PICTURE) + b'*"]}',
    ],
)
async def test_a_success_that_cannot_be_read_is_garbled(tmp_path: Path, body: bytes) -> None:
    async with a_bench(answering(200, body), tmp_path) as bench:
        failure = await bench.failure()

    assert (failure.kind, failure.status) == (FailureKind.GARBLED, 200)


async def test_a_success_without_end_is_garbled(tmp_path: Path) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            await exchange.send(b" " * 65536)

    async with a_bench(endless, tmp_path) as bench:
        failure = await bench.failure()

    assert failure.kind is FailureKind.GARBLED


@pytest.mark.parametrize(
    "status, body, headers",
    [
        (502, b"<html>Bad gateway</html>", {"content_type": "text/html"}),
        (502, b"<html>Bad gateway</html>", {}),
        (500, b'{"error": ', {"content_type": "application/json"}),
        (400, b" " * 2_000_000, {"content_type": "application/json"}),
        (200, b"<html>Hello</html>", {"content_type": "text/html; charset=utf-8"}),
        (204, b"", {"content_type": "image/png"}),
    ],
)
async def test_a_page_is_handed_on_as_no_json(
    tmp_path: Path, status: int, body: bytes, headers: dict[str, str]
) -> None:
    async with a_bench(answering(status, body, **headers), tmp_path) as bench:
        reply = await bench.post()

    assert (reply.status, reply.body, reply.is_json) == (status, None, False)
    assert files_in(bench.spool_dir) == []


async def test_a_refusal_is_handed_on_with_its_headers(tmp_path: Path) -> None:
    script = answering(
        429, b'{"error": {"code": "slow_down"}}', Retry_After="7", content_type="application/json"
    )
    async with a_bench(script, tmp_path) as bench:
        reply = await bench.post()

    assert reply.status == 429
    assert reply.headers["retry-after"] == "7"
    assert reply.body == {"error": {"code": "slow_down"}}


async def test_a_redirect_is_an_answer_and_is_not_followed(tmp_path: Path) -> None:
    async with a_bench(
        answering(302, b"", location="/v1/elsewhere", content_type="text/html"), tmp_path
    ) as bench:
        reply = await bench.post()

    assert reply.status == 302
    assert bench.server.connections == 1


@pytest.mark.parametrize("script", [reset_after_headers, cut_body, silence, answering(200, b"{")])
async def test_a_failed_poll_says_nothing_about_the_order(tmp_path: Path, script: Script) -> None:
    async with a_bench(script, tmp_path) as bench:
        with pytest.raises(PollFailed):
            await bench.poll(timeout_s=0.2)


async def test_a_caller_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b'["' + base64.b64encode(PICTURE) * 80
        )
        begun.set()
        await exchange.reader.read()

    async with a_bench(slow, tmp_path) as bench:
        task = asyncio.create_task(bench.post())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert files_in(bench.spool_dir) == []


async def test_a_transport_of_this_process_breaks_like_a_network(tmp_path: Path) -> None:
    class BreakingOff(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            await request.aread()
            raise httpx2.ReadError("gone")

    class Refusing(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectError("no")

    kinds = []
    transports: list[httpx2.AsyncBaseTransport] = [Refusing(), BreakingOff()]
    for transport in transports:
        async with a_bench(OK, tmp_path, {"vendor": transport}) as bench:
            kinds.append((await bench.failure()).kind)
            assert bench.server.connections == 0

    assert kinds == [FailureKind.DOWN, FailureKind.TIMED_OUT]


@pytest.mark.parametrize("statuses", [[], [404], [403, 404, 500, 503]])
async def test_a_link_that_lags_is_tried_again(tmp_path: Path, statuses: list[int]) -> None:
    left = [*statuses]

    async def lagging(exchange: Exchange) -> None:
        await exchange.request()
        status = left.pop(0) if left else 200
        await exchange.answer(status, PICTURE if status == 200 else b"")

    async with a_bench(lagging, tmp_path) as bench:
        assert await bench.fetch(f"{bench.server.url}/a.png?sig=1") == PICTURE

    assert len(bench.naps) == len(statuses)


@pytest.mark.parametrize("script, tries", [(answering(404, b""), 5), (answering(410, b""), 1), (cut_body, 5)])
async def test_a_link_that_stays_broken_is_given_up(tmp_path: Path, script: Script, tries: int) -> None:
    async with a_bench(script, tmp_path) as bench:
        with pytest.raises(FetchFailed):
            await bench.fetch(f"{bench.server.url}/a.png")

    assert bench.server.connections == tries
    assert files_in(bench.spool_dir) == []


async def test_a_link_to_a_forbidden_address_is_not_followed(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench:
        for link in ("http://169.254.169.254/a.png", "http://localhost/a.png", "file:///etc/passwd", "a.png"):
            with pytest.raises(FetchFailed):
                await bench.fetch(link)

    assert bench.naps == []


async def test_a_link_that_drips_is_given_up_in_time(tmp_path: Path) -> None:
    async with a_bench(drip, tmp_path) as bench:
        with pytest.raises(FetchFailed):
            await bench.fetch(f"{bench.server.url}/a.png", timeout_s=0.2)

    assert files_in(bench.spool_dir) == []


async def test_the_key_goes_with_a_link_to_the_upstreams_own_origin(tmp_path: Path) -> None:
    async with a_bench(answering(200, b"x"), tmp_path) as bench:
        await bench.fetch(f"{bench.server.url}/elsewhere/a.png")

    assert bench.server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_data_url_is_a_link_to_its_own_bytes(tmp_path: Path) -> None:
    async with a_bench(OK, tmp_path) as bench:
        encoded = base64.b64encode(b"tiny").decode()
        assert await bench.fetch(f"data:application/octet-stream;base64,{encoded}") == b"tiny"
        for link in ("data:image/png;base64,*", "data:,x", "data:"):
            with pytest.raises(FetchFailed):
                await bench.fetch(link)


@pytest.mark.parametrize("script", [reset_after_body, cut_body, silence, no_http, answering(200, b"{")])
async def test_no_key_prompt_or_query_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: Script
) -> None:
    caplog.set_level(logging.DEBUG)
    async with a_bench(script, tmp_path) as bench:
        call = Call(method="POST", url=f"{bench.server.url}/x?sig=q", body=JsonBody(value={"prompt": PROMPT}))
        with pytest.raises(UpstreamFailure) as caught:
            await bench.send(call, timeout_s=0.2)

    shown = caplog.text + everything_said(caught.value)
    assert not [secret for secret in (KEY, PROMPT, "sig=q") if secret in shown]


def everything_said(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text
