"""The outer structure of picture files: where each part begins and ends, its checksums, its dimensions, its end.

Nothing is decoded. A walk reads the file once, forward, in chunks, and stops behind the end marker.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, Final, NoReturn, TypeAlias
from xml.parsers import expat

from app.assets.errors import PictureBroken
from app.domain.pictures import PictureFormat, Size

# No encoder writes so many; a file of nothing but tiny parts would keep a thread busy for minutes.
_MAX_PARTS: Final = 100_000
_MAX_GIF_BLOCKS: Final = 1_000_000
_CHUNK_BYTES: Final = 256 * 1024

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Colour type -> bit depths (PNG specification, 11.2.1).
_PNG_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
# A marker inside a scan: 0xFF not followed by a stuffed zero, a restart marker or more 0xFF.
_JPEG_MARKER_IN_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_SVG_LENGTH: Final = re.compile(r"\s*([0-9]{1,7}(?:\.[0-9]{1,9})?)(?:px)?\s*")
# CSS's size for a replaced element that does not say its own.
_SVG_DEFAULT: Final = Size(300, 150)

OnPart: TypeAlias = Callable[[bytes, int, int], None]
"""Told of each part: its name, where it begins and where it ends, in bytes from the start of the file.

PNG: a chunk, by its type. JPEG: a segment, by its two marker bytes; `b"scan"` for entropy-coded data. WebP: `b"RIFF"`
for the twelve bytes at the start, then a chunk, by its type, padding included. GIF and SVG have no parts.
"""


class Reader:
    """A file read once, forward; it hashes exactly the bytes that were taken from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = memoryview(b"")
        self._index = 0
        self._hashed = 0
        self._before = 0
        self._hash = hashlib.sha256()

    @property
    def position(self) -> int:
        """How many bytes were taken so far."""
        return self._before + self._index

    def digest(self) -> bytes:
        """Give the SHA-256 of all bytes taken so far."""
        self._catch_up()
        return self._hash.digest()

    def peek(self, length: int) -> bytes:
        """Look at the next bytes without taking them; fewer at the end of the file."""
        if len(self._buffer) - self._index < length:
            self._fill()
        return bytes(self._buffer[self._index : self._index + length])

    def take(self, length: int) -> bytes:
        """Take exactly `length` bytes; for small numbers.

        Raises:
            PictureBroken: the file ends before.
        """
        if len(self._buffer) - self._index < length:
            self._fill()
            if len(self._buffer) < length:
                cut_off()
        taken = bytes(self._buffer[self._index : self._index + length])
        self._index += length
        return taken

    def take_chunk(self, limit: int | None = None) -> memoryview:
        """Take what is at hand, at most `limit` bytes; empty only at the end of the file, or for a limit of 0."""
        if self._index == len(self._buffer):
            self._fill()
        end = len(self._buffer) if limit is None else min(len(self._buffer), self._index + limit)
        taken = self._buffer[self._index : end]
        self._index = end
        return taken

    def give_back(self, length: int) -> None:
        """Undo the last `length` bytes of the last `take_chunk`."""
        self._index -= length

    def skip(self, length: int) -> None:
        """Take exactly `length` bytes and look at none.

        Raises:
            PictureBroken: the file ends before.
        """
        while length:
            length -= len(self._some(length))

    def skip_checked(self, length: int, checksum: int) -> int:
        """Take exactly `length` bytes and return `checksum` continued over them as CRC-32.

        Raises:
            PictureBroken: the file ends before.
        """
        while length:
            chunk = self._some(length)
            checksum = zlib.crc32(chunk, checksum)
            length -= len(chunk)
        return checksum

    def _some(self, limit: int) -> memoryview:
        return self.take_chunk(limit) or cut_off()

    def _fill(self) -> None:
        self._catch_up()
        rest = bytes(self._buffer[self._index :])
        self._before += self._index
        self._buffer = memoryview(rest + self._file.read(_CHUNK_BYTES))
        self._index = self._hashed = 0

    def _catch_up(self) -> None:
        self._hash.update(self._buffer[self._hashed : self._index])
        self._hashed = self._index


def cut_off() -> NoReturn:
    """Say that a file ends too early."""
    raise PictureBroken("is cut off")


def sniff(head: bytes) -> PictureFormat | None:
    """Tell a format by a file's first bytes (32 suffice, SVG may need 1,024); None when they are of none we know."""
    if head.startswith(_PNG_SIGNATURE):
        return PictureFormat.PNG
    if head.startswith(b"\xff\xd8\xff"):
        return PictureFormat.JPEG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return PictureFormat.WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return PictureFormat.GIF
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<svg") or (
        text.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in text
    ):
        return PictureFormat.SVG
    return None


def walk(reader: Reader, kind: PictureFormat, on_part: OnPart) -> Size:
    """Read a file from its first byte to behind its end marker; returns the dimensions that its header declares.

    Raises:
        PictureBroken: it is cut off, damaged, or not of this kind at all.
    """
    match kind:
        case PictureFormat.PNG:
            return _not_empty(_walk_png(reader, on_part))
        case PictureFormat.JPEG:
            return _not_empty(_walk_jpeg(reader, on_part))
        case PictureFormat.WEBP:
            return _not_empty(_walk_webp(reader, on_part))
        case PictureFormat.GIF:
            return _not_empty(_walk_gif(reader))
        case PictureFormat.SVG:
            return _not_empty(_walk_svg(reader))


def _not_empty(size: Size) -> Size:
    if not size.pixels:
        raise PictureBroken("has no pixels")
    return size


def _walk_png(reader: Reader, on_part: OnPart) -> Size:
    if reader.take(8) != _PNG_SIGNATURE:
        raise PictureBroken("does not begin like a PNG")
    size = Size(0, 0)
    has_pixels = False
    for count in range(_MAX_PARTS):
        start = reader.position
        length, name = struct.unpack(">I4s", reader.take(8))
        if (count == 0) != (name == b"IHDR"):
            raise PictureBroken("has its header chunk in the wrong place")
        if length > 0x7FFFFFFF or not name.isalpha() or (name == b"IHDR" and length != 13):
            raise PictureBroken("has a damaged chunk header")
        if name == b"IHDR":
            header = reader.take(13)
            size = _png_size(header)
            checksum = zlib.crc32(header, zlib.crc32(name))
        else:
            checksum = reader.skip_checked(length, zlib.crc32(name))
        if reader.take(4) != checksum.to_bytes(4, "big"):
            raise PictureBroken(f"has a wrong checksum in its {name.decode()} chunk")
        on_part(name, start, reader.position)
        has_pixels = has_pixels or (name == b"IDAT" and length > 0)
        if name == b"IEND":
            if length or not has_pixels:
                raise PictureBroken("ends without pixels")
            return size
    raise PictureBroken("has too many parts")


def _png_size(header: bytes) -> Size:
    width_px, height_px, depth, colour, compression, filtering, interlacing = struct.unpack(
        ">IIBBBBB", header
    )
    if depth not in _PNG_DEPTHS.get(colour, set()) or compression or filtering or interlacing > 1:
        raise PictureBroken("has a header that no PNG has")
    if max(width_px, height_px) > 0x7FFFFFFF:
        raise PictureBroken("has impossible dimensions")
    return Size(width_px, height_px)


def _walk_jpeg(reader: Reader, on_part: OnPart) -> Size:
    if reader.take(2) != b"\xff\xd8":
        raise PictureBroken("does not begin like a JPEG")
    on_part(b"\xff\xd8", 0, 2)
    size: Size | None = None
    has_pixels = False
    for _ in range(_MAX_PARTS):
        start = reader.position
        code = _jpeg_marker(reader)
        if code == 0xD9:
            on_part(b"\xff\xd9", start, reader.position)
            if size is None or not has_pixels:
                raise PictureBroken("ends without pixels")
            return size
        if code in _JPEG_ALONE:
            on_part(bytes((0xFF, code)), start, reader.position)
            continue
        if code in {0x00, 0xD8}:
            raise PictureBroken("has a marker in the wrong place")
        length = int.from_bytes(reader.take(2), "big")
        if length < 2:
            raise PictureBroken("has a damaged segment")
        if code in _JPEG_FRAMES:
            if size is not None or length < 8:
                raise PictureBroken("has a damaged frame header")
            _, height_px, width_px = struct.unpack(">BHH", reader.take(5))
            size = Size(width_px, height_px)
            reader.skip(length - 7)
        else:
            reader.skip(length - 2)
        on_part(bytes((0xFF, code)), start, reader.position)
        if code == 0xDA:
            if size is None:
                raise PictureBroken("has a scan before its frame header")
            scan_start = reader.position
            _skip_jpeg_scan(reader)
            has_pixels = has_pixels or reader.position > scan_start
            on_part(b"scan", scan_start, reader.position)
    raise PictureBroken("has too many parts")


def _jpeg_marker(reader: Reader) -> int:
    if reader.take(1) != b"\xff":
        raise PictureBroken("has bytes between its segments")
    code = 0xFF
    fill_bytes = 0
    while code == 0xFF:
        code = reader.take(1)[0]
        fill_bytes += 1
        if fill_bytes > _MAX_PARTS:
            raise PictureBroken("has too many parts")
    return code


def _skip_jpeg_scan(reader: Reader) -> None:
    while True:
        chunk = reader.take_chunk()
        found = _JPEG_MARKER_IN_SCAN.search(chunk)
        if found:
            reader.give_back(len(chunk) - found.start())
            return
        if chunk and chunk[-1] == 0xFF:
            # A marker may lie across two chunks: look again from its first byte, with the next chunk behind it.
            reader.give_back(1)
            if len(reader.peek(2)) < 2:
                cut_off()
        elif not chunk:
            cut_off()


def _walk_webp(reader: Reader, on_part: OnPart) -> Size:
    riff, length, webp = struct.unpack("<4sI4s", reader.take(12))
    if riff != b"RIFF" or webp != b"WEBP":
        raise PictureBroken("does not begin like a WebP")
    on_part(b"RIFF", 0, 12)
    end = length + 8
    canvas: Size | None = None
    picture: Size | None = None
    for count in range(_MAX_PARTS):
        start = reader.position
        if start == end:
            if picture is None:
                raise PictureBroken("ends without pixels")
            return canvas or picture
        if end - start < 8:
            raise PictureBroken("has parts that do not add up to its length")
        name, payload = struct.unpack("<4sI", reader.take(8))
        # Chunks are padded to even lengths, the last one too.
        chunk_end = start + 8 + payload + payload % 2
        if chunk_end > end:
            raise PictureBroken("has parts that do not add up to its length")
        match name:
            case b"VP8X" if count == 0 and payload == 10:
                canvas = _webp_canvas(reader.take(10))
            case b"VP8 " if payload >= 10 and picture is None:
                picture = _webp_lossy(reader.take(10), payload)
            case b"VP8L" if payload >= 5 and picture is None:
                picture = _webp_lossless(reader.take(5))
            case b"ANMF" if canvas is not None:
                picture = canvas
            case b"VP8X" | b"VP8 " | b"VP8L" | b"ANMF":
                raise PictureBroken(f"has a damaged {name.decode().strip()} chunk")
            case _ if count == 0:
                raise PictureBroken("does not begin like a WebP")
            case _:
                pass
        reader.skip(chunk_end - reader.position)
        on_part(name, start, reader.position)
    raise PictureBroken("has too many parts")


def _webp_canvas(payload: bytes) -> Size:
    return Size(int.from_bytes(payload[4:7], "little") + 1, int.from_bytes(payload[7:10], "little") + 1)


def _webp_lossy(payload: bytes, length: int) -> Size:
    tag = int.from_bytes(payload[:3], "little")
    # A key frame has bit 0 clear; the first partition's length stands in the upper 19 bits.
    if tag & 1 or payload[3:6] != b"\x9d\x01\x2a" or (tag >> 5) > length - 10:
        raise PictureBroken("has a damaged VP8 chunk")
    width, height = struct.unpack("<HH", payload[6:10])
    return Size(width & 0x3FFF, height & 0x3FFF)


def _webp_lossless(payload: bytes) -> Size:
    bits = int.from_bytes(payload[1:5], "little")
    # Signature, then 14 bits each of width and height less one, alpha, and a version that is always 0.
    if payload[0] != 0x2F or bits >> 29:
        raise PictureBroken("has a damaged VP8L chunk")
    return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)


def _walk_gif(reader: Reader) -> Size:
    signature, width_px, height_px, flags, _ = struct.unpack("<6sHHBH", reader.take(13))
    if signature not in {b"GIF87a", b"GIF89a"}:
        raise PictureBroken("does not begin like a GIF")
    _skip_gif_palette(reader, flags)
    blocks_left = _MAX_GIF_BLOCKS
    has_pixels = False
    while blocks_left > 0:
        match reader.take(1):
            case b"\x3b":
                if not has_pixels:
                    raise PictureBroken("ends without pixels")
                return Size(width_px, height_px)
            case b"\x21":
                reader.take(1)
            case b"\x2c":
                _skip_gif_palette(reader, reader.take(9)[8])
                reader.take(1)
                has_pixels = True
            case _:
                raise PictureBroken("has a damaged block")
        blocks_left -= 1
        while blocks_left > 0 and (length := reader.take(1)[0]):
            reader.skip(length)
            blocks_left -= 1
    raise PictureBroken("has too many parts")


def _skip_gif_palette(reader: Reader, flags: int) -> None:
    if flags & 0x80:
        reader.skip(3 * 2 ** ((flags & 7) + 1))


def _walk_svg(reader: Reader) -> Size:
    document = _Svg()
    while chunk := reader.take_chunk():
        document.feed(bytes(chunk))
        if document.root_closes_at is not None:
            # The tag that closes the root ends in this chunk, wherever it began.
            begin = max(0, document.root_closes_at - (reader.position - len(chunk)))
            reader.give_back(len(chunk) - bytes(chunk).index(b">", begin) - 1)
            return document.size
    return cut_off()


class _Svg:
    """An XML parser that looks at the root's tag alone, and declines to define entities."""

    def __init__(self) -> None:
        self.size = _SVG_DEFAULT
        self.root_closes_at: int | None = None
        self._depth = 0
        self._has_content = False
        self._parser = expat.ParserCreate(encoding="utf-8")
        self._parser.StartElementHandler = self._opened
        self._parser.EndElementHandler = self._closed
        self._parser.EntityDeclHandler = self._entity

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.Parse(chunk, False)
        except expat.ExpatError as exc:
            # What follows the root is cut away; nothing in there counts.
            if self.root_closes_at is None:
                raise PictureBroken("is not well-formed") from exc

    def _opened(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > 1:
            self._has_content = True
            return
        if name.rpartition(":")[2] != "svg":
            raise PictureBroken("is XML but not SVG")
        self.size = _svg_size(attributes)

    def _closed(self, _name: str) -> None:
        self._depth -= 1
        if self._depth == 0 and self.root_closes_at is None:
            if not self._has_content:
                raise PictureBroken("ends without pixels")
            self.root_closes_at = self._parser.CurrentByteIndex

    def _entity(self, *_declaration: object) -> None:
        raise PictureBroken("defines entities")


def _svg_size(attributes: dict[str, str]) -> Size:
    lengths = [_SVG_LENGTH.fullmatch(attributes.get(name, "")) for name in ("width", "height")]
    if all(lengths):
        return Size(*(round(float(match[1])) for match in lengths if match))
    box = [
        _SVG_LENGTH.fullmatch(part) for part in attributes.get("viewBox", "").replace(",", " ").split()[2:]
    ]
    if len(box) == 2 and all(box):
        return Size(*(round(float(match[1])) for match in box if match))
    return _SVG_DEFAULT
