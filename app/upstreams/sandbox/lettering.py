"""Text in the sandbox's pictures, in the one scalable font that comes with Pillow.

The font holds little beyond ASCII: other characters are written plainly where that is possible (`é` as e), and as a
small box with their code where it is not. Nothing a prompt can hold makes it fail.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_PLAIN: Final[Mapping[str, str]] = {
    "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-", "×": "x", "→": "->", "←": "<-", "•": "·", "€": "EUR", "£": "GBP",
    "¥": "JPY", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d",
    "Đ": "D", "þ": "th", "Þ": "Th", "ð": "d", "ı": "i", "¿": "?", "¡": "!", "„": "“", "‚": "‘",
}  # fmt: skip
_ELLIPSIS: Final = "…"
_LEADING: Final = 1.22
_SHRINK: Final = 0.9
# A caption never shows more than this; what lies beyond is not even looked at.
_MAX_CHARACTERS: Final = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A text set in lines."""

    lines: tuple[tuple[str, ...], ...]
    """Each a row of characters; one that the font lacks stands for its box."""
    size_px: int
    height_px: int


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which its scalable font needs")
    return font


@lru_cache(maxsize=4096)
def _has(character: str) -> bool:
    font = _font(32)
    # U+E000 is private, so what is drawn for it is what stands for a missing character.
    return character == " " or bytes(font.getmask(character)) != bytes(font.getmask("\ue000"))


@lru_cache(maxsize=16384)
def _advance(character: str, size_px: int) -> float:
    return _font(size_px).getlength(character) if _has(character) else 0.84 * size_px


def _readable(text: str) -> str:
    """Write a text in the characters of the font, as far as there is a plain way; drop what has no width."""
    written: list[str] = []
    for character in text[:_MAX_CHARACTERS]:
        if character.isspace():
            written.append(" ")
        elif _is_silent(character):
            continue
        elif _has(character):
            written.append(character)
        else:
            written.append(_plain(character))
    return "".join(written) + (_ELLIPSIS if len(text) > _MAX_CHARACTERS else "")


def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    base = "".join(part for part in unicodedata.normalize("NFKD", character) if not _is_silent(part))
    return base if base and all(_has(part) for part in base) else character


def _is_silent(character: str) -> bool:
    # Combining marks, joiners, variation selectors, skin tones' joiners, controls.
    return unicodedata.category(character) in {"Mn", "Me", "Cf", "Cc"}


def fit_caption(text: str, *, width_px: int, height_px: int, largest_px: int, smallest_px: int) -> Caption:
    """Set a text as large as it fits into a box; what does not fit at `smallest_px` is cut, with an ellipsis."""
    words = _readable(text).split()
    size_px = largest_px
    while True:
        lines = _wrapped(words, width_px, size_px)
        rows = max(1, int(height_px / (size_px * _LEADING)))
        if len(lines) <= rows or size_px <= smallest_px:
            break
        size_px = max(smallest_px, int(size_px * _SHRINK))
    if len(lines) > rows:
        lines = [*lines[: rows - 1], _cut(lines[rows - 1], width_px, size_px)]
    elif len(lines) > 1:
        lines = _balanced(words, len(lines), width_px, size_px)
    return Caption(
        lines=tuple(tuple(line) for line in lines),
        size_px=size_px,
        height_px=round(len(lines) * size_px * _LEADING),
    )


def _width(text: Sequence[str], size_px: int) -> float:
    return sum(_advance(character, size_px) for character in text)


def _wrapped(words: Sequence[str], width_px: float, size_px: int) -> list[str]:
    lines: list[str] = []
    line, used = "", 0.0
    space = _advance(" ", size_px)
    for word in words:
        for place, piece in enumerate(_pieces(word, width_px, size_px)):
            gap = space if line and place == 0 else 0.0
            width = _width(piece, size_px)
            if line and used + gap + width > width_px:
                lines.append(line)
                line, used, gap = "", 0.0, 0.0
            line += (" " if gap else "") + piece
            used += gap + width
    return [*lines, line] if line else lines


def _pieces(word: str, width_px: float, size_px: int) -> list[str]:
    """Cut a word where it may break: not at all if it fits a line, else anywhere; between boxes always."""
    if not all(_has(character) for character in word) or _width(word, size_px) > width_px:
        return list(word)
    return [word]


def _balanced(words: Sequence[str], rows: int, width_px: float, size_px: int) -> list[str]:
    """The same number of lines, as even in length as they get."""
    narrow, wide = width_px / 2, width_px
    for _ in range(7):
        middle = (narrow + wide) / 2
        if len(_wrapped(words, middle, size_px)) > rows:
            narrow = middle
        else:
            wide = middle
    return _wrapped(words, wide, size_px)


def _cut(line: str, width_px: float, size_px: int) -> str:
    while line and _width(line + _ELLIPSIS, size_px) > width_px:
        line = line[:-1]
    return line.rstrip(" .,;:") + _ELLIPSIS


def draw_caption(
    canvas: Image.Image, caption: Caption, *, x: float, bottom: float, fill: tuple[int, int, int]
) -> None:
    """Write a caption's lines, left-aligned, the last one ending at `bottom`."""
    pen = ImageDraw.Draw(canvas)
    y = bottom - caption.height_px
    for line in caption.lines:
        _draw_line(pen, line, x, y, caption.size_px, fill)
        y += caption.size_px * _LEADING


def _draw_line(
    pen: ImageDraw.ImageDraw,
    line: Sequence[str],
    x: float,
    y: float,
    size_px: int,
    fill: tuple[int, int, int],
) -> None:
    font, run = _font(size_px), ""
    for character in line:
        if _has(character):
            run += character
            continue
        pen.text((x, y), run, font=font, fill=fill)
        x += font.getlength(run)
        run = ""
        _draw_box(pen, character, x, y, size_px, fill)
        x += _advance(character, size_px)
    pen.text((x, y), run, font=font, fill=fill)


def _draw_box(
    pen: ImageDraw.ImageDraw, character: str, x: float, y: float, size_px: int, fill: tuple[int, int, int]
) -> None:
    """Stand in for a character that the font lacks: a box, with its code in two rows where they can be read."""
    left, top = x + 0.05 * size_px, y + 0.16 * size_px
    right, bottom = x + 0.77 * size_px, y + 1.02 * size_px
    pen.rounded_rectangle(
        (left, top, right, bottom), radius=size_px * 0.1, outline=fill, width=max(1, size_px // 24)
    )
    small = int(size_px * 0.3)
    if small < 6:
        return
    code = f"{ord(character):04X}"
    half = (len(code) + 1) // 2
    for row, digits in enumerate((code[:half], code[half:])):
        middle = (left + right) / 2, top + (bottom - top) * (0.3 + 0.4 * row)
        pen.text(middle, digits, font=_font(small), fill=fill, anchor="mm")


def draw_spaced(
    canvas: Image.Image, text: str, *, x: float, y: float, size_px: int, fill: tuple[int, int, int]
) -> None:
    """Write one line of small print, letter-spaced; it stops before the canvas ends."""
    pen, font = ImageDraw.Draw(canvas), _font(size_px)
    for character in text:
        advance = font.getlength(character) + 0.14 * size_px
        if x + advance > canvas.width:
            return
        pen.text((x, y), character, font=font, fill=fill)
        x += advance


def fit_word(word: str, size: tuple[int, int]) -> Image.Image:
    """Set a word of capitals across the whole width of a canvas of that size: a mask as wide as the canvas."""
    width, height = size
    reference = _font(200)
    size_px = max(8, int(min(200 * 0.74 * width / reference.getlength(word), 0.3 * height)))
    font = _font(size_px)
    stroke = size_px // 70
    boxes = [font.getbbox(letter, stroke_width=stroke) for letter in word]
    ink = sum(box[2] - box[0] for box in boxes)
    gap = min((0.86 * width - ink) / (len(word) - 1), 0.5 * size_px)
    x = (width - ink - gap * (len(word) - 1)) / 2
    _, top, _, bottom = font.getbbox(word, stroke_width=stroke)
    mask = Image.new("L", (width, max(1, round(bottom - top))), 0)
    pen = ImageDraw.Draw(mask)
    for letter, box in zip(word, boxes, strict=True):
        pen.text((x - box[0], -top), letter, font=font, fill=255, stroke_width=stroke)
        x += box[2] - box[0] + gap
    return mask
