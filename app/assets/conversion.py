"""Turning a picture into another format, for an upstream that does not deliver the one that was asked for."""

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from app.assets.inspection import inspect
from app.assets.isolation import encode
from app.domain.pictures import PictureFormat

# Twelve times the largest picture that any model in the catalog makes.
_MAX_PIXELS: Final = 100_000_000
_TARGETS: Final = frozenset({PictureFormat.PNG, PictureFormat.JPEG, PictureFormat.WEBP})


async def convert(source: Path, to: PictureFormat, *, compression: int | None, directory: Path) -> Path:
    """Decode a PNG, JPEG, WebP or GIF of one frame and write it as PNG, JPEG or WebP into a new file.

    Colours keep their profile. Exif's orientation is applied. Into JPEG, transparent pixels become white.
    Text, Exif and provenance data are not carried over, since they would speak of other bytes.

    Args:
        source: a finished file; it is only read.
        to: PNG, JPEG or WebP.
        compression: 0-100 as in `output_compression`, for JPEG and WebP: their quality; None is 100.
        directory: where the new file is made. It is the caller's to remove.

    Raises:
        PictureBroken: the source is not one whole picture, or cannot be decoded within its bounds.
        ValueError: nothing is ever converted into this format.
    """
    if to not in _TARGETS:
        raise ValueError(f"pictures are converted into png, jpeg or webp, not into {to.value!r}")
    inspected = await asyncio.to_thread(inspect, source)
    # Made here and not in a thread, so that no cancellation comes between the file and its removal.
    path = _new_file(directory, to.suffix)
    with ExitStack() as unless_done:
        unless_done.callback(path.unlink)
        await encode(source, inspected, path, to=to, compression=compression, max_pixels=_MAX_PIXELS)
        unless_done.pop_all()
    return path


def _new_file(directory: Path, suffix: str) -> Path:
    descriptor, name = tempfile.mkstemp(dir=directory, prefix="converted-", suffix=suffix)
    os.close(descriptor)
    return Path(name)
