"""Request bodies on their way out: laid out first, so that their length is known, then streamed from storage."""

import json
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from app.kit.base64 import encode_stream, encoded_length
from app.kit.streams import SizedStream
from app.upstreams.contract import (
    FilePart,
    InputDataUrl,
    InputLink,
    JsonBody,
    MultipartBody,
)

# What would end a quoted name in a part's header, and how browsers write it instead.
_UNQUOTABLE: Final = {'"': "%22", "\r": "%0D", "\n": "%0A"}


class InputSource(Protocol):
    """Where the inputs of an edit are stored."""

    async def open(self, file_id: str) -> SizedStream:
        """Find a stored input; its bytes are read only when the chunks are asked for."""
        ...


class InputChanged(Exception):
    """A stored input has not as many bytes as storage said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A body laid out: literal bytes, and inputs that stand between them."""

    content_type: str
    parts: tuple[bytes | SizedStream, ...]

    @property
    def size_bytes(self) -> int:
        """The length of the whole body."""
        return sum(part.size_bytes if isinstance(part, SizedStream) else len(part) for part in self.parts)

    async def stream(self) -> AsyncGenerator[bytes]:
        """Yield the body once, holding one chunk at a time.

        Raises:
            InputChanged: an input is longer or shorter than announced.
        """
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            left_bytes = part.size_bytes
            async for chunk in part.chunks:
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    break
                yield chunk
            if left_bytes != 0:
                raise InputChanged(f"a stored input has not the {part.size_bytes} bytes that it should have")


async def lay_out(
    body: JsonBody | MultipartBody, inputs: InputSource, links: Callable[[str], Awaitable[str]]
) -> Payload:
    """Lay a body out with its inputs in place; `links` makes a short-lived public link to a stored file."""
    if isinstance(body, MultipartBody):
        return await _multipart(body, inputs)
    return await _json(body, inputs, links)


async def _json(body: JsonBody, inputs: InputSource, links: Callable[[str], Awaitable[str]]) -> Payload:
    # Each input is written as a mark that no client can guess, and the text is cut there.
    mark = secrets.token_hex(16)
    standing: list[InputDataUrl | InputLink] = []

    def stand_in(value: object) -> str:
        match value:
            case InputLink():
                standing.append(value)
                return mark
            case InputDataUrl():
                standing.append(value)
                return f"data:{value.media_type};base64,{mark}"
            case _:
                raise TypeError(f"a {type(value).__name__} cannot stand in a JSON body")

    text = json.dumps(dict(body.value), default=stand_in, separators=(",", ":"), allow_nan=False)
    literals = text.encode().split(mark.encode())
    parts: list[bytes | SizedStream] = [literals[0]]
    for item, literal in zip(standing, literals[1:], strict=True):
        if isinstance(item, InputLink):
            parts += [json.dumps(await links(item.file_id))[1:-1].encode(), literal]
            continue
        stored = await inputs.open(item.file_id)
        parts += [SizedStream(encoded_length(stored.size_bytes), encode_stream(stored.chunks)), literal]
    return Payload(content_type="application/json", parts=tuple(parts))


async def _multipart(body: MultipartBody, inputs: InputSource) -> Payload:
    boundary = f"darkroom-{secrets.token_hex(16)}"
    parts: list[bytes | SizedStream] = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'.encode()
        for name, value in body.fields
    ]
    for file in body.files:
        parts += [_file_head(boundary, file), await inputs.open(file.content.file_id), b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return Payload(content_type=f"multipart/form-data; boundary={boundary}", parts=tuple(parts))


def _file_head(boundary: str, file: FilePart) -> bytes:
    return (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{_quoted(file.name)}"; filename="{_quoted(file.filename)}"\r\n'
        f"Content-Type: {file.media_type}\r\n\r\n"
    ).encode()


def _quoted(name: str) -> str:
    return re.sub(r'["\r\n]', lambda match: _UNQUOTABLE[match[0]], name)
