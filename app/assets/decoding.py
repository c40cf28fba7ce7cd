"""The program that decodes one picture, run by `isolation.py` as a process of its own; it imports only Pillow.

Pillow parses what strangers made, so this process gets little memory, time and room, and no environment. The picture
is its standard input, an encoded picture its standard output, and its report goes to standard error.
"""

import json
import resource
import signal
import sys
import warnings
from typing import Any, Final, NoReturn

from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

# Importing a plugin registers it; these are named so that Pillow need not load all the others to find one.
PLUGINS: Final = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)

READY: Final = "ready"
"""The first line of the report: what follows is about the picture, not about this program."""
REFUSED: Final = 3
"""The exit status when the last line of the report says what is wrong with the picture."""


def main() -> None:
    """Do what the JSON in the first argument asks for."""
    order = json.loads(sys.argv[1])
    _confine(order)
    _report(READY)
    with Image.open(sys.stdin.buffer, formats=(order["format"],)) as picture:
        if picture.size != (order["width_px"], order["height_px"]):
            _refuse("has two headers that disagree")
        # A telephone's JPEG may carry a second picture behind the first, such as a depth map; it is cut away.
        if order["format"] != "JPEG" and getattr(picture, "n_frames", 1) != 1:
            _refuse("has several frames")
        picture.load()
        if order["to"] is None:
            _report(json.dumps(_description(picture)))
        else:
            _encode(picture, order["to"], order["compression"])


def _confine(order: dict[str, Any]) -> None:
    for limit, value in (
        (resource.RLIMIT_FSIZE, order["output_bytes"]),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    # The soft limit sends a signal that says why; the hard one just kills.
    resource.setrlimit(resource.RLIMIT_CPU, (order["cpu_s"], order["cpu_s"] + 1))
    # Darwin knows the limit but accepts no value for it.
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"], order["memory_bytes"]))
    # Python would go on after a write that is too long; ending here is simpler to tell apart.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    Image.MAX_IMAGE_PIXELS = order["max_pixels"]
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _description(picture: Image.Image) -> dict[str, Any]:
    return {
        "orientation": picture.getexif().get(0x0112, 1),
        "has_alpha": picture.has_transparency_data,
    }


def _encode(picture: Image.Image, to: str, compression: int | None) -> None:
    options: dict[str, Any] = {}
    if picture.mode in {"RGB", "RGBA", "P"}:
        # Other profiles describe ink or grey, not the RGB that is written.
        options["icc_profile"] = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):
        # Pillow cuts 16 bits off at 255 where it should scale them.
        upright = upright.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    transparent = upright.has_transparency_data
    upright = upright.convert("RGBA" if transparent else "RGB")
    if to == "JPEG" and transparent:
        # JPEG has no transparency; white is what a page would show behind it.
        ground = Image.new("RGB", upright.size, "white")
        ground.paste(upright, mask=upright.getchannel("A"))
        upright = ground
    if to in {"JPEG", "WEBP"}:
        options["quality"] = 100 if compression is None else compression
    # Pillow would write comments and resolutions that it finds here.
    upright.info.clear()
    upright.save(sys.stdout.buffer, to, **options)
    sys.stdout.flush()


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _refuse(reason: str) -> NoReturn:
    _report(reason)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
