"""Picture files to test with, made by Pillow or by hand."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

SVG = (
    b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>\n<!-- drawn <svg> by hand -->\n'
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30.4px" viewBox="0 0 80 60">'
    b"<title>\xc3\xa4 > b</title><path d='M0 0h80v60'/><svg/></svg>"
)


def drawing(width_px: int = 40, height_px: int = 30, mode: str = "RGB", *, shade: int = 0) -> Image.Image:
    """A gradient with detail, so that every format has data to store."""
    picture = Image.new("RGB", (width_px, height_px))
    picture.putdata(
        [
            (x * 6 % 256, (y * 8 + shade) % 256, (x * y + shade) % 256)
            for y in range(height_px)
            for x in range(width_px)
        ]
    )
    if mode == "RGBA":
        picture.putalpha(picture.getchannel("G"))
    return picture.convert(mode)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def opened(content: bytes | Path) -> Image.Image:
    """Decode a picture; no file stays open."""
    picture = Image.open(io.BytesIO(content if isinstance(content, bytes) else content.read_bytes()))
    picture.load()
    return picture


def animated(kind: str) -> bytes:
    frames = [drawing(shade=shade) for shade in (40, 80)]
    return saved(drawing(), kind, save_all=True, append_images=frames, duration=100)


def chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def png_declaring(width_px: int, height_px: int) -> bytes:
    """A small, well-formed PNG whose header declares any dimensions."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def samples() -> Iterator[tuple[str, bytes]]:
    """Every kind of file that we recognise, 40 × 30 pixels each, by a name that starts with its format."""
    yield "png", saved(drawing(), "PNG")
    yield "png-palette", saved(drawing(mode="P"), "PNG")
    yield "png-alpha-text", saved(drawing(mode="RGBA"), "PNG", dpi=(72, 72))
    yield "png-animated", animated("PNG")
    yield "jpeg", saved(drawing(), "JPEG")
    yield "jpeg-progressive", saved(drawing(), "JPEG", progressive=True, quality=100, comment=b"a comment")
    yield "jpeg-restarts", saved(drawing(), "JPEG", restart_marker_blocks=2)
    yield "jpeg-cmyk", saved(drawing(mode="CMYK"), "JPEG")
    yield "jpeg-grey-exif", saved(drawing(mode="L"), "JPEG", exif=oriented(6))
    yield "webp-lossy", saved(drawing(), "WEBP")
    yield "webp-lossless", saved(drawing(), "WEBP", lossless=True)
    yield "webp-alpha", saved(drawing(mode="RGBA"), "WEBP")
    yield "webp-extended", saved(drawing(), "WEBP", exif=oriented(3), xmp=b"<x:xmpmeta/>")
    yield "webp-animated", animated("WEBP")
    yield "gif", saved(drawing(), "GIF")
    yield "gif-animated", animated("GIF")
    yield "svg", SVG


def oriented(orientation: int) -> Image.Exif:
    """Exif data as a telephone writes it: how the picture is to be turned, and where it was taken."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A maker of telephones"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    return exif


SAMPLES = dict(samples())
