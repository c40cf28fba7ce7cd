"""Whole pictures are recognised, and nothing else passes for one."""

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.assets.containers import Reader, sniff, walk
from app.assets.errors import PictureBroken
from app.assets.inspection import inspect, keep
from app.assets.storage import FileStorage, Storage
from app.domain.pictures import PictureFormat, Size
from tests.assets.pictures import SAMPLES, SVG, chunk, drawing, png_declaring, saved


def read(content: bytes) -> tuple[PictureFormat, Size, int]:
    reader = Reader(io.BytesIO(content))
    kind = sniff(reader.peek(1024))
    if kind is None:
        raise PictureBroken("is of no format that we know")
    return kind, walk(reader, kind, lambda _name, _start, _end: None), reader.position


def written(folder: Path, content: bytes) -> Path:
    path = folder / "picture"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", SAMPLES)
def test_a_whole_picture_is_described(tmp_path: Path, name: str) -> None:
    found = inspect(written(tmp_path, SAMPLES[name]))

    assert found.format.value == name.split("-", maxsplit=1)[0]
    assert (found.width_px, found.height_px) == (40, 30)
    assert found.length_bytes == len(SAMPLES[name])
    assert found.sha256 == hashlib.sha256(SAMPLES[name]).digest()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_picture_cut_anywhere_is_broken(name: str) -> None:
    content = SAMPLES[name]
    for length in range(len(content)):
        with pytest.raises(PictureBroken):
            read(content[:length])


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    "garbage", [b"\0", b"PK\x03\x04 an archive", b"<script>alert(1)</script>", bytes(600_000)]
)
def test_what_follows_the_end_is_no_part_of_the_picture(tmp_path: Path, name: str, garbage: bytes) -> None:
    found = inspect(written(tmp_path, SAMPLES[name] + garbage))

    assert found.length_bytes == len(SAMPLES[name])
    assert found.sha256 == hashlib.sha256(SAMPLES[name]).digest()


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("png")])
def test_no_flipped_bit_of_a_png_passes(name: str) -> None:
    content = bytearray(SAMPLES[name])
    for index in range(len(content)):
        content[index] ^= 1 << index % 8
        with pytest.raises(PictureBroken):
            read(bytes(content))
        content[index] ^= 1 << index % 8


@pytest.mark.parametrize("name", SAMPLES)
def test_damage_is_either_reported_or_harmless_to_the_reader(name: str) -> None:
    content = bytearray(SAMPLES[name])
    for index in range(len(content)):
        for flipped in (0x01, 0x80, 0xFF):
            content[index] ^= flipped
            try:
                _, _, length = read(bytes(content))
            except PictureBroken:
                length = 0
            assert length <= len(content)
            content[index] ^= flipped


@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=40), st.integers(0, 400), st.integers(0, 40))
def test_spliced_bytes_never_surprise_the_reader(name: str, splice: bytes, at: int, dropped: int) -> None:
    content = SAMPLES[name][:at] + splice + SAMPLES[name][at + dropped :]
    try:
        _, size, length = read(content)
    except PictureBroken:
        return
    assert length <= len(content)
    assert size.pixels > 0


@given(
    st.binary(max_size=64), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"<svg "])
)
def test_bytes_of_no_picture_are_broken(content: bytes, head: bytes) -> None:
    with pytest.raises(PictureBroken):
        read(head + content)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b"not a picture", "no picture format"),
        (b"<html><body><svg></svg></body></html>", "no picture format"),
        (b"%PDF-1.7", "no picture format"),
        (b"BM" + bytes(100), "no picture format"),
        (SAMPLES["png"][:-20], "is cut off"),
        (SAMPLES["jpeg"][:-2], "is cut off"),
    ],
)
def test_the_reason_is_the_end_of_a_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(PictureBroken, match=reason):
        inspect(written(tmp_path, content))


def test_dimensions_are_told_as_declared_and_not_judged() -> None:
    assert read(png_declaring(50_000, 50_000))[1] == Size(50_000, 50_000)
    assert read(png_declaring(2**31 - 1, 1))[1] == Size(2**31 - 1, 1)
    for width_px, height_px in ((0, 5), (5, 0), (2**31, 5)):
        with pytest.raises(PictureBroken):
            read(png_declaring(width_px, height_px))


def test_a_png_without_pixels_or_in_disorder_is_broken() -> None:
    head, body, tail = SAMPLES["png"][:33], SAMPLES["png"][33:-12], SAMPLES["png"][-12:]
    for content in (
        head + tail,
        head[:8] + body + tail,
        head + chunk(b"IDAT", b"") + tail,
        head + head[8:] + body + tail,
    ):
        with pytest.raises(PictureBroken):
            read(content)


def test_parts_without_end_are_given_up() -> None:
    head, tail = SAMPLES["png"][:33], SAMPLES["png"][33:]
    with pytest.raises(PictureBroken, match="too many parts"):
        read(head + chunk(b"tEXt", b"") * 100_001 + tail)
    with pytest.raises(PictureBroken, match="too many parts"):
        read(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 100_001 + SAMPLES["jpeg"][2:])
    with pytest.raises(PictureBroken, match="too many parts"):
        read(b"\xff\xd8" + b"\xff" * 200_000 + SAMPLES["jpeg"][2:])
    with pytest.raises(PictureBroken, match="too many parts"):
        read(SAMPLES["gif"][:-1] + b"\x21\xfe" + b"\x01a" * 1_000_001 + b"\x00\x3b")


@pytest.mark.parametrize("shift", range(256 * 1024 - 12, 256 * 1024 + 4))
def test_a_marker_across_two_reads_is_seen(shift: int) -> None:
    entropy = b"\x11" * (shift - len(SAMPLES["jpeg"])) + b"\xff\x00\xff\xd3"
    whole = SAMPLES["jpeg"][:-2] + entropy + b"\xff\xff\xd9"

    assert read(whole + b"rest")[2] == len(whole)


@pytest.mark.parametrize("length", [256 * 1024 - 3, 256 * 1024, 256 * 1024 + 1, 600_000])
def test_an_svg_may_close_across_two_reads(length: int) -> None:
    closing = b"</svg  >"
    whole = b"<svg><a/><!--" + b"x" * (length - 24) + b"-->" + closing

    assert read(whole + b"\n<!-- > -->")[2] == len(whole)


@pytest.mark.parametrize(
    "head, size",
    [
        (b'<svg width="12.6" height="9">', Size(13, 9)),
        (b'<svg viewBox="0 0 64,48">', Size(64, 48)),
        (b'<svg width="100%" height="2em" viewBox="-1 -1 7 8">', Size(7, 8)),
        (b"<svg>", Size(300, 150)),
        (b'<s:svg xmlns:s="http://www.w3.org/2000/svg" width="3" height="4"><s:a/></s:svg><svg>', None),
    ],
)
def test_an_svg_may_say_its_size_in_many_ways(head: bytes, size: Size | None) -> None:
    if size is None:
        with pytest.raises(PictureBroken):
            read(head + b"<a/></svg>")
    else:
        assert read(head + b"<a/></svg>")[1] == size


@pytest.mark.parametrize(
    "content",
    [
        b"<svg/>",
        b"<svg>text</svg>",
        b"<svg><a></svg>",
        b'<?xml version="1.0"?><note><svg></svg></note>',
        b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><svg><text>&b;</text></svg>',
        b"<svg>\xff\xfe</svg>",
    ],
)
def test_an_svg_that_is_none_or_a_bomb_is_broken(content: bytes) -> None:
    with pytest.raises(PictureBroken):
        read(content)


async def test_what_is_kept_is_the_picture_alone(storage: Storage, tmp_path: Path) -> None:
    content = saved(drawing(700, 500), "PNG")
    source = written(tmp_path, content + b"PK\x03\x04")

    kept = await keep(source, storage)

    assert kept.key.endswith(".png")
    assert (kept.format, kept.width_px, kept.height_px) == (PictureFormat.PNG, 700, 500)
    assert (kept.size_bytes, kept.sha256) == (len(content), hashlib.sha256(content).digest())
    body = b"".join([piece async for piece in storage.open(kept.key)])
    assert body == content
    assert Image.open(io.BytesIO(body)).size == (700, 500)


async def test_a_broken_picture_leaves_nothing_in_storage(file_storage: FileStorage, tmp_path: Path) -> None:
    with pytest.raises(PictureBroken):
        await keep(written(tmp_path, SAMPLES["webp-lossy"][:-1]), file_storage)

    assert [each.name for each in (tmp_path / "store").iterdir()] == []


async def test_a_picture_already_inspected_is_not_read_again(
    file_storage: FileStorage, tmp_path: Path
) -> None:
    source = written(tmp_path, SVG + b"  ")
    found = inspect(source)

    kept = await keep(source, file_storage, inspected=found)

    assert (kept.sha256, kept.size_bytes) == (found.sha256, len(SVG))
