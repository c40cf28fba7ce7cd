"""A vendor that costs next to nothing, so that a run measures the gateway: OpenAI's format, answers made beforehand.

`python -m tests.bench.vendor` prints its address as one line of JSON. `POST /_bench/mode` says how it answers from
then on and starts its counts anew; `GET /_bench/counts` reads them.
"""

import argparse
import asyncio
import base64
import json
import signal
import sys
from dataclasses import dataclass
from typing import Final

from tests.simulators.pictures import noise, picture

API_KEY: Final = "sk-bench-0123456789abcdef0123456789abcdef"
SMALL: Final = "1024x1024"
LARGE: Final = "2048x2048"
"""The size for which the picture is 12.6 MB that do not compress."""

_CONTROL: Final = b"/_bench/"
_WRITE_BYTES: Final = 256 * 1024
_HEAD_BYTES: Final = 64 * 1024
_USAGE: Final = {
    "total_tokens": 210,
    "input_tokens": 14,
    "output_tokens": 196,
    "input_tokens_details": {"text_tokens": 14, "image_tokens": 0},
}
_ERROR: Final = {
    "error": {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}
}


@dataclass(slots=True)
class Mode:
    """How purchases are answered."""

    kind: str = "ok"
    """`ok`; `error`: 500 in OpenAI's envelope; `silent`: no answer at all."""
    delay_s: float = 0.0


@dataclass(slots=True)
class Counts:
    """What happened since the mode was last set."""

    posts: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0


class Vendor:
    """Answers on one port."""

    def __init__(self) -> None:
        self._mode = Mode()
        self._counts = Counts()
        self._answers = {
            SMALL: _answer(200, _reply(SMALL, base64.b64encode(picture(1024, 1024, "png", seed=1)))),
            LARGE: _answer(200, _reply(LARGE, noise(2048, 2048)[1])),
        }
        self._error = _answer(500, json.dumps(_ERROR).encode())

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its client leaves."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_content_length(head))
                await self._respond(head.split(b" ", 2)[1], body, reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client, or the run, is over
        finally:
            writer.close()

    async def _respond(
        self, path: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if path.startswith(_CONTROL):
            writer.write(self._control(path, body))
            return
        counts, mode = self._counts, self._mode
        counts.posts += 1
        counts.in_flight += 1
        counts.peak_in_flight = max(counts.peak_in_flight, counts.in_flight)
        try:
            if mode.delay_s:
                await asyncio.sleep(mode.delay_s)
            match mode.kind:
                case "silent":
                    await reader.read()  # until the client gives up
                case "error":
                    writer.write(self._error)
                case _:
                    await _send(self._answers[LARGE if LARGE.encode() in body else SMALL], writer)
        finally:
            counts.in_flight -= 1

    def _control(self, path: bytes, body: bytes) -> bytes:
        if path.endswith(b"mode"):
            self._mode, self._counts = Mode(**json.loads(body)), Counts()
        counts = self._counts
        return _answer(
            200, json.dumps({"posts": counts.posts, "peak_in_flight": counts.peak_in_flight}).encode()
        )


async def _send(answer: bytes, writer: asyncio.StreamWriter) -> None:
    # In pieces, for a transport copies what it cannot send at once.
    view = memoryview(answer)
    for start in range(0, len(view), _WRITE_BYTES):
        writer.write(view[start : start + _WRITE_BYTES])
        await writer.drain()


def _reply(size: str, encoded: bytes) -> bytes:
    head = {
        "created": 1778637249,
        "size": size,
        "quality": "low",
        "background": "opaque",
        "output_format": "png",
    }
    return json.dumps({**head, "usage": _USAGE, "data": [{"b64_json": encoded.decode()}]}).encode()


def _answer(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} .\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def _serve(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(Vendor().accept, "127.0.0.1", port, limit=_HEAD_BYTES, backlog=4096)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    sys.stdout.write(json.dumps({"base_url": url}) + "\n")
    sys.stdout.flush()
    await stop.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.vendor", description="A vendor that costs nothing."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
