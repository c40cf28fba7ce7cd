"""Base64 of a stream: a picture becomes text chunk by chunk, with its length known before the first byte."""

from collections.abc import AsyncIterator

import pybase64


def encoded_length(size_bytes: int) -> int:
    """Count the characters of the padded base64 of `size_bytes` bytes."""
    return (size_bytes + 2) // 3 * 4


async def encode_stream(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Encode the joined chunks as one base64 text (standard alphabet, padded, no line breaks).

    Holds one chunk at a time, whatever its length; the pieces that come out follow the chunks that go in.
    """
    rest = b""
    async for chunk in chunks:
        data = rest + chunk if rest else chunk
        # Three bytes make four characters; what is left over waits, so that padding stands only at the end.
        whole = len(data) - len(data) % 3
        rest = bytes(data[whole:])
        if whole:
            yield pybase64.b64encode(memoryview(data)[:whole])
    if rest:
        yield pybase64.b64encode(rest)
