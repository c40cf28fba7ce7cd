"""A picture becomes the same picture in another format, decoded where it can do no harm."""

import asyncio
import os
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageStat

from app.assets import isolation
from app.assets.conversion import convert
from app.assets.errors import PictureBroken
from app.assets.inspection import inspect
from app.domain.pictures import PictureFormat
from tests.assets.pictures import SAMPLES, animated, chunk, drawing, opened, oriented, png_declaring, saved


def written(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


def made_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != "source"]


def on_white(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


def difference(first: Image.Image, second: Image.Image) -> float:
    """The mean difference of two pictures' channels, 0 to 255."""
    pairs = zip(ImageStat.Stat(first).mean, ImageStat.Stat(second).mean, strict=True)
    return max(abs(one - other) for one, other in pairs)


@pytest.mark.parametrize(
    "name", ["png", "png-palette", "jpeg", "jpeg-cmyk", "webp-lossy", "webp-alpha", "gif"]
)
@pytest.mark.parametrize("to", [PictureFormat.PNG, PictureFormat.JPEG, PictureFormat.WEBP])
async def test_the_picture_is_the_same_in_the_asked_format(
    tmp_path: Path, name: str, to: PictureFormat
) -> None:
    path = await convert(written(tmp_path, SAMPLES[name]), to, compression=None, directory=tmp_path)

    found = inspect(path)
    assert (found.format, found.width_px, found.height_px) == (to, 40, 30)
    assert path.suffix == to.suffix
    assert difference(on_white(opened(path)), on_white(opened(SAMPLES[name]))) < 3


@pytest.mark.parametrize("to", [PictureFormat.JPEG, PictureFormat.WEBP])
async def test_compression_is_quality(tmp_path: Path, to: PictureFormat) -> None:
    source = written(tmp_path, saved(drawing(200, 200), "PNG"))

    sizes = [
        inspect(await convert(source, to, compression=quality, directory=tmp_path)).length_bytes
        for quality in (0, 50, 100, None)
    ]

    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


async def test_transparency_survives_where_the_format_has_it_and_turns_white_in_jpeg(tmp_path: Path) -> None:
    source = written(tmp_path, saved(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"))

    webp = await convert(source, PictureFormat.WEBP, compression=None, directory=tmp_path)
    jpeg = await convert(source, PictureFormat.JPEG, compression=None, directory=tmp_path)

    assert opened(webp).convert("RGBA").getpixel((4, 4))[3] == 0  # type: ignore[index]  # RGBA gives four
    assert opened(jpeg).getpixel((4, 4)) == (255, 255, 255)


async def test_sixteen_bits_of_grey_are_scaled_not_cut(tmp_path: Path) -> None:
    source = written(tmp_path, saved(Image.new("I;16", (8, 8), 0x8080), "PNG"))

    path = await convert(source, PictureFormat.PNG, compression=None, directory=tmp_path)

    assert opened(path).getpixel((4, 4)) == (0x80, 0x80, 0x80)


async def test_a_picture_is_turned_as_its_exif_says_and_the_rest_is_left_behind(tmp_path: Path) -> None:
    source = written(tmp_path, saved(drawing(), "JPEG", exif=oriented(6), comment=b"secret"))

    path = await convert(source, PictureFormat.JPEG, compression=90, directory=tmp_path)

    picture = opened(path)
    assert picture.size == (30, 40)
    assert dict(picture.getexif()) == {}
    assert b"secret" not in path.read_bytes()


async def test_colours_keep_their_profile_where_it_fits(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colour = written(tmp_path, saved(drawing(), "PNG", icc_profile=profile))
    path = await convert(colour, PictureFormat.WEBP, compression=None, directory=tmp_path)
    assert opened(path).info["icc_profile"] == profile

    grey = written(tmp_path, saved(drawing(mode="L"), "PNG", icc_profile=profile))
    path = await convert(grey, PictureFormat.WEBP, compression=None, directory=tmp_path)
    assert "icc_profile" not in opened(path).info


def text_bomb() -> bytes:
    """A PNG of a few kilobytes whose texts unfold to 160 MB."""
    texts = [chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(8_000_000))) for _ in range(20)]
    return SAMPLES["png"][:33] + b"".join(texts) + SAMPLES["png"][33:]


@pytest.mark.parametrize(
    "content, reason",
    [
        (SAMPLES["svg"], "never decoded"),
        (png_declaring(50_000, 50_000), "more than 100000000"),
        (png_declaring(3000, 3000), "cannot be decoded"),
        (SAMPLES["png"][:-1], "is cut off"),
        (text_bomb(), "cannot be decoded"),
        (animated("WEBP"), "several frames"),
        (animated("PNG"), "several frames"),
        (animated("GIF"), "several frames"),
    ],
)
async def test_what_cannot_be_converted_is_broken_and_leaves_no_file(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(PictureBroken, match=reason):
        await convert(written(tmp_path, content), PictureFormat.PNG, compression=None, directory=tmp_path)

    assert made_files(tmp_path) == []


async def test_nothing_is_converted_into_gif_or_svg(tmp_path: Path) -> None:
    for to in (PictureFormat.GIF, PictureFormat.SVG):
        with pytest.raises(ValueError, match="png, jpeg or webp"):
            await convert(written(tmp_path, SAMPLES["png"]), to, compression=None, directory=tmp_path)


@pytest.fixture(scope="module")
def noise() -> bytes:
    """A picture that is work for any machine, in time, memory and bytes."""
    return saved(Image.effect_noise((2000, 1500), 90).convert("RGB"), "PNG", compress_level=0)


@pytest.mark.parametrize(
    "limit, value, reason",
    [
        ("_LEAST_MEMORY_BYTES", 45_000_000, "cannot be decoded"),
        ("_CPU_S", 0, "takes too long"),
        ("_WALL_S_PER_CPU_S", 0.001, "takes too long"),
        ("_OUTPUT_BYTES_PER_PIXEL", 0, "cannot be decoded"),
    ],
)
async def test_a_decoder_that_passes_a_bound_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: bytes, limit: str, value: float, reason: str
) -> None:
    source = written(tmp_path, noise)
    monkeypatch.setattr(isolation, "_MEMORY_BYTES_PER_PIXEL", 0)
    monkeypatch.setattr(isolation, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(isolation, "_PIXELS_PER_CPU_S", 10**9)
    monkeypatch.setattr(isolation, limit, value)

    with pytest.raises(PictureBroken, match=reason):
        await convert(source, PictureFormat.WEBP, compression=None, directory=tmp_path)

    assert made_files(tmp_path) == []


async def test_an_installation_without_a_decoder_is_not_blamed_on_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import a_library_that_is_not_there")
    monkeypatch.setattr(isolation, "_PROGRAM", program)
    (tmp_path / "made").mkdir()

    with pytest.raises(isolation.DecoderUnavailable, match="a_library_that_is_not_there"):
        await convert(
            written(tmp_path, SAMPLES["png"]),
            PictureFormat.WEBP,
            compression=None,
            directory=tmp_path / "made",
        )

    assert made_files(tmp_path / "made") == []


async def test_the_decoder_sees_no_environment_and_no_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys\n"
        "print('ready', file=sys.stderr)\n"
        "print(sorted(set(os.environ) - {'LC_CTYPE'}), os.getcwd(), file=sys.stderr)\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(isolation, "_PROGRAM", program)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    with pytest.raises(PictureBroken, match=r"^\[\] /$"):
        await convert(
            written(tmp_path, SAMPLES["png"]), PictureFormat.WEBP, compression=None, directory=tmp_path
        )


async def test_a_conversion_given_up_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = tmp_path / "running"
    os.mkfifo(running)
    program = tmp_path / "program.py"
    # Opening a pipe waits for its other end, so both sides know that the other is there.
    program.write_text(f"print('begun', file=open({str(running)!r}, 'w'))\nprint('picture')\n")
    monkeypatch.setattr(isolation, "_PROGRAM", program)
    (tmp_path / "made").mkdir()
    conversion = asyncio.create_task(
        convert(
            written(tmp_path, SAMPLES["png"]),
            PictureFormat.WEBP,
            compression=None,
            directory=tmp_path / "made",
        )
    )
    assert await asyncio.to_thread(running.read_text) == "begun\n"

    conversion.cancel()
    with pytest.raises(asyncio.CancelledError):
        await conversion

    assert made_files(tmp_path / "made") == []
