"""What the sandbox draws is what was asked for, in size, format, background and number, whatever the prompt holds."""

import io
import random

import pytest
from PIL import Image, ImageChops, ImageStat

from app.domain.pictures import PictureFormat, Size
from app.upstreams.sandbox.drawing import Sketch, draw, write_picture
from app.upstreams.sandbox.lettering import fit_caption

SQUARE = Size(320, 320)


def written(sketch: Sketch) -> bytes:
    file = io.BytesIO()
    write_picture(sketch, file)
    return file.getvalue()


@pytest.mark.parametrize("format_", [PictureFormat.PNG, PictureFormat.JPEG, PictureFormat.WEBP])
@pytest.mark.parametrize("size", [Size(256, 256), Size(1024, 1024), Size(480, 1440), Size(1440, 480)])
def test_the_picture_has_exactly_the_asked_size_and_format(format_: PictureFormat, size: Size) -> None:
    with Image.open(io.BytesIO(written(Sketch(prompt="a boat", size=size, format=format_)))) as image:
        image.load()

        assert image.size == size
        assert image.format == format_.name
        assert image.mode == "RGB"


@pytest.mark.parametrize("size", [Size(64, 64), Size(64, 3840), Size(3840, 64), Size(3840, 2160)])
def test_the_smallest_and_largest_sizes_can_be_drawn(size: Size) -> None:
    assert draw(Sketch(prompt="a boat " * 200, size=size)).size == size


@pytest.mark.parametrize("format_", [PictureFormat.PNG, PictureFormat.WEBP])
def test_a_transparent_background_is_really_clear_and_the_land_really_solid(format_: PictureFormat) -> None:
    sketch = Sketch(prompt="a boat", size=SQUARE, format=format_, is_transparent=True)

    with Image.open(io.BytesIO(written(sketch))) as image:
        alpha = image.convert("RGBA").getchannel("A")
        has_alpha = image.mode == "RGBA"

    assert has_alpha
    assert alpha.getpixel((2, 2)) == 0
    assert alpha.getpixel((160, 318)) == 255


def test_the_pictures_of_one_request_are_all_different() -> None:
    pictures = [
        draw(Sketch(prompt="a boat", size=SQUARE, number=number, count=10)) for number in range(1, 11)
    ]

    for place, picture in enumerate(pictures):
        for other in pictures[place + 1 :]:
            difference = ImageStat.Stat(ImageChops.difference(picture, other))
            assert sum(difference.mean) / 3 >= 4, "two pictures look alike"


def test_the_same_sketch_gives_the_same_bytes_and_another_seed_or_prompt_does_not() -> None:
    picture = written(Sketch(prompt="a boat", size=SQUARE, number=2, count=3, seed=7))

    assert picture == written(Sketch(prompt="a boat", size=SQUARE, number=2, count=3, seed=7))
    assert picture != written(Sketch(prompt="a boat", size=SQUARE, number=2, count=3, seed=8))
    assert picture != written(Sketch(prompt="a ship", size=SQUARE, number=2, count=3, seed=7))


@pytest.mark.parametrize("format_", [PictureFormat.JPEG, PictureFormat.WEBP])
def test_more_compression_makes_fewer_bytes(format_: PictureFormat) -> None:
    sizes = [
        len(written(Sketch(prompt="a boat", size=SQUARE, format=format_, compression=compression)))
        for compression in (0, 30, 70, 100)
    ]

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 2


def test_a_coarse_picture_is_a_rough_version_of_the_finished_one() -> None:
    finished = draw(Sketch(prompt="a boat", size=SQUARE))
    coarse = draw(Sketch(prompt="a boat", size=SQUARE, coarseness=4))

    assert coarse.size == finished.size
    assert coarse.tobytes() != finished.tobytes()
    assert coarse.resize((8, 8), Image.Resampling.BOX).getpixel((4, 7)) == pytest.approx(
        finished.resize((8, 8), Image.Resampling.BOX).getpixel((4, 7)), abs=12
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "漢字の風景",
        "عربى من اليمين",
        "a fox 🦊 and a family 👩‍👩‍👧‍👦",
        "crème brûlée — “Straße” ½ € ﬁn",
        "z̴̢̛͖a̷l̵g̶o̸",
        "\ud800 \ue000 \uffff \x00 \x1b\u202e",
        "\n\t  \n",
        "W" * 5000,
        "word " * 6000,
        "漢" * 32_000,
    ],
)  # fmt: skip
def test_no_text_is_too_strange_to_be_drawn(prompt: str) -> None:
    assert draw(Sketch(prompt=prompt, size=SQUARE)).size == SQUARE


def test_random_text_never_fails() -> None:
    source = random.Random(1)
    for _ in range(30):
        text = "".join(chr(source.randrange(0x110000)) for _ in range(source.randrange(60)))
        caption = fit_caption(text, width_px=300, height_px=80, largest_px=30, smallest_px=8)
        assert caption.height_px <= 80 + 30


def test_accents_are_written_plainly_and_what_cannot_be_written_keeps_its_place() -> None:
    caption = fit_caption("Café 漢!", width_px=900, height_px=90, largest_px=40, smallest_px=10)

    assert caption.lines == (("C", "a", "f", "e", " ", "漢", "!"),)


def test_a_short_prompt_is_set_larger_than_a_long_one_and_a_very_long_one_is_cut() -> None:
    short, long, endless = (
        fit_caption(text, width_px=400, height_px=120, largest_px=60, smallest_px=12)
        for text in ("a boat", "a boat on a lake " * 6, "a boat on a lake " * 600)
    )

    assert short.size_px == 60
    assert 12 <= long.size_px < 60
    assert endless.size_px == 12
    assert endless.lines[-1][-1] == "…"
    assert endless.height_px <= 120


def test_the_input_picture_is_shown_and_the_masked_region_is_tinted() -> None:
    photo = Image.new("RGB", (200, 100), (20, 200, 40))
    region = Image.new("L", photo.size, 0)
    region.paste(255, (100, 0, 200, 100))

    plain = draw(Sketch(prompt="a boat", size=Size(640, 640), photo=photo))
    tinted = draw(Sketch(prompt="a boat", size=Size(640, 640), photo=photo, region=region))

    assert count(plain, (20, 200, 40)) > 20_000
    assert 0.4 < count(tinted, (20, 200, 40)) / count(plain, (20, 200, 40)) < 0.6


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return sum(
        number for number, found in image.getcolors(image.width * image.height) or () if found == colour
    )
