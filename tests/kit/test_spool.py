"""A JSON document with pictures in it, read from whatever pieces it arrives in."""

import asyncio
import base64
import json
import random
import string
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.kit.spool import (
    SpooledBytes,
    SpooledJson,
    SpoolLimits,
    SpoolMalformed,
    SpoolOverflow,
    SpoolParser,
    spool_json,
)

LIMITS = SpoolLimits(text_bytes=64)
PICTURE = random.Random(1).randbytes(5000)
ENCODED = base64.b64encode(PICTURE).decode()


def parse(directory: Path, pieces: Iterable[bytes], limits: SpoolLimits = LIMITS) -> SpooledJson:
    parser = SpoolParser(directory, limits)
    try:
        for piece in pieces:
            parser.feed(piece)
        return parser.close()
    except (SpoolOverflow, SpoolMalformed):
        parser.discard()
        raise


def unspooled(tree: SpooledJson) -> Any:
    """The tree with the base64 of each file in the handle's place."""
    match tree:
        case SpooledBytes():
            data = tree.path.read_bytes()
            assert len(data) == tree.size_bytes
            return base64.b64encode(data).decode()
        case dict():
            return {key: unspooled(item) for key, item in tree.items()}
        case list():
            return [unspooled(item) for item in tree]
        case _:
            return tree


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for place in sorted({place % (len(data) + 1) for place in places}):
        yield data[start:place]
        start = place
    yield data[start:]


async def stream(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


pictures = st.binary(min_size=60, max_size=400).map(lambda data: base64.b64encode(data).decode())
# The first character is in no base64 text, so a long string of this kind stays text.
texts = st.text(max_size=200).map(lambda text: "~" + text)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | pictures,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(documents, st.lists(st.integers(min_value=0), max_size=20), st.booleans(), st.sampled_from([None, 2]))
def test_any_document_in_any_pieces_gives_the_same_tree(
    document: Any, places: list[int], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    with tempfile.TemporaryDirectory() as name:
        assert unspooled(parse(Path(name), [data])) == document
        assert unspooled(parse(Path(name), cut(data, places))) == document


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=5))
def test_any_bytes_give_a_tree_or_one_of_two_errors(data: bytes, places: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        try:
            parse(Path(name), cut(data, places))
        except (SpoolMalformed, SpoolOverflow):
            assert files_in(Path(name)) == []


@given(
    st.text(alphabet='AZaz09+/=\\"un\\{}[]:, ', min_size=70, max_size=200),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_pieces_do_not_change_how_a_doubtful_string_is_judged(text: str, places: list[int]) -> None:
    data = f'["{text}"]'.encode()

    def judged(pieces: Iterable[bytes]) -> object:
        with tempfile.TemporaryDirectory() as name:
            try:
                return unspooled(parse(Path(name), pieces))
            except (SpoolMalformed, SpoolOverflow) as exc:
                return type(exc)

    outcome = judged([data])
    assert judged(cut(data, places)) == outcome
    assert judged(data[place : place + 1] for place in range(len(data))) == outcome


def test_a_picture_becomes_a_file_and_short_values_stay(tmp_path: Path) -> None:
    body = json.dumps({"created": 7, "data": [{"b64_json": ENCODED}], "size": "8x8"}).encode()

    tree = parse(tmp_path, [body])

    assert isinstance(tree, dict)
    assert tree["created"] == 7
    assert tree["size"] == "8x8"
    [handle] = [item["b64_json"] for item in tree["data"]]  # type: ignore[union-attr,index,call-overload]
    assert isinstance(handle, SpooledBytes)
    assert handle.path.read_bytes() == PICTURE
    assert handle.size_bytes == 5000
    assert handle.path.parent == tmp_path


@pytest.mark.parametrize(
    "written",
    [
        ENCODED,
        ENCODED.rstrip("="),
        ENCODED.replace("/", "\\/"),
        ENCODED.replace("+", "\\u002B").replace("=", "\\u003d"),
        "\\n".join(ENCODED[place : place + 76] for place in range(0, len(ENCODED), 76)),
        "\\r\\n".join(ENCODED[place : place + 76] for place in range(0, len(ENCODED), 76)) + "\\r\\n",
        f"data:image/png;base64,{ENCODED}",
        f"data:image\\/png;charset=binary;base64,{ENCODED}",
        f"data:;base64,{ENCODED}",
    ],
    ids=["plain", "unpadded", "slashes", "unicode", "lines", "crlf", "data-url", "escaped-url", "bare-url"],
)
def test_the_ways_of_writing_a_picture_all_give_its_bytes(tmp_path: Path, written: str) -> None:
    body = f'{{"p":"{written}"}}'.encode()

    for pieces in ([body], [body[place : place + 7] for place in range(0, len(body), 7)]):
        tree = parse(tmp_path, pieces)
        assert isinstance(tree, dict)
        assert isinstance(tree["p"], SpooledBytes)
        assert tree["p"].path.read_bytes() == PICTURE


def test_a_long_text_stays_text(tmp_path: Path) -> None:
    text = 'He said: "no\\way". ' * 50

    assert parse(tmp_path, [json.dumps({"message": text}).encode()]) == {"message": text}
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"<html>",
        b'{"a": 1',
        b'{"a": "x',
        b'{"a": "x\\',
        b'{"a": 1}}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": \xff}',
        b'"\xff"',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\x00",
        b'{"a": "' + ENCODED.encode(),
        b'{"a": "' + ENCODED.encode()[:999] + b'\n"}',
        b'{"a": "' + ENCODED.encode() + b'AAAA"}',
        b'{"a": "' + ENCODED.encode()[:401] + b'"}',
        b'{"a": "' + ENCODED.encode()[:400] + b'*"}',
        b'{"a": "' + ENCODED.encode()[:400] + b'\\uZZZZ"}',
        b'{"a": "' + ENCODED.encode()[:400] + b'\\u00"}',
        b'{"a": "' + ENCODED.encode()[:400] + b'\\u00e9"}',
        b'{"' + ENCODED.encode() + b'": 1}',
    ],
)
def test_what_is_no_document_is_malformed_and_leaves_no_file(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(SpoolMalformed) as caught:
        parse(tmp_path, [body])

    assert files_in(tmp_path) == []
    assert ENCODED[:20] not in str(caught.value)


@pytest.mark.parametrize(
    "limits, body",
    [
        (SpoolLimits(total_bytes=100), b" " * 101),
        (SpoolLimits(document_bytes=100, text_bytes=64), b'["' + b"~" * 100),
        (SpoolLimits(document_bytes=100), b" " * 101),
        (SpoolLimits(blob_bytes=4999, text_bytes=64), f'["{ENCODED}"]'.encode()),
        (SpoolLimits(depth=32), b"[" * 33),
        (SpoolLimits(depth=32), b'{"a":' * 33),
    ],
    ids=["total", "text", "spaces", "blob", "lists", "objects"],
)
def test_each_limit_stops_the_body_and_leaves_no_file(
    tmp_path: Path, limits: SpoolLimits, body: bytes
) -> None:
    with pytest.raises(SpoolOverflow):
        parse(tmp_path, [body[place : place + 50] for place in range(0, len(body), 50)], limits)

    assert files_in(tmp_path) == []


def test_brackets_in_strings_are_not_depth(tmp_path: Path) -> None:
    assert parse(tmp_path, [json.dumps(["[" * 40, "]"]).encode()]) == ["[" * 40, "]"]
    assert parse(tmp_path, [b"[" * 32 + b"]" * 32]) is not None


def test_a_value_named_twice_counts_as_last_written_and_leaves_one_file(tmp_path: Path) -> None:
    other = base64.b64encode(b"x" * 300).decode()

    tree = parse(tmp_path, [f'{{"a":"{ENCODED}","a":"{other}"}}'.encode()])

    assert unspooled(tree) == {"a": other}
    assert len(files_in(tmp_path)) == 1


async def test_a_streamed_body_is_read_as_it_comes(tmp_path: Path) -> None:
    body = json.dumps([ENCODED, {"a": ENCODED}]).encode()

    tree = await spool_json(
        stream(body[place : place + 999] for place in range(0, len(body), 999)), tmp_path, LIMITS
    )

    assert unspooled(tree) == [ENCODED, {"a": ENCODED}]


async def test_a_stream_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'["' + base64.b64encode(b"x" * 2_000_000)
        yield b"A" * 40
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await spool_json(broken(), tmp_path, LIMITS)

    assert files_in(tmp_path) == []


async def test_a_reader_that_is_cancelled_leaves_no_file(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b'["' + base64.b64encode(b"x" * 2_000_001)
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(spool_json(endless(), tmp_path, LIMITS))
    await waiting.wait()
    assert len(files_in(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert files_in(tmp_path) == []


def test_a_parser_that_is_discarded_ignores_what_still_comes(tmp_path: Path) -> None:
    parser = SpoolParser(tmp_path, LIMITS)
    parser.feed(f'["{ENCODED}'.encode())
    parser.discard()
    parser.feed(f'","{ENCODED}"]'.encode())

    assert files_in(tmp_path) == []


async def test_memory_stays_within_a_few_buffers_whatever_the_picture(tmp_path: Path) -> None:
    alphabet = (string.ascii_letters + string.digits + "+/").encode() * 1024

    async def body() -> AsyncIterator[bytes]:
        yield b'{"data":[{"b64_json":"'
        for _ in range(400):
            yield alphabet
        yield b'"}]}'

    tracemalloc.start()
    try:
        tree = await spool_json(body(), tmp_path, SpoolLimits())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 8 * 1024 * 1024
    assert isinstance(tree, dict)
    [path] = files_in(tmp_path)
    [handle] = [item["b64_json"] for item in tree["data"]]  # type: ignore[union-attr,index,call-overload]
    assert handle == SpooledBytes(path=path, size_bytes=400 * len(alphabet) * 3 // 4)
