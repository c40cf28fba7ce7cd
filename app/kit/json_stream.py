"""A JSON document whose longest strings are streamed in, so that a reply with pictures is never whole in memory."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamedString:
    """A string value of a document that is produced while it is sent."""

    length: int
    """Bytes that `open` will yield in total, without the quotes."""
    open: Callable[[], AsyncIterator[bytes]]
    """Starts the stream. It yields ASCII that needs no escaping in JSON, such as base64."""


class StreamLengthWrong(RuntimeError):
    """A streamed string was longer or shorter than announced, so the reply has to be broken off."""


def render(document: object) -> tuple[int, AsyncIterator[bytes]]:
    """Write a JSON document as bytes; returns its exact length in bytes, and the stream.

    `StreamedString` may stand wherever a string would; everything else is what `json.dumps` takes, with mappings
    and sequences of any kind. Streams are opened one after the other, in the order of the document, and nothing
    of them is read before the stream arrives there.

    Raises:
        TypeError: a value has no form in JSON.
        ValueError: a number is NaN or infinite.
        StreamLengthWrong: while streaming, when a string is not as long as it said.
    """
    pieces = list(_merged(_pieces(document)))
    length = sum(piece.length if isinstance(piece, StreamedString) else len(piece) for piece in pieces)
    return length, _stream(pieces)


async def _stream(pieces: list[bytes | StreamedString]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        missing = piece.length
        async for chunk in piece.open():
            missing -= len(chunk)
            if missing < 0:
                raise StreamLengthWrong(f"a string announced with {piece.length} bytes is longer")
            yield chunk
        if missing:
            raise StreamLengthWrong(
                f"a string announced with {piece.length} bytes is {missing} bytes shorter"
            )


def _merged(pieces: Iterator[str | StreamedString]) -> Iterator[bytes | StreamedString]:
    text: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            text.append(piece)
            continue
        yield "".join(text).encode("ascii")
        text.clear()
        yield piece
    yield "".join(text).encode("ascii")


def _pieces(value: object) -> Iterator[str | StreamedString]:
    match value:
        case StreamedString():
            yield '"'
            yield value
            yield '"'
        case Mapping():
            opening = "{"
            for name, item in value.items():
                if not isinstance(name, str):
                    raise TypeError(f"a name in a JSON object must be a string, not {name!r}")
                yield f"{opening}{json.dumps(name)}:"
                yield from _pieces(item)
                opening = ","
            yield "}" if opening == "," else "{}"
        case list() | tuple():
            opening = "["
            for item in value:
                yield opening
                yield from _pieces(item)
                opening = ","
            yield "]" if opening == "," else "[]"
        case _:
            # ASCII only: a vendor's text may hold lone surrogates, which have no form in UTF-8.
            yield json.dumps(value, allow_nan=False)
