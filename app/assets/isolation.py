"""Decoding at arm's length: one picture, one small process, which may crash or run away without harm to this one."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.assets.decoding import READY, REFUSED
from app.assets.errors import PictureBroken
from app.assets.inspection import Inspected
from app.domain.pictures import PictureFormat

_PROGRAM: Final = Path(__file__).with_name("decoding.py")
# Pillow's names. SVG is not among them: it is never decoded.
_PILLOW: Final = {
    PictureFormat.PNG: "PNG",
    PictureFormat.JPEG: "JPEG",
    PictureFormat.WEBP: "WEBP",
    PictureFormat.GIF: "GIF",
}
# How many processes decode at once. Each takes one core and up to its memory limit; the others wait in line.
_DECODERS: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decoding")
# Measured: Python with Pillow, 30 MB. A progressive JPEG or a WebP needs up to 12 bytes a pixel before its end, and a
# conversion as much again as the decoded picture's 4.
_MEMORY_BYTES: Final = 300_000_000
_MEMORY_BYTES_PER_PIXEL: Final = 16
_LEAST_MEMORY_BYTES: Final = 700_000_000
# Measured: 2.6 s to write a PNG of 8.3 megapixels on a slow core, the slowest of all that is asked for here.
_CPU_S: Final = 5
_PIXELS_PER_CPU_S: Final = 1_000_000
# By then even a machine that is busy with other things has given a picture its share.
_WALL_S_PER_CPU_S: Final = 4
# Noise in the worst format takes all the four bytes that a pixel has, and a little for the container.
_OUTPUT_BYTES: Final = 1_000_000
_OUTPUT_BYTES_PER_PIXEL: Final = 5
_REPORT_BYTES: Final = 64 * 1024


class DecoderUnavailable(RuntimeError):
    """The decoding program did not start: an installation at fault, not a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What only decoding tells of a picture."""

    has_alpha: bool
    orientation: int
    """How Exif says the picture is to be turned, 1 (not at all) to 8."""


async def decode(path: Path, inspected: Inspected, *, max_pixels: int) -> Decoded:
    """Decode a PNG, JPEG, WebP or GIF of one frame and throw the pixels away.

    Raises:
        PictureBroken: it cannot be decoded within its bounds, has several frames or more than `max_pixels`.
        DecoderUnavailable: the installation is at fault.
    """
    told = json.loads(await _run(path, inspected, None, max_pixels=max_pixels))
    orientation = told["orientation"]
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    return Decoded(has_alpha=told["has_alpha"], orientation=orientation if known else 1)


async def encode(
    path: Path,
    inspected: Inspected,
    output: Path | None,
    *,
    to: PictureFormat,
    compression: int | None,
    max_pixels: int,
) -> None:
    """Decode as `decode` does and write the picture into `output`, an empty file, as PNG, JPEG or WebP.

    Raises:
        PictureBroken: as `decode` does.
        DecoderUnavailable: the installation is at fault.
    """
    await _run(path, inspected, output, max_pixels=max_pixels, to=_PILLOW[to], compression=compression)


async def _run(
    path: Path,
    inspected: Inspected,
    output: Path | None,
    *,
    max_pixels: int,
    to: str | None = None,
    compression: int | None = None,
) -> str:
    if inspected.format not in _PILLOW:
        raise PictureBroken(f"is {inspected.format.value}, which is never decoded")
    pixels = inspected.width_px * inspected.height_px
    if pixels > max_pixels:
        raise PictureBroken(f"has {pixels} pixels, more than {max_pixels}")
    cpu_s = _CPU_S + pixels // _PIXELS_PER_CPU_S
    order = {
        "format": _PILLOW[inspected.format],
        "width_px": inspected.width_px,
        "height_px": inspected.height_px,
        "max_pixels": max_pixels,
        "to": to,
        "compression": compression,
        "cpu_s": cpu_s,
        "memory_bytes": max(_LEAST_MEMORY_BYTES, _MEMORY_BYTES + pixels * _MEMORY_BYTES_PER_PIXEL),
        "output_bytes": _OUTPUT_BYTES + (pixels * _OUTPUT_BYTES_PER_PIXEL if to else 0),
    }
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        _DECODERS, _run_blocking, path, order, output, cpu_s * _WALL_S_PER_CPU_S
    )


def _run_blocking(path: Path, order: dict[str, object], output: Path | None, timeout_s: float) -> str:
    # -I: no environment, no user's packages, no current folder.
    command = [sys.executable, "-I", str(_PROGRAM), json.dumps(order)]
    with ExitStack() as files:
        source = files.enter_context(path.open("rb"))
        # A file rather than a pipe, so that its length is bounded too.
        report = files.enter_context(tempfile.TemporaryFile())
        # Never created here: when the caller has given up, and removed it, nothing is left behind.
        target = subprocess.DEVNULL if output is None else files.enter_context(output.open("r+b"))
        try:
            status = subprocess.run(  # noqa: S603  # our own program; the order holds numbers and names of ours
                command,
                stdin=source,
                stdout=target,
                stderr=report,
                env={},
                cwd="/",
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as exc:
            raise PictureBroken("takes too long to decode") from exc
        report.seek(0)
        lines = report.read(_REPORT_BYTES).decode("utf-8", "replace").splitlines()
    if lines[:1] != [READY]:
        raise DecoderUnavailable(f"the decoding program did not start: {lines[-1:]}")
    match status:
        case 0:
            return lines[-1]
        case _ if status == REFUSED:
            raise PictureBroken(lines[-1])
        case _ if status == -signal.SIGXCPU:
            raise PictureBroken("takes too long to decode")
        case _:
            raise PictureBroken("cannot be decoded")
