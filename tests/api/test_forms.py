"""Multipart forms: read in any cut, bounded while they come, strict about what could be read in two ways."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from app.api.errors import RequestTooLarge
from app.api.forms import Form, FormLimits, read_form
from app.domain.errors import GatewayError, InvalidValue
from tests.api.multipart import File, multipart

LIMITS = FormLimits(total_bytes=10_000, file_bytes=1_000, files=3)


def a_request(body: bytes, content_type: str, *, step: int = 10_000, **headers: str) -> Request:
    """A request whose body comes in pieces of `step` bytes."""
    pieces = [body[start : start + step] for start in range(0, len(body), step)] or [b""]
    left = iter(pieces)
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": next(left, b""), "more_body": sent < len(pieces)}

    named = {"content-type": content_type, **headers}
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()]
    return Request(
        {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}, receive
    )


async def read(folder: Path, *parts: tuple[str, str | File], step: int = 10_000) -> Form:
    body, content_type = multipart(*parts)
    return await read_form(a_request(body, content_type, step=step), folder, LIMITS)


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
async def test_a_form_reads_the_same_however_it_is_cut(tmp_path: Path, step: int) -> None:
    tricky = b"\r\n--edge-of-a-for\r\n--\r\n" * 5
    form = await read(
        tmp_path,
        ("prompt", "café\r\nau lait"),
        ("image", File(tricky, "image/png", "a b.png")),
        ("empty", ""),
        step=step,
    )
    assert form.fields == {"prompt": "café\r\nau lait", "empty": ""}
    (file,) = form.files
    assert (file.name, file.filename, file.media_type) == ("image", "a b.png", "image/png")
    assert (file.path.read_bytes(), file.size_bytes) == (tricky, len(tricky))


async def test_files_keep_their_order_and_have_names_of_ours(tmp_path: Path) -> None:
    form = await read(tmp_path, *[("image[]", File(bytes([n]) * 10, filename="../../x")) for n in range(3)])
    assert [file.path.read_bytes()[0] for file in form.files] == [0, 1, 2]
    assert all(file.path.parent == tmp_path and file.path.name.startswith("part_") for file in form.files)


@pytest.mark.parametrize(
    "parts, error, param",
    [
        ([("image", File(bytes(1_001)))], RequestTooLarge, "image"),
        ([("image", File(bytes(900)))] * 4, InvalidValue, "image"),
        ([("prompt", "a"), ("prompt", "b")], InvalidValue, "prompt"),
        ([("a", "x" * 9_000), ("b", "x" * 9_000)], RequestTooLarge, None),
        ([(f"field{n}", "") for n in range(101)], InvalidValue, "field100"),
    ],
    ids=["file", "files", "twice", "total", "fields"],
)
async def test_what_passes_a_limit_is_refused(
    tmp_path: Path, parts: list[tuple[str, str | File]], error: type[GatewayError], param: str | None
) -> None:
    with pytest.raises(error) as caught:
        await read(tmp_path, *parts, step=1_000)
    assert caught.value.param == param


async def test_an_announced_length_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    request = a_request(b"", "multipart/form-data; boundary=edge", content_length="10001")
    with pytest.raises(RequestTooLarge):
        await read_form(request, tmp_path, LIMITS)


@pytest.mark.parametrize(
    "body, content_type",
    [
        (b"", "multipart/form-data; boundary=edge"),
        (b"--edge\r\n", "multipart/form-data; boundary=edge"),
        (b"hello", "multipart/form-data; boundary=edge"),
        (b"--edge--\r\n", "multipart/form-data"),
        (b"--edge--\r\n", "multipart/form-data; boundary="),
        (b"--edge--\r\n", "multipart/mixed; boundary=edge"),
        (b"--edge--\r\n", "application/x-www-form-urlencoded"),
        (b"--edge\r\nno-disposition: x\r\n\r\nvalue\r\n--edge--\r\n", "multipart/form-data; boundary=edge"),
        (
            b'--edge\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\xfe\r\n--edge--\r\n',
            "multipart/form-data; boundary=edge",
        ),
        (
            b'--edge\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nsnow\r\n',
            "multipart/form-data; boundary=edge",
        ),
        (b"--edge\r\n" + b"x: " + b"y" * 9_000, "multipart/form-data; boundary=edge"),
        (b"--edge--\r\n", "multipart/form-data; boundary=" + "e" * 300),
    ],
)
async def test_what_is_no_whole_form_is_refused(tmp_path: Path, body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidValue):
        await read_form(a_request(body, content_type), tmp_path, LIMITS)
