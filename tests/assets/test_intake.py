"""Inputs are decoded before anything is bought, and leave without what they tell of their owner."""

import hashlib
import struct
from pathlib import Path

import pytest
from PIL import ImageChops, ImageCms, PngImagePlugin

from app.assets.errors import ImageTooLarge, InvalidImage, UnsupportedFile
from app.assets.intake import Examined, examine
from app.domain.errors import GatewayError
from app.domain.pictures import PictureFormat
from tests.assets.pictures import SAMPLES, animated, chunk, drawing, opened, oriented, png_declaring, saved

SECRET = b"52 degrees north"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "spooled"
    path.write_bytes(content)
    return path


async def examined(path: Path, *, max_pixels: int = 100_000_000, max_bytes: int = 50_000_000) -> Examined:
    return await examine(path, max_pixels=max_pixels, max_bytes=max_bytes, param="image")


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def same_pixels(first: bytes, second: bytes) -> bool:
    one, other = opened(first), opened(second)
    return one.mode == other.mode and ImageChops.difference(one, other).getbbox() is None


def talkative_png(**options: object) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", SECRET.decode())
    info.add_text("Comment", SECRET.decode(), zip=True)
    info.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta>{SECRET.decode()}</x:xmpmeta>")
    content = saved(drawing(mode="RGBA"), "PNG", pnginfo=info, dpi=(300, 300), icc_profile=PROFILE, **options)
    return content[:-12] + chunk(b"prVt", SECRET) + chunk(b"caBX", SECRET) + content[-12:]


def talkative_jpeg(**options: object) -> bytes:
    content = saved(
        drawing(),
        "JPEG",
        comment=SECRET,
        xmp=b"<x:xmpmeta>" + SECRET,
        icc_profile=PROFILE,
        dpi=(300, 300),
        **options,
    )
    segments = [(0xE0, b"JFXX\0\x10" + SECRET), (0xE2, b"FPXR\0" + SECRET), (0xED, b"Photoshop 3.0\0" + SECRET),
                (0xEB, SECRET), (0xFE, SECRET)]  # fmt: skip
    extra = b"".join(struct.pack(">BBH", 0xFF, code, len(data) + 2) + data for code, data in segments)
    return content[:2] + extra + content[2:]


def talkative_webp(**options: object) -> bytes:
    content = saved(
        drawing(mode="RGBA"),
        "WEBP",
        lossless=True,
        xmp=b"<x:xmpmeta>" + SECRET,
        icc_profile=PROFILE,
        **options,
    )
    extra = b"C2PA" + struct.pack("<I", len(SECRET)) + SECRET
    return content[:4] + struct.pack("<I", len(content) - 8 + len(extra)) + content[8:] + extra


TALKATIVE = {"png": talkative_png, "jpeg": talkative_jpeg, "webp": talkative_webp}


@pytest.mark.parametrize("kind", TALKATIVE)
@pytest.mark.parametrize("orientation", [1, 6])
async def test_metadata_goes_and_pixels_profile_and_orientation_stay(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    given = TALKATIVE[kind](exif=oriented(orientation)) + SECRET
    found = await examined(written(tmp_path, given))

    content = found.path.read_bytes()
    assert SECRET in given
    assert SECRET not in content
    assert b"telephones" not in content
    assert same_pixels(given, content)
    picture = opened(content)
    assert picture.info["icc_profile"] == PROFILE
    assert dict(picture.getexif()) == ({0x0112: orientation} if orientation > 1 else {})
    assert sorted(picture.info) == sorted(
        set(picture.info) - {"comment", "xmp", "Comment", "XML:com.adobe.xmp"}
    )
    assert (found.format, found.width_px, found.height_px) == (PictureFormat(kind), 40, 30)
    assert (found.size_bytes, found.sha256) == (len(content), hashlib.sha256(content).digest())
    assert found.has_alpha == (kind != "jpeg")
    assert files_in(tmp_path) == ["spooled"]


@pytest.mark.parametrize(
    "name",
    [name for name in SAMPLES if not name.startswith(("svg", "gif")) and not name.endswith("animated")],
)
async def test_every_ordinary_input_is_accepted_with_its_pixels(tmp_path: Path, name: str) -> None:
    found = await examined(written(tmp_path, SAMPLES[name]))

    assert same_pixels(found.path.read_bytes(), SAMPLES[name])


async def test_what_says_nothing_is_kept_byte_for_byte(tmp_path: Path) -> None:
    for name in ("png", "jpeg", "webp-lossy"):
        found = await examined(written(tmp_path, SAMPLES[name]))
        assert found.path.read_bytes() == SAMPLES[name]


async def test_a_second_picture_in_a_telephones_jpeg_is_cut_away(tmp_path: Path) -> None:
    given = saved(drawing(), "MPO", save_all=True, append_images=[drawing(shade=99)])
    found = await examined(written(tmp_path, given))

    picture = opened(found.path)
    assert picture.format == "JPEG"
    assert same_pixels(found.path.read_bytes(), given)
    assert b"MPF" not in found.path.read_bytes()


async def test_adobes_colour_transform_stays(tmp_path: Path) -> None:
    given = saved(drawing(mode="CMYK"), "JPEG")
    assert b"Adobe" in given

    assert b"Adobe" in (await examined(written(tmp_path, given))).path.read_bytes()


async def test_a_thumbnail_in_jfif_is_cut_away(tmp_path: Path) -> None:
    plain = SAMPLES["jpeg"]
    thumbnail = b"\xff\xe0" + struct.pack(">H", 16 + 12) + plain[6:18] + b"\x02\x02" + SECRET[:12]
    found = await examined(written(tmp_path, plain[:2] + b"\xff\xff" + thumbnail + plain[20:]))

    assert SECRET[:12] not in found.path.read_bytes()
    assert found.path.read_bytes() == plain


@pytest.mark.parametrize("name, has_alpha", [("png", False), ("png-alpha-text", True), ("webp-alpha", True)])
async def test_it_tells_whether_a_picture_could_be_a_mask(tmp_path: Path, name: str, has_alpha: bool) -> None:
    assert (await examined(written(tmp_path, SAMPLES[name]))).has_alpha is has_alpha


async def test_a_palette_with_a_transparent_colour_has_alpha(tmp_path: Path) -> None:
    content = saved(drawing(mode="P"), "PNG", transparency=0)

    assert (await examined(written(tmp_path, content))).has_alpha


def header_flip() -> bytes:
    """A PNG whose header and checksums are fine, and whose pixels do not unpack."""
    return SAMPLES["png"][:33] + chunk(b"IDAT", b"\x78\x9c" + b"\xff" * 500) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content, error, says",
    [
        (b"", InvalidImage, "is empty"),
        (SAMPLES["png"][:-1], InvalidImage, "is cut off"),
        (SAMPLES["jpeg"][:-1], InvalidImage, "is cut off"),
        (SAMPLES["webp-lossy"][:-1], InvalidImage, "is cut off"),
        (header_flip(), InvalidImage, "cannot be decoded"),
        (png_declaring(20_000, 20_000), InvalidImage, "400000000 pixels, more than 100000000"),
        (png_declaring(9_000, 9_000), InvalidImage, "cannot be decoded"),
        (animated("PNG"), InvalidImage, "several frames"),
        (animated("WEBP"), InvalidImage, "is an animation"),
        (SAMPLES["gif"], UnsupportedFile, "image/gif"),
        (SAMPLES["svg"], UnsupportedFile, r"image/svg\+xml"),
        (b"%PDF-1.7 and more", UnsupportedFile, "unknown type"),
    ],
)
async def test_what_is_no_input_is_refused_with_its_reason_and_left_alone(
    tmp_path: Path, content: bytes, error: type[GatewayError], says: str
) -> None:
    path = written(tmp_path, content)

    with pytest.raises(error, match=says) as caught:
        await examined(path)

    assert caught.value.param == "image"
    assert path.read_bytes() == content
    assert files_in(tmp_path) == ["spooled"]


async def test_limits_are_the_callers(tmp_path: Path) -> None:
    path = written(tmp_path, SAMPLES["png"])

    with pytest.raises(InvalidImage, match="1200 pixels, more than 1199"):
        await examined(path, max_pixels=1199)
    with pytest.raises(ImageTooLarge, match="at most 99"):
        await examined(path, max_bytes=99)
    await examined(path, max_pixels=1200, max_bytes=len(SAMPLES["png"]))
