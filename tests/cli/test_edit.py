"""`darkroom edit`: pictures are handed in from files; the rest is as with `generate`."""

from pathlib import Path

import pytest

from tests.cli.command import darkroom
from tests.cli.gateway import PICTURE, FakeGateway


@pytest.fixture(autouse=True)
def pictures(folder: Path) -> None:
    """Three files to start from."""
    for name in ("first.png", "second.jpg", "mask.png"):
        (folder / name).write_bytes(f"bytes of {name}".encode())


def test_pictures_and_mask_are_handed_in_and_the_edit_is_saved(gateway: FakeGateway, folder: Path) -> None:
    ended = darkroom("edit", "first.png", "second.jpg", "--prompt", "at night", "--mask", "mask.png")

    assert ended.code == 0, ended.err
    assert (folder / "out.png").read_bytes() == PICTURE
    assert "$0.007152 from therouter in" in ended.out
    asked = gateway.asked[0]
    assert (asked.path, asked.query) == ("/v1/images/edits", {"async": "true"})
    for part in (
        b'name="image[]"; filename="first.png"\r\nContent-Type: image/png\r\n\r\nbytes of first.png',
        b'name="image[]"; filename="second.jpg"\r\nContent-Type: image/jpeg\r\n\r\nbytes of second.jpg',
        b'name="mask"; filename="mask.png"\r\nContent-Type: image/png\r\n\r\nbytes of mask.png',
        b'name="prompt"\r\n\r\nat night',
        b'name="model"\r\n\r\ngpt-image-2',
    ):
        assert part in asked.body


def test_an_upload_that_breaks_is_repeated_whole_under_the_same_key(gateway: FakeGateway) -> None:
    gateway.broken_submits = 2

    ended = darkroom("edit", "first.png", "--prompt", "at night")

    assert ended.code == 0, ended.err
    submits = [each for each in gateway.asked if each.method == "POST"]
    assert len({each.headers["idempotency-key"] for each in submits}) == 1
    assert all(b"bytes of first.png" in each.body for each in submits)


@pytest.mark.parametrize(
    "arguments",
    [
        ("first.png",),
        ("--prompt", "at night"),
        ("nowhere.png", "--prompt", "at night"),
        ("first.png", "--prompt", "at night", "--mask", "nowhere.png"),
        ("first.png", "--prompt", "at night", "-o", "no/such/folder.png"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_sent(
    gateway: FakeGateway, arguments: tuple[str, ...]
) -> None:
    assert darkroom("edit", *arguments).code == 2
    assert not gateway.asked
