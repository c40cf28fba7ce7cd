"""Base64 of a stream equals base64 of the whole, however the stream is cut."""

import base64
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.base64 import encode_stream, encoded_length


async def stream(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@given(st.lists(st.binary(max_size=50), max_size=20))
async def test_pieces_join_to_the_base64_of_the_whole(chunks: list[bytes]) -> None:
    encoded = b"".join([piece async for piece in encode_stream(stream(chunks))])

    assert encoded == base64.b64encode(b"".join(chunks))


@pytest.mark.parametrize("size_bytes", [0, 1, 2, 3, 4, 5, 6, 255, 256, 257, 21_000_001])
def test_length_is_known_before_the_first_byte(size_bytes: int) -> None:
    assert encoded_length(size_bytes) == len(base64.b64encode(bytes(size_bytes)))


async def test_first_piece_comes_before_the_second_chunk_is_asked_for() -> None:
    asked: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for index in range(3):
            asked.append(index)
            yield b"abc" * 100

    pieces = encode_stream(chunks())
    first = await anext(pieces)

    assert first == base64.b64encode(b"abc" * 100)
    assert asked == [0]
