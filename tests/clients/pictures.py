"""Looks at what a client got."""

import base64
import io
from pathlib import Path
from typing import Final

from PIL import Image


def looked_at(content: bytes) -> tuple[str | None, tuple[int, int]]:
    """The format and the size in pixels of a picture, after decoding all of it."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture.format, picture.size


def looked_at_base64(text: str | None) -> tuple[str | None, tuple[int, int]]:
    """As `looked_at`, of base64."""
    assert text is not None
    return looked_at(base64.b64decode(text, validate=True))


def write_picture(path: Path) -> Path:
    """Write a PNG of 1024 × 1024 pixels for a client to edit."""
    Image.new("RGB", INPUT, "#7a4").save(path)
    return path


INPUT: Final = (1024, 1024)
