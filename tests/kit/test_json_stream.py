"""A document with streamed strings: the same JSON as without, its length known before it is sent."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.base64 import encode_stream, encoded_length
from app.kit.json_stream import StreamedString, StreamLengthWrong, render

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def opened(chunks: Sequence[bytes]) -> Callable[[], AsyncIterator[bytes]]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return stream


async def joined(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


@given(DOCUMENTS)
async def test_a_document_without_streams_is_ordinary_json_of_the_announced_length(document: object) -> None:
    length, stream = render(document)
    body = await joined(stream)

    assert json.loads(body) == document
    assert len(body) == length


async def test_pictures_stand_in_the_document_as_base64_and_the_length_is_exact() -> None:
    picture = bytes(range(256)) * 41

    def b64() -> AsyncIterator[bytes]:
        return encode_stream(opened([picture[:1000], picture[1000:]])())

    entry = {"b64_json": StreamedString(encoded_length(len(picture)), b64), "revised_prompt": 'a "näïve" fox'}
    length, stream = render(
        {"created": 1, "data": [entry, entry], "usage": MappingProxyType({"total": (1, 2.5)})}
    )
    body = await joined(stream)

    assert len(body) == length
    parsed = json.loads(body)
    assert [base64.b64decode(item["b64_json"]) for item in parsed["data"]] == [picture, picture]
    assert parsed["data"][1]["revised_prompt"] == 'a "näïve" fox'
    assert parsed["usage"] == {"total": [1, 2.5]}


async def test_text_that_utf8_cannot_carry_is_escaped() -> None:
    length, stream = render(["\ud800"])

    assert await joined(stream) == b'["\\ud800"]'
    assert length == 10


async def test_streams_are_opened_one_at_a_time_when_they_are_reached() -> None:
    running: list[str] = []
    seen: list[list[str]] = []

    def source(name: str) -> Callable[[], AsyncIterator[bytes]]:
        async def stream() -> AsyncIterator[bytes]:
            running.append(name)
            seen.append(list(running))
            yield b"ab"
            yield b"cd"
            running.remove(name)

        return stream

    _, stream = render([StreamedString(4, source(name)) for name in ("first", "second", "third")])
    assert seen == []

    assert await joined(stream) == b'["abcd","abcd","abcd"]'
    assert seen == [["first"], ["second"], ["third"]]


@pytest.mark.parametrize("announced", [3, 5])
async def test_a_stream_of_another_length_breaks_the_reply_off(announced: int) -> None:
    _, stream = render({"b64_json": StreamedString(announced, opened([b"ab", b"cd"]))})

    with pytest.raises(StreamLengthWrong):
        await joined(stream)


def test_what_json_cannot_say_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        render([float("nan")])
    with pytest.raises(TypeError, match="b'x'"):
        render({b"x": 1})
    with pytest.raises(TypeError):
        render([object()])
