"""The sandbox: an upstream within the process, behind the face of an HTTP transport, that speaks OpenAI's format.

It draws instead of generating, and waits and fails as its options say. Source: upstreams.md 1.9 to 1.14, read
2026-11-21.
"""

import asyncio
import json
import math
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import httpx2

from app.catalog.entries import TokenRule
from app.catalog.pricing import CHARS_PER_TEXT_TOKEN, output_tokens
from app.kit.base64 import encode_stream, encoded_length
from app.kit.ids import new_id
from app.kit.json import Json
from app.kit.json_stream import StreamedString, render
from app.upstreams.sandbox.drawing import Sketch, write_picture
from app.upstreams.sandbox.options import FailureRule, SandboxFailure, SandboxOptions
from app.upstreams.sandbox.order import Order, Refused, read_edit, read_generation

# A drawing takes one processor and some 80 MB at 3840x2160; whoever orders more of them waits.
_DRAWN_AT_ONCE: Final = 2
_CHUNK_BYTES: Final = 192 * 1024

# For models whose own rule is not known, or does not know the size: gpt-image-2's formula.
_USUAL_RULE: Final = TokenRule(factors={"low": 16, "medium": 48, "high": 96})
_USUAL_QUALITY: Final = "medium"

_EDGE_PAGE: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>"
    b"\r\n</body>\r\n</html>\r\n"
)


class SandboxTransport(httpx2.AsyncBaseTransport):
    """Answers `POST .../images/generations`, `POST .../images/edits` and `GET .../models` under any base URL."""

    def __init__(
        self,
        options: SandboxOptions,
        directory: Path,
        *,
        models: Mapping[str, TokenRule | None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`directory` is made when needed and holds nameless files only, which are gone when their reply is closed.

        `models` are the remote model names to list, each with the rule for its tokens; a name that is not among them
        is drawn all the same.
        """
        self._options = options
        self._directory = directory
        self._models = models or {}
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._calls = 0
        self._threads = ThreadPoolExecutor(_DRAWN_AT_ONCE, thread_name_prefix="sandbox")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request as OpenAI would.

        Raises:
            httpx2.ReadTimeout: the answer takes longer than the request's own read timeout.
            httpx2.ReadError: the options ask for a broken connection.
        """
        started = self._clock()
        try:
            response = await self._answer(request)
        except Refused as refusal:
            response = _json(refusal.status, refusal.body)
            if refusal.retry_after_s is not None:
                response.headers["retry-after"] = str(math.ceil(refusal.retry_after_s))
                response.headers["retry-after-ms"] = str(round(refusal.retry_after_s * 1000))
        response.headers["x-request-id"] = new_id("req")
        response.headers["openai-processing-ms"] = str(round((self._clock() - started) * 1000))
        response.headers["openai-version"] = "2020-10-01"
        return response

    async def aclose(self) -> None:
        """Let the threads end; drawings that nobody waits for any more are finished and dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if request.method == "GET" and path.endswith("/models"):
            return self._list()
        is_edit = path.endswith("/images/edits")
        if request.method != "POST" or not (is_edit or path.endswith("/images/generations")):
            raise Refused(404, None, f"Invalid URL ({request.method} {path})")
        self._calls += 1
        call = self._calls
        order = await self._read(request, is_edit)
        failure = self._options.failure(call, order.prompt)
        delay_s = self._options.delay(call)
        if failure is not None:
            return await self._fail(failure, request, delay_s)
        if order.stream:
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, stream=_Body(self._events(order, delay_s)))
        await self._wait(delay_s, request)
        return await self._complete(order)

    def _list(self) -> httpx2.Response:
        created = int(self._now().timestamp())
        return _json(
            200,
            {
                "object": "list",
                "data": [
                    {"id": name, "object": "model", "created": created, "owned_by": "sandbox"}
                    for name in self._models
                ],
            },
        )

    async def _read(self, request: httpx2.Request, is_edit: bool) -> Order:
        await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
        body = request.stream
        if not isinstance(body, httpx2.AsyncByteStream):
            raise TypeError("a request to the sandbox has an asynchronous body")
        if is_edit:
            return await read_edit(request.headers.get("content-type", ""), body, self._directory)
        return await read_generation(body)

    async def _wait(self, delay_s: float, request: httpx2.Request) -> None:
        """Wait as long as the answer takes, or as the caller is willing to wait for a first byte."""
        read_s = request.extensions.get("timeout", {}).get("read")
        if read_s is not None and delay_s > read_s:
            await self._sleep(read_s)
            raise httpx2.ReadTimeout("the sandbox does not answer", request=request)
        if math.isinf(delay_s):
            await asyncio.Event().wait()
        if delay_s > 0:
            await self._sleep(delay_s)

    async def _fail(self, rule: FailureRule, request: httpx2.Request, delay_s: float) -> httpx2.Response:
        await self._wait(math.inf if rule.kind is SandboxFailure.TIMEOUT else delay_s, request)
        match rule.kind:
            case SandboxFailure.RESET | SandboxFailure.TIMEOUT:
                raise httpx2.ReadError("the sandbox broke the connection", request=request)
            case SandboxFailure.EDGE:
                return httpx2.Response(
                    502, headers={"content-type": "text/html"}, stream=_Body(_bytes(_EDGE_PAGE))
                )
            case SandboxFailure.BUSY:
                raise Refused(
                    429,
                    "rate_limit_exceeded",
                    "Rate limit reached in the sandbox.",
                    type="requests",
                    retry_after_s=rule.retry_after_s,
                )
            case SandboxFailure.DOWN:
                message = "The server had an error while processing your request. Sorry about that!"
                raise Refused(500, "server_error", message, type="server_error")
            case SandboxFailure.OVERLOADED:
                message = "The server is overloaded. Please try again later."
                raise Refused(503, "server_is_overloaded", message, type="service_unavailable_error")
            case SandboxFailure.MODERATION:
                message = "Your request was rejected by the safety system. safety_violations=[sandbox]."
                raise Refused(400, "moderation_blocked", message, type="image_generation_user_error")
            case SandboxFailure.QUOTA:
                message = "You exceeded your current quota, please check your plan and billing details."
                raise Refused(429, "insufficient_quota", message, type="insufficient_quota")
            case SandboxFailure.CREDENTIALS:
                raise Refused(401, "invalid_api_key", "Incorrect API key provided.")
            case SandboxFailure.INVALID:
                raise Refused(
                    400,
                    "invalid_value",
                    "Invalid value, because the sandbox's options say so.",
                    type="image_generation_user_error",
                )

    async def _complete(self, order: Order) -> httpx2.Response:
        files: list[IO[bytes]] = []
        try:
            for number in range(1, order.n + 1):
                files.append(await self._drawn(self._sketch(order, number)))  # noqa: PERF401 - closed if one fails
            document = {
                "created": int(self._now().timestamp()),
                "background": order.background,
                "data": [{"b64_json": _base64(file)} for file in files],
                "output_format": order.format.value,
                "quality": order.quality,
                "size": str(order.size),
                "usage": self._usage(order),
            }
            length, stream = render(document)
        except BaseException:
            _close(files)
            raise
        headers = {"content-type": "application/json", "content-length": str(length)}
        return httpx2.Response(200, headers=headers, stream=_Body(_parts(stream), files))

    async def _events(self, order: Order, delay_s: float) -> AsyncGenerator[bytes]:
        """Show each picture getting finer, then finished, spread over the delay."""
        name = "image_edit" if order.is_edit else "image_generation"
        steps = order.partial_images + 1
        for number in range(1, order.n + 1):
            for step in range(steps):
                if delay_s > 0:
                    await self._sleep(delay_s / (steps * order.n))
                left = steps - 1 - step
                event: dict[str, object] = {
                    "type": f"{name}.partial_image" if left else f"{name}.completed",
                    "created_at": int(self._now().timestamp()),
                    "size": str(order.size),
                    "quality": order.quality,
                    "background": order.background,
                    "output_format": order.format.value,
                }
                if left:
                    event["partial_image_index"] = step
                else:
                    event["usage"] = self._event_usage(order, number)
                # 2 to the power of 3, 4, 5: halves, from blocks of 32 pixels to blocks of 8.
                coarseness = left + 2 if left else 0
                file = await self._drawn(replace(self._sketch(order, number), coarseness=coarseness))
                try:
                    event["b64_json"] = _base64(file)
                    yield f"event: {event['type']}\ndata: ".encode()
                    async for chunk in render(event)[1]:
                        yield chunk
                    yield b"\n\n"
                finally:
                    file.close()

    def _sketch(self, order: Order, number: int) -> Sketch:
        return Sketch(
            prompt=order.prompt,
            size=order.size,
            format=order.format,
            compression=order.compression,
            is_transparent=order.background == "transparent",
            number=number,
            count=order.n,
            seed=self._options.seed,
            photo=order.photo,
            region=order.region,
        )

    async def _drawn(self, sketch: Sketch) -> IO[bytes]:
        """Draw into a nameless file, off the event loop; the file is whoever's called."""
        drawing = self._threads.submit(_draw, sketch, self._directory)
        try:
            return await asyncio.wrap_future(drawing)
        except asyncio.CancelledError:
            # A thread cannot be stopped: what it still draws is dropped when it is done.
            drawing.add_done_callback(_drop)
            raise

    def _usage(self, order: Order) -> dict[str, Json]:
        """Tokens of the whole order."""
        text, image, output = self._tokens(order)
        output *= order.n
        return {
            "input_tokens": text + image,
            "input_tokens_details": {"image_tokens": image, "text_tokens": text},
            "output_tokens": output,
            "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
            "total_tokens": text + image + output,
        }

    def _event_usage(self, order: Order, number: int) -> dict[str, Json]:
        """Tokens of one picture of a stream; the input counts with the first, so that the sum is the order's."""
        text, image, output = self._tokens(order)
        if number > 1:
            text = image = 0
        return {
            "input_tokens": text + image,
            "input_tokens_details": {"image_tokens": image, "text_tokens": text},
            "output_tokens": output,
            "total_tokens": text + image + output,
        }

    def _tokens(self, order: Order) -> tuple[int, int, int]:
        """Text in, pictures in, and output of one picture with its partial ones."""
        rule = self._models.get(order.model) or _USUAL_RULE
        output = (
            output_tokens(rule, order.quality, order.size)
            or output_tokens(_USUAL_RULE, order.quality, order.size)
            or output_tokens(_USUAL_RULE, _USUAL_QUALITY, order.size)
            or 0
        )
        partial = rule.partial_image * order.partial_images if order.stream else 0
        return (
            -(-len(order.prompt) // CHARS_PER_TEXT_TOKEN),
            rule.input_image * order.inputs,
            output + partial,
        )


class _Body(httpx2.AsyncByteStream):
    """A body that is made while it is read, and the files that it is made from."""

    def __init__(self, chunks: AsyncGenerator[bytes], files: Sequence[IO[bytes]] = ()) -> None:
        self._chunks = chunks
        self._files = files

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        await self._chunks.aclose()
        _close(self._files)


async def _bytes(content: bytes) -> AsyncGenerator[bytes]:
    yield content


async def _parts(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    async for chunk in chunks:
        yield chunk


def _json(status: int, document: Mapping[str, Json]) -> httpx2.Response:
    body = json.dumps(document).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    return httpx2.Response(status, headers=headers, stream=_Body(_bytes(body)))


def _draw(sketch: Sketch, directory: Path) -> IO[bytes]:
    # Closed by whoever sends it; without a name, nothing is left behind even by a crash.
    file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
    try:
        write_picture(sketch, file)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def _drop(drawing: Future[IO[bytes]]) -> None:
    if not drawing.cancelled() and drawing.exception() is None:
        drawing.result().close()


def _close(files: Sequence[IO[bytes]]) -> None:
    for file in files:
        file.close()


def _base64(file: IO[bytes]) -> StreamedString:
    size_bytes = os.fstat(file.fileno()).st_size
    return StreamedString(encoded_length(size_bytes), lambda: encode_stream(_chunks(file)))


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, 0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
        yield chunk
