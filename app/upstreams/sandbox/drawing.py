"""The sandbox's pictures: dunes under a wide sky, the word SANDBOX behind them, the prompt in front.

Everything is derived from the sketch, so the same sketch gives the same bytes. Nothing here waits or knows HTTP; a
drawing takes processor time and belongs into a thread.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import IO, Final, TypeAlias

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from app.domain.pictures import PictureFormat, Size
from app.upstreams.sandbox.lettering import Caption, draw_caption, draw_spaced, fit_caption, fit_word

Colour: TypeAlias = tuple[int, int, int]

_RUBYLITH: Final = (224, 36, 54)
"""The red film that retouchers cut their masks from."""
_PAPER: Final = (250, 248, 243)
_INK: Final = (255, 253, 248)

_CURVE_POINTS: Final = 240
_SUPERSAMPLING: Final = 3
# Lossless anyway; higher levels cost several times the time for a tenth of the bytes.
_PNG_LEVEL: Final = 2
# Of libwebp's 0-6: each step up doubles the time, and a placeholder need not be small.
_WEBP_METHOD: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """All that a picture depends on."""

    prompt: str
    size: Size
    format: PictureFormat = PictureFormat.PNG
    compression: int = 100
    """0-100, the quality of a jpeg or webp; a png has none."""
    is_transparent: bool = False
    """Whether the sky is left out; png and webp only."""
    number: int = 1
    """Which of `count` pictures this is, from 1; neighbours differ in palette, light and land."""
    count: int = 1
    seed: int = 0
    coarseness: int = 0
    """0 is the finished picture; each step up halves the detail, for previews."""
    photo: Image.Image | None = None
    """A picture to show within this one, RGB."""
    region: Image.Image | None = None
    """L, as large as `photo`: what is tinted, where it is white."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Palette:
    sky: tuple[Colour, Colour, Colour]
    """Zenith, middle, horizon."""
    sun: Colour
    far: Colour
    near: Colour
    has_stars: bool = False


def _hex(text: str) -> Colour:
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def _palette(sky: str, sun: str, far: str, near: str, *, has_stars: bool = False) -> _Palette:
    zenith, middle, horizon = (_hex(colour) for colour in sky.split())
    return _Palette(
        sky=(zenith, middle, horizon), sun=_hex(sun), far=_hex(far), near=_hex(near), has_stars=has_stars
    )


_PALETTES: Final = (
    _palette("2b2a5f b3476f ffb26b", "ffe0a3", "c9637a", "24143a"),
    _palette("0e5c78 57a7b0 f8dfae", "fff3cf", "6fa9a6", "0c2f3c"),
    _palette("141b3f 2f3f7c a77fb0", "f4ecd8", "6a639c", "0d1028", has_stars=True),
    _palette("7a2e2e d9623b ffcf7d", "fff0b8", "cf6a45", "331319"),
    _palette("35487a 8d86b9 f6c3b4", "ffe9d2", "a98bad", "221d3d"),
    _palette("0c2e3a 1d6a68 d9c77f", "f7efc4", "3d7d74", "07191f", has_stars=True),
    _palette("5a2a58 c85a86 ffc9a6", "ffe8c7", "b95f86", "2a1231"),
    _palette("2d6aa3 86b6d6 fbe3c4", "fffaf0", "8fa9c0", "17304a"),
)


def write_picture(sketch: Sketch, file: IO[bytes]) -> None:
    """Draw the sketch and write it to `file` as a complete picture of its format."""
    image = draw(sketch)
    match sketch.format:
        case PictureFormat.JPEG:
            image.save(file, "JPEG", quality=sketch.compression)
        case PictureFormat.WEBP:
            image.save(file, "WEBP", quality=sketch.compression, method=_WEBP_METHOD)
        case _:
            image.save(file, "PNG", compress_level=_PNG_LEVEL)


def draw(sketch: Sketch) -> Image.Image:
    """Draw the sketch: RGB, or RGBA where the sky is left out."""
    width, height = sketch.size
    random, palette = _chosen(sketch)
    unit = min(width, height)
    caption = fit_caption(
        sketch.prompt,
        width_px=round(width - 2 * _margin(sketch.size)),
        height_px=round(height * (0.2 if sketch.photo else 0.28)),
        largest_px=max(10, unit // 15),
        smallest_px=max(9, unit // 44),
    )
    canvas = _gradient(sketch.size, palette.sky)
    drawn = Image.new("L", sketch.size, 0)
    if palette.has_stars and not sketch.is_transparent:
        _stars(canvas, random)
    word = fit_word("SANDBOX", sketch.size)
    word_top = round(height * (0.07 if sketch.photo else 0.13))
    _sun(canvas, drawn, palette, random, top=word_top + 1.08 * word.height)
    # Whatever a picture without sky is laid on, white or black, the word stands out from it.
    canvas.paste(palette.far if sketch.is_transparent else _INK, (0, word_top), word)
    drawn.paste(255, (0, word_top), word)
    _land(canvas, drawn, palette, random, top=word_top + 1.3 * word.height)
    _scrim(canvas, palette.near, caption, sketch.size)
    if sketch.photo is not None:
        _print(canvas, drawn, sketch.photo, sketch.region, caption, random, top=word_top + word.height)
    _letter(canvas, sketch, caption, palette)
    if sketch.is_transparent:
        canvas.putalpha(drawn)
    return _coarse(canvas, sketch.coarseness) if sketch.coarseness else canvas


def _chosen(sketch: Sketch) -> tuple[Random, _Palette]:
    digest = hashlib.sha256(f"{sketch.seed}\0{sketch.prompt}".encode("utf-8", "surrogatepass")).digest()
    first = digest[0] % len(_PALETTES)
    # Three is coprime to the number of palettes: eight pictures in a row share none.
    palette = _PALETTES[(first + 3 * (sketch.number - 1)) % len(_PALETTES)]
    return Random(f"{digest.hex()}/{sketch.number}"), palette


def _margin(size: Size) -> float:
    return max(0.07 * min(size), 0.06 * size.width_px)


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _gradient(size: tuple[int, int], stops: Sequence[Colour]) -> Image.Image:
    _, height = size
    column = Image.new("RGB", (1, height))
    last = len(stops) - 1
    for y in range(height):
        place = last * y / max(1, height - 1)
        stop = min(int(place), last - 1)
        column.putpixel((0, y), _mixed(stops[stop], stops[stop + 1], place - stop))
    return column.resize(size, Image.Resampling.NEAREST)


def _stars(canvas: Image.Image, random: Random) -> None:
    width, height = canvas.size
    unit = min(width, height)
    pen = ImageDraw.Draw(canvas, "RGBA")
    for _ in range(110):
        x, y = random.random() * width, random.random() ** 1.6 * height * 0.5
        radius = unit * random.choice((0.0006, 0.0009, 0.0014))
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255, random.randint(70, 220))
        )


def _sun(canvas: Image.Image, drawn: Image.Image, palette: _Palette, random: Random, top: float) -> None:
    """Hang the sun, or the moon, no higher than `top`, so that it outshines no letter."""
    width, height = canvas.size
    unit = min(width, height)
    x = width * random.choice((random.uniform(0.2, 0.36), random.uniform(0.64, 0.8)))
    radius = round(unit * random.uniform(0.1, 0.13))
    y = max(height * random.uniform(0.4, 0.46), top + radius)
    glow = round(unit * 0.62)
    light = ImageOps.invert(Image.radial_gradient("L")).resize(
        (2 * glow, 2 * glow), Image.Resampling.BILINEAR
    )
    canvas.paste(palette.sun, (round(x) - glow, round(y) - glow), light.point(_GLOW))
    disc = _disc(radius)
    corner = (round(x) - radius, round(y) - radius)
    canvas.paste(palette.sun, corner, disc)
    drawn.paste(255, corner, disc)


# Strongest in the middle, soft at the rim: the square of the distance from the rim, at a bit more than half.
_GLOW: Final = [round(150 * (max(0, level - 75) / 180) ** 2) for level in range(256)]


def _disc(radius: int) -> Image.Image:
    disc = Image.new("L", (2 * radius * _SUPERSAMPLING, 2 * radius * _SUPERSAMPLING), 0)
    ImageDraw.Draw(disc).ellipse((0, 0, disc.width - 1, disc.height - 1), fill=255)
    return disc.reduce(_SUPERSAMPLING)


def _land(canvas: Image.Image, drawn: Image.Image, palette: _Palette, random: Random, top: float) -> None:
    """Lay ridges and dunes over each other from the horizon to the viewer, each nearer one darker."""
    width, height = canvas.size
    layers = 6
    top = max(0.48 * height, min(0.6 * height, top))
    for layer in range(layers):
        nearness = layer / (layers - 1)
        base = top + (0.8 * height - top) * nearness**0.9
        ridge = _ridge(random, roughness=1 - nearness) if layer < 2 else _dune(random)
        reach = min(height, 1.25 * width) * (0.055 + 0.03 * nearness)
        crest = [base - reach * level for level in ridge]
        colour = _mixed(palette.far, palette.near, nearness**0.8)
        haze = _mixed(colour, palette.sky[2], 0.42 * (1 - nearness))
        _layer(canvas, drawn, crest, _mixed(colour, palette.sun, 0.5 - 0.22 * nearness), colour, haze)
        if layer >= 2:
            _lee(canvas, crest, _mixed(colour, palette.near, 0.55), random)


def _ridge(random: Random, roughness: float) -> list[float]:
    """A mountain line from -1 to 1, by halving: each midpoint is moved a little less than the one before."""
    levels = [random.uniform(-0.6, 0.6) for _ in range(4)]
    step = 1.0
    while len(levels) < _CURVE_POINTS:
        halved = [levels[0]]
        for before, after in itertools.pairwise(levels):
            halved += [(before + after) / 2 + random.uniform(-step, step), after]
        levels = halved
        step *= 0.4 + 0.08 * roughness
    low, high = min(levels), max(levels)
    return [2 * (level - low) / (high - low) - 1 for level in levels]


def _dune(random: Random) -> list[float]:
    """A dune line from -1 to 1: long waves that lean."""
    long, short = random.uniform(0.6, 1.1), random.uniform(1.6, 2.6)
    phases = [random.uniform(0, math.tau) for _ in range(3)]
    return [
        0.72 * math.sin(math.tau * long * x + phases[0] + 0.5 * math.sin(math.tau * long * x + phases[1]))
        + 0.28 * math.sin(math.tau * short * x + phases[2])
        for x in (point / _CURVE_POINTS for point in range(_CURVE_POINTS + 1))
    ]


def _layer(
    canvas: Image.Image,
    drawn: Image.Image,
    crest: Sequence[float],
    rim: Colour,
    colour: Colour,
    haze: Colour,
) -> None:
    width, height = canvas.size
    top = max(0, math.floor(min(crest)))
    mask = _below((width, height - top), [y - top for y in crest])
    canvas.paste(rim, (0, top), mask)
    drawn.paste(255, (0, top), mask)
    lit = max(0.8, min(width, height) * 0.0028)
    mask = _below((width, height - top), [y - top + lit for y in crest])
    canvas.paste(_gradient((width, height - top), (colour, _mixed(colour, haze, 0.8), haze)), (0, top), mask)


def _lee(canvas: Image.Image, crest: Sequence[float], shade: Colour, random: Random) -> None:
    """Put the sides that face away from the light into the shade."""
    width, height = canvas.size
    waves, phase = random.uniform(0.8, 1.5), random.uniform(0, math.tau)
    depth = min(height, 1.25 * width) * random.uniform(0.05, 0.09)
    last = len(crest) - 1
    lower = [
        y + depth * max(0.0, math.sin(math.tau * waves * place / last + phase)) ** 1.5
        for place, y in enumerate(crest)
    ]
    top, bottom = max(0, math.floor(min(crest))), min(height, math.ceil(max(lower)) + 1)
    box = (width, bottom - top)
    side = ImageChops.subtract(_below(box, [y - top for y in crest]), _below(box, [y - top for y in lower]))
    canvas.paste(shade, (0, top), side.point([level * 3 // 5 for level in range(256)]))


def _below(size: tuple[int, int], line: Sequence[float]) -> Image.Image:
    """A smooth-edged mask of all that lies below a line, given as heights at even steps."""
    width, height = size
    first, last = max(0, math.floor(min(line))), min(height, math.ceil(max(line)) + 1)
    mask = Image.new("L", size, 0)
    if last > first:
        scale = _SUPERSAMPLING
        band = Image.new("L", (width * scale, (last - first) * scale), 0)
        step = (band.width - 1) / (len(line) - 1)
        points = [(place * step, (y - first) * scale) for place, y in enumerate(line)]
        ImageDraw.Draw(band).polygon([(0, band.height), *points, (band.width, band.height)], fill=255)
        mask.paste(band.reduce(scale), (0, first))
    mask.paste(255, (0, max(0, last), width, height))
    return mask


def _scrim(canvas: Image.Image, shade: Colour, caption: Caption, size: Size) -> None:
    """Darken the ground under the caption, from nothing above it to its full strength behind it."""
    width, height = size
    reach = min(height, round(caption.height_px + 2.3 * _margin(size)))
    fade = Image.new("L", (1, reach))
    for y in range(reach):
        fade.putpixel((0, y), round(225 * min(1.0, 1.5 * y / reach) ** 1.8))
    canvas.paste(shade, (0, height - reach), fade.resize((width, reach), Image.Resampling.NEAREST))


def _print(
    canvas: Image.Image,
    drawn: Image.Image,
    photo: Image.Image,
    region: Image.Image | None,
    caption: Caption,
    random: Random,
    top: int,
) -> None:
    """Lay the input picture on the land as a paper print, with the masked region under rubylith."""
    width, height = canvas.size
    unit = min(width, height)
    border = max(2, round(unit * 0.016))
    bottom = round(height - caption.height_px - 2.1 * _margin(Size(width, height)))
    room = max(16, round(width * 0.72)), max(16, round((bottom - top) * 0.9))
    scale = min(room[0] / photo.width, room[1] / photo.height)
    shown = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))
    if region is not None:
        veil = region.resize(shown.size).point([level * 3 // 5 for level in range(256)])
        shown.paste(_RUBYLITH, (0, 0), veil)
    # A pixel of nothing around the mask, so that turning it leaves a smooth edge.
    card = Image.new("RGB", (shown.width + 2 * border, shown.height + 2 * border), _PAPER)
    card.paste(shown, (border, border))
    edge = ImageOps.expand(Image.new("L", (card.width - 2, card.height - 2), 255), 1)
    tilt = random.choice((-1, 1)) * random.uniform(1.2, 2.4)
    card = card.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    edge = edge.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    corner = (width - card.width) // 2, (top + bottom - card.height) // 2
    soft = max(1, unit // 60)
    shadow = ImageOps.expand(edge, 2 * soft).filter(ImageFilter.BoxBlur(soft))
    below = corner[0] - 2 * soft, corner[1] - 2 * soft + soft
    canvas.paste((0, 0, 0), below, shadow.point([level // 2 for level in range(256)]))
    canvas.paste(card, corner, edge)
    drawn.paste(255, corner, edge)


def _letter(canvas: Image.Image, sketch: Sketch, caption: Caption, palette: _Palette) -> None:
    width, height = sketch.size
    margin = _margin(sketch.size)
    small = max(8, min(width, height) // 48)
    baseline = height - 0.62 * margin
    draw_caption(canvas, caption, x=margin, bottom=baseline - 2.1 * small, fill=_INK)
    facts = [f"{width} x {height}", sketch.format.value.upper()]
    if sketch.count > 1:
        facts.insert(0, f"{sketch.number} of {sketch.count}")
    colour = _mixed(palette.sun, palette.near, 0.25)
    draw_spaced(
        canvas, "   ".join(("DARKROOM", *facts)), x=margin, y=baseline - small, size_px=small, fill=colour
    )


def _coarse(image: Image.Image, coarseness: int) -> Image.Image:
    factor = min(2**coarseness, *image.size)
    return image.reduce(factor).resize(image.size, Image.Resampling.BICUBIC)
