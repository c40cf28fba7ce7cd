"""Checking the pictures that clients hand in, and taking out of them what tells of the client: place, device, history.

Pixels are never re-encoded. What is kept of a file is what decoding needs, and how the picture is to be turned.
"""

import asyncio
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from app.assets.containers import sniff
from app.assets.errors import ImageTooLarge, InvalidImage, PictureBroken, UnsupportedFile
from app.assets.inspection import Inspected, inspect
from app.assets.isolation import decode
from app.domain.pictures import PictureFormat

_INPUTS: Final = frozenset({PictureFormat.PNG, PictureFormat.JPEG, PictureFormat.WEBP})
_COPY_BYTES: Final = 256 * 1024

# Lists of what is kept, not of what is taken out: the unknown goes.
_PNG_KEPT: Final = frozenset(
    {
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"iCCP",
        b"cICP",
        b"sBIT",
        b"bKGD",
        b"pHYs",
    }
)
_WEBP_KEPT: Final = frozenset({b"VP8X", b"ICCP", b"ALPH", b"VP8 ", b"VP8L"})
# Application segments (0xE0 to 0xEF) and comments (0xFE) carry metadata, like all between them; of these, only what
# changes how pixels are read is kept: JFIF's density without its thumbnail, colour profiles, Adobe's colour transform.
_JPEG_METADATA: Final = frozenset(bytes((0xFF, code)) for code in range(0xE0, 0xFF))
_JPEG_KEPT: Final = {b"\xff\xe2": b"ICC_PROFILE\0", b"\xff\xee": b"Adobe"}
# Flags of VP8X that announce Exif and XMP.
_WEBP_HAS_EXIF: Final = 0x08
_WEBP_HAS_XMP: Final = 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """An input picture that decodes, and that tells nothing but itself."""

    path: Path
    format: PictureFormat
    width_px: int
    """As stored, before any turning that Exif asks for."""
    height_px: int
    size_bytes: int
    sha256: bytes
    has_alpha: bool


@dataclass(frozen=True, slots=True)
class _Part:
    name: bytes
    start: int
    end: int


async def examine(path: Path, *, max_pixels: int, max_bytes: int, param: str | None = None) -> Examined:
    """Decode an input picture in isolation, and replace the file by one without metadata.

    Taken out are Exif (except how the picture is to be turned), XMP, comments, texts, thumbnails, provenance data
    and whatever follows the picture's end. Colour profiles stay. The file under `path` is new afterwards, but its
    name, and whose it is to remove, are as before; when something is refused it is untouched.

    Args:
        path: a finished spool file.
        max_pixels: of width times height.
        max_bytes: of the file as it was handed in.
        param: the request's field that is to blame for a picture that is refused.

    Raises:
        ImageTooLarge: more than `max_bytes`.
        UnsupportedFile: neither PNG, JPEG nor WebP.
        InvalidImage: empty, cut off, damaged, animated, more than `max_pixels`, or not to be decoded within bounds.
    """
    try:
        return await _examined(path, max_pixels, max_bytes, param)
    except PictureBroken as exc:
        raise InvalidImage(f"The image {exc.reason}.", param=param) from exc


async def _examined(path: Path, max_pixels: int, max_bytes: int, param: str | None) -> Examined:
    size_bytes, kind = await asyncio.to_thread(_first_look, path)
    if size_bytes > max_bytes:
        raise ImageTooLarge(
            f"The image has {size_bytes} bytes; at most {max_bytes} are accepted.", param=param
        )
    if size_bytes and kind not in _INPUTS:
        raise UnsupportedFile(
            f"The file is {kind.media_type if kind else 'of an unknown type'}; "
            "supported are image/png, image/jpeg and image/webp.",
            param=param,
        )
    parts: list[_Part] = []
    found = await asyncio.to_thread(
        inspect, path, on_part=lambda name, start, end: parts.append(_Part(name, start, end))
    )
    if any(part.name == b"ANMF" for part in parts):
        raise PictureBroken("is an animation")
    decoded = await decode(path, found, max_pixels=max_pixels)
    work = asyncio.ensure_future(asyncio.to_thread(_stripped, path, found.format, parts, decoded.orientation))
    try:
        stripped = await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread cannot be stopped, and must not bring the file back after the caller has removed it.
        await asyncio.wait((work,))
        raise
    return Examined(
        path=path,
        format=stripped.format,
        width_px=stripped.width_px,
        height_px=stripped.height_px,
        size_bytes=stripped.length_bytes,
        sha256=stripped.sha256,
        has_alpha=decoded.has_alpha,
    )


def _first_look(path: Path) -> tuple[int, PictureFormat | None]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, sniff(file.read(1024))


def _stripped(path: Path, kind: PictureFormat, parts: list[_Part], orientation: int) -> Inspected:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix="stripped-")
    with ExitStack() as unless_done:
        unless_done.callback(Path(name).unlink)
        with path.open("rb") as source, os.fdopen(descriptor, "w+b") as target:
            exif = _exif(orientation) if orientation > 1 else b""
            match kind:
                case PictureFormat.PNG:
                    _write_png(source, target, parts, exif)
                case PictureFormat.JPEG:
                    _write_jpeg(source, target, parts, exif)
                case _:
                    _write_webp(source, target, parts, exif)
        stripped = inspect(Path(name))
        Path(name).replace(path)
        unless_done.pop_all()
    return stripped


def _write_png(source: BinaryIO, target: BinaryIO, parts: list[_Part], exif: bytes) -> None:
    target.write(b"\x89PNG\r\n\x1a\n")
    for part in parts:
        if part.name not in _PNG_KEPT:
            continue
        _copy(source, target, part)
        if part.name == b"IHDR" and exif:
            target.write(struct.pack(">I", len(exif)) + b"eXIf" + exif)
            target.write(zlib.crc32(b"eXIf" + exif).to_bytes(4, "big"))


def _write_jpeg(source: BinaryIO, target: BinaryIO, parts: list[_Part], exif: bytes) -> None:
    for part in parts:
        if part.name not in _JPEG_METADATA:
            _copy(source, target, part)
        elif part.name == b"\xff\xe0":
            target.write(_jfif(_payload(source, part)))
        elif (kept := _JPEG_KEPT.get(part.name)) and _payload(source, part).startswith(kept):
            _copy(source, target, part)
        if part.name == b"\xff\xd8" and exif:
            segment = b"Exif\0\0" + exif
            target.write(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment)


def _write_webp(source: BinaryIO, target: BinaryIO, parts: list[_Part], exif: bytes) -> None:
    target.write(b"RIFF\0\0\0\0WEBP")
    for part in parts:
        if part.name == b"VP8X":
            source.seek(part.start + 8)
            flags, rest = source.read(1)[0], source.read(9)
            flags = flags & ~(_WEBP_HAS_EXIF | _WEBP_HAS_XMP) | (_WEBP_HAS_EXIF if exif else 0)
            target.write(b"VP8X" + struct.pack("<IB", 10, flags) + rest)
        elif part.name in _WEBP_KEPT:
            _copy(source, target, part)
    if exif and any(part.name == b"VP8X" for part in parts):
        target.write(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    length = target.tell()
    target.seek(4)
    target.write(struct.pack("<I", length - 8))


def _exif(orientation: int) -> bytes:
    """Write a TIFF structure of one directory with one entry: the orientation (tag 0x0112, one SHORT)."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _jfif(payload: bytes) -> bytes:
    """Write a JFIF segment with the version and density of another, and no thumbnail; nothing if it is not JFIF."""
    if not payload.startswith(b"JFIF\0") or len(payload) < 14:
        return b""
    return b"\xff\xe0\x00\x10" + payload[:12] + b"\0\0"


def _payload(source: BinaryIO, part: _Part) -> bytes:
    """Read the first bytes of a JPEG segment's content; fill bytes before its marker are passed over."""
    source.seek(part.start)
    return source.read(min(part.end - part.start, 64)).lstrip(b"\xff")[3:]


def _copy(source: BinaryIO, target: BinaryIO, part: _Part) -> None:
    target.writelines(_range(source, part))


def _range(source: BinaryIO, part: _Part) -> Iterator[bytes]:
    source.seek(part.start)
    left = part.end - part.start
    while left and (chunk := source.read(min(left, _COPY_BYTES))):
        left -= len(chunk)
        yield chunk
