"""Real pictures for simulators: decodable, of the asked size and format, cheap to make, no two alike."""

import base64
import functools
import io
import random
import struct
import zlib
from typing import Final

from PIL import Image, ImageDraw

_COLOURS: Final = (
    "#264653", "#2a9d8f", "#8ab17d", "#e9c46a", "#f4a261", "#e76f51", "#6d597a", "#b56576",
    "#355070", "#eaac8b", "#588157", "#a3b18a", "#bc6c25", "#dda15e", "#457b9d", "#1d3557",
)  # fmt: skip


def picture(
    width_px: int,
    height_px: int,
    format_: str,
    *,
    seed: int,
    mark: str = "",
    transparent: bool = False,
    quality: int = 100,
) -> bytes:
    """Draw a flat picture with a few shapes; `mark` is hidden in it (PNG, JPEG) so that no two are alike.

    Neighbouring seeds give different colours.
    """
    data = _drawn(width_px, height_px, format_, seed % len(_COLOURS), transparent, quality)
    return _marked(data, format_, mark.encode("latin-1", "replace")) if mark else data


def mark_of(data: bytes) -> str | None:
    """Read the mark of a PNG or JPEG made here; None when it has none."""
    with Image.open(io.BytesIO(data)) as image:
        mark = image.info.get("mark", image.info.get("comment"))
    return mark.decode("latin-1") if isinstance(mark, bytes) else mark


@functools.lru_cache(maxsize=4)
def noise(width_px: int, height_px: int) -> tuple[bytes, bytes]:
    """A PNG that does not compress (three bytes a pixel: 12.6 MB for 2048x2048), and its base64; made once."""
    pixels = random.Random(0).randbytes(width_px * height_px * 3)
    data = _encoded(Image.frombytes("RGB", (width_px, height_px), pixels), "png", 100, compress_level=0)
    return data, base64.b64encode(data)


def broken(data: bytes, how: str) -> bytes:
    """Spoil a picture: `cut` loses its end, `noise` keeps only its first 64 bytes, `empty` keeps nothing,
    `tail` has something else behind its end.
    """
    match how:
        case "cut":
            return data[:-20]
        case "noise":
            return data[:64] + random.Random(0).randbytes(512)
        case "empty":
            return b""
        case "tail":
            return data + b"PK\x03\x04 something else"
        case _:
            raise ValueError(f"a picture cannot be broken by {how!r}; use cut, noise, empty or tail")


@functools.lru_cache(maxsize=64)
def _drawn(
    width_px: int, height_px: int, format_: str, colour: int, transparent: bool, quality: int
) -> bytes:
    mode = "RGBA" if transparent else "RGB"
    ground = (0, 0, 0, 0) if transparent else _COLOURS[colour]
    image = Image.new(mode, (width_px, height_px), ground)
    draw = ImageDraw.Draw(image)
    draw.ellipse(
        (width_px // 8, height_px // 8, width_px // 2, height_px // 2), fill=_COLOURS[(colour + 5) % 16]
    )
    draw.rectangle(
        (width_px // 2, height_px // 2, width_px * 7 // 8, height_px * 7 // 8),
        fill=_COLOURS[(colour + 9) % 16],
    )
    return _encoded(image, format_, quality, compress_level=1)


def _encoded(image: Image.Image, format_: str, quality: int, *, compress_level: int) -> bytes:
    out = io.BytesIO()
    match format_:
        case "png":
            image.save(out, "PNG", compress_level=compress_level)
        case "jpeg":
            image.save(out, "JPEG", quality=max(1, min(quality, 95)))
        case "webp":
            image.save(out, "WEBP", quality=quality, method=0)
        case "gif":
            image.save(out, "GIF")
        case _:
            raise ValueError(f"simulators draw no {format_!r}")
    return out.getvalue()


def _marked(data: bytes, format_: str, mark: bytes) -> bytes:
    match format_:
        case "png":
            text = b"tEXtmark\x00" + mark
            chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
            head = 8 + 25  # the signature and IHDR
            return data[:head] + chunk + data[head:]
        case "jpeg":
            return data[:2] + b"\xff\xfe" + struct.pack(">H", len(mark) + 2) + mark + data[2:]
        case _:
            return data
