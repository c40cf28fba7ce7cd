"""What a caller orders from the sandbox: OpenAI's parameters, checked and resolved, or the error that says why not.

The gateway has checked every request already; this is what a vendor would still say to one who did not.
Source: upstreams.md 1.3, 1.5, 1.6 and 1.11, read 2026-11-21.
"""

import asyncio
import json
from collections.abc import AsyncIterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from PIL import Image, ImageOps, UnidentifiedImageError

from app.domain.pictures import PictureFormat, Size, parse_size
from app.kit.json import Json
from app.upstreams.sandbox.form import Form, FormUnusable

LARGEST: Final = Size(3840, 2160)
"""No picture has more pixels than this."""
_SHORTEST_EDGE_PX: Final = 64
_AUTO_SIZE: Final = Size(1024, 1024)
# Recorded replies resolve `auto` to low.
_AUTO_QUALITY: Final = "low"
_DOCUMENT_BYTES: Final = 1024 * 1024
_FORMATS: Final = (PictureFormat.PNG, PictureFormat.JPEG, PictureFormat.WEBP)
# Decoding takes four bytes for each; more than any camera's picture, less than Pillow warns of.
_INPUT_PIXELS: Final = 80_000_000
_SHOWN_PX: Final = 2048


class Refused(Exception):
    """The sandbox answers with an error in OpenAI's form."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - its name in the envelope
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Mapping[str, Json] = {
            "error": {"message": message, "type": type, "param": param, "code": code}
        }
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request that can be drawn, with every `auto` resolved."""

    is_edit: bool
    model: str
    prompt: str
    n: int
    size: Size
    quality: str
    background: str
    format: PictureFormat
    compression: int
    stream: bool
    partial_images: int
    inputs: int = 0
    """Input pictures, a mask included."""
    photo: Image.Image | None = None
    """The first of them: RGB, scaled down to what can be shown."""
    region: Image.Image | None = None
    """L, as large as `photo`: white where the mask lets paint."""


async def read_generation(chunks: AsyncIterable[bytes]) -> Order:
    """Read an order for pictures from a prompt alone: a JSON document.

    Raises:
        Refused: it cannot be drawn.
    """
    document = bytearray()
    async for chunk in chunks:
        document += chunk
        if len(document) > _DOCUMENT_BYTES:
            raise Refused(413, None, f"The body is longer than {_DOCUMENT_BYTES} bytes.")
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, None, "We could not parse the JSON body of your request.") from exc
    if not isinstance(fields, dict):
        raise Refused(400, None, "The JSON body of your request is not an object.")
    return _order({name: value for name, value in fields.items() if value is not None})


async def read_edit(content_type: str, chunks: AsyncIterable[bytes], directory: Path) -> Order:
    """Read an order for pictures from a prompt and input pictures: a multipart form.

    Raises:
        Refused: it cannot be drawn.
    """
    try:
        with Form(content_type, directory) as form:
            await form.read(chunks)
            if form.photo is None:
                raise _missing("image")
            photo, region = await asyncio.to_thread(_shown, form.photo, form.mask)
            inputs = form.pictures + (form.mask is not None)
            return _order(_typed(form.texts), inputs=inputs, photo=photo, region=region)
    except FormUnusable as exc:
        raise Refused(400, None, str(exc)) from exc


def _order(
    fields: Mapping[str, Json],
    *,
    inputs: int = 0,
    photo: Image.Image | None = None,
    region: Image.Image | None = None,
) -> Order:
    prompt = _text(fields, "prompt", "")
    if not prompt:
        raise _missing("prompt")
    size = _size(_text(fields, "size", "auto"))
    quality = _text(fields, "quality", "auto")
    background = _one_of("background", _text(fields, "background", "auto"), ("transparent", "opaque", "auto"))
    format_ = PictureFormat(_one_of("output_format", _text(fields, "output_format", "png"), _FORMATS))
    compression = _integer(fields, "output_compression", 100, 0, 100)
    if background == "transparent" and format_ is PictureFormat.JPEG:
        message = "Transparent background is not supported for JPEG output format"
        raise Refused(400, "invalid_value", message, param="background")
    if compression < 100 and format_ is PictureFormat.PNG:
        message = "Compression less than 100 is not supported for PNG output format"
        raise Refused(400, "invalid_png_output_compression", message, param="output_compression")
    return Order(
        is_edit=photo is not None,
        model=_text(fields, "model", ""),
        prompt=prompt,
        n=_integer(fields, "n", 1, 1, 10),
        size=size,
        quality=_AUTO_QUALITY if quality == "auto" else quality,
        background="opaque" if background == "auto" else background,
        format=format_,
        compression=compression,
        stream=_flag(fields, "stream"),
        partial_images=_integer(fields, "partial_images", 0, 0, 3),
        inputs=inputs,
        photo=photo,
        region=region,
    )


def _typed(texts: Mapping[str, str]) -> dict[str, Json]:
    """A form knows only texts: give numbers and booleans their types."""
    fields: dict[str, Json] = dict(texts)
    for name in ("n", "output_compression", "partial_images"):
        with suppress(KeyError, ValueError):
            fields[name] = int(texts[name])
    if texts.get("stream") in {"true", "false"}:
        fields["stream"] = texts["stream"] == "true"
    return fields


def _size(text: str) -> Size:
    if text == "auto":
        return _AUTO_SIZE
    size = parse_size(text)
    if size is None:
        message = (
            f"Invalid value: {text!r}. Supported values are: 'auto' and 'WIDTHxHEIGHT', such as '1024x1024'."
        )
        raise Refused(400, "invalid_value", message, param="size")
    problem = None
    if size.pixels > LARGEST.pixels:
        problem = "Requested resolution exceeds the current pixel budget."
    elif max(size) > max(LARGEST):
        problem = f"The longest edge must be less than or equal to {max(LARGEST)}."
    elif min(size) < _SHORTEST_EDGE_PX:
        problem = f"The shortest edge must be at least {_SHORTEST_EDGE_PX}."
    if problem is not None:
        raise Refused(
            400,
            "invalid_value",
            f"Invalid size '{text}'. {problem}",
            type="image_generation_user_error",
            param="size",
        )
    return size


def _text(fields: Mapping[str, Json], name: str, otherwise: str) -> str:
    value = fields.get(name, otherwise)
    if isinstance(value, str):
        return value
    raise Refused(400, "invalid_type", f"Invalid type for '{name}': expected a string.", param=name)


def _integer(fields: Mapping[str, Json], name: str, otherwise: int, low: int, high: int) -> int:
    value = fields.get(name, otherwise)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    message = f"Invalid value for '{name}': expected an integer from {low} to {high}."
    raise Refused(400, "invalid_value", message, param=name)


def _flag(fields: Mapping[str, Json], name: str) -> bool:
    value = fields.get(name, False)
    if isinstance(value, bool):
        return value
    raise Refused(400, "invalid_type", f"Invalid type for '{name}': expected a boolean.", param=name)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value in known:
        return value
    listed = ", ".join(f"'{word}'" for word in known)
    raise Refused(
        400, "invalid_value", f"Invalid value: {value!r}. Supported values are: {listed}.", param=name
    )


def _missing(name: str) -> Refused:
    return Refused(400, "missing_required_parameter", f"Missing required parameter: '{name}'.", param=name)


def _shown(photo: IO[bytes], mask: IO[bytes] | None) -> tuple[Image.Image, Image.Image | None]:
    shown = _decoded(photo, "image")
    picture = Image.new("RGB", shown.size, (255, 255, 255))
    picture.paste(shown, (0, 0), shown.getchannel("A"))
    if mask is None:
        return picture, None
    alpha = _decoded(mask, "mask").getchannel("A")
    return picture, ImageOps.invert(alpha).resize(picture.size)


def _decoded(file: IO[bytes], name: str) -> Image.Image:
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height <= _INPUT_PIXELS:
            image.draft("RGB", (_SHOWN_PX, _SHOWN_PX))
            if image.mode.startswith("I"):
                # 16 bits of grey, for which Pillow knows no way to colour.
                image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
            image.thumbnail((_SHOWN_PX, _SHOWN_PX))
            return ImageOps.exif_transpose(image).convert("RGBA")
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        OSError,
        SyntaxError,
        ValueError,
    ) as exc:
        message = (
            f"Invalid file '{name}': this is no picture. Supported file formats are 'image/jpeg', 'image/png', "
            "and 'image/webp'."
        )
        raise Refused(400, "unsupported_file_mimetype", message, param=name) from exc
    message = f"Invalid file '{name}': it has more than {_INPUT_PIXELS} pixels."
    raise Refused(400, "invalid_value", message, param=name)
