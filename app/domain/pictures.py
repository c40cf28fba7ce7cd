"""What a picture is: its format, its size, and how both are written."""

import re
from enum import StrEnum
from typing import Final, NamedTuple

_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


class PictureFormat(StrEnum):
    """The formats that Darkroom can recognise, store and serve."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    GIF = "gif"
    SVG = "svg"

    @property
    def media_type(self) -> str:
        """The MIME type to declare for this format."""
        return "image/svg+xml" if self is PictureFormat.SVG else f"image/{self.value}"

    @property
    def suffix(self) -> str:
        """The file name's ending, with its dot."""
        return ".jpg" if self is PictureFormat.JPEG else f".{self.value}"


class Size(NamedTuple):
    """Width and height in pixels."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"

    @property
    def pixels(self) -> int:
        """Area in pixels."""
        return self.width_px * self.height_px


def parse_size(text: str) -> Size | None:
    """Read `WIDTHxHEIGHT` (decimal, lower-case x); None when the text is anything else, `auto` included."""
    match = _SIZE.fullmatch(text)
    return Size(int(match[1]), int(match[2])) if match else None
