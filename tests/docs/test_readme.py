"""What the README and the pages beside it tell a reader to type is typed here, at a gateway that really runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.docs.conftest import Served
from tests.docs.pages import DOCS, README, Block, blocks, make_target

_WRITTEN_URL: Final = "http://127.0.0.1:8080"
_WRITTEN_BIN: Final = ".venv/bin/"

PROMISED: Final = {
    "first-picture.png": ("PNG", (1024, 1024)),
    "fox.webp": ("WEBP", (1536, 1024)),
    "night.png": ("PNG", (1024, 1024)),
    "island.jpg": ("JPEG", (1024, 1536)),
    "lighthouse.png": ("PNG", (1536, 1024)),
}
"""The files that the README's commands save, and what the requests in them ask for."""


@pytest.mark.journey
def test_the_readmes_commands_save_the_pictures_that_they_ask_for(served: Served, tmp_path: Path) -> None:
    needs("bash", "curl", "python3")

    follow(README, served, tmp_path)

    saved = {path.name: measured(path) for path in tmp_path.iterdir()}
    assert saved == PROMISED


@pytest.mark.journey
def test_the_picture_in_the_readme_is_the_one_that_its_curl_makes(served: Served, tmp_path: Path) -> None:
    needs("bash", "curl", "python3")
    first = next(block for block in blocks(README) if "first-picture.png" in block.text)

    run(first, served, tmp_path)

    shown = Image.open(DOCS / "images" / "first-picture.png").convert("RGB")
    made = Image.open(tmp_path / "first-picture.png").convert("RGB")
    difference = ImageStat.Stat(ImageChops.difference(shown, made)).mean
    # Letters may be drawn a shade differently by another build of Pillow.
    assert max(difference) < 2, "the sandbox draws differently now: save its new picture in docs/images"


@pytest.mark.journey
def test_the_example_of_an_error_is_answered_as_printed(served: Served, tmp_path: Path) -> None:
    needs("bash", "curl")

    follow(DOCS / "errors.md", served, tmp_path)


def follow(page: Path, served: Served, folder: Path) -> None:
    """Do what a page says, in its order; what is printed must be what the page shows as JSON right below."""
    printed = ""
    for block in blocks(page):
        if block.language == "json" and block.follows_directly:
            assert json.loads(printed) == json.loads(block.text), block.place
        elif block.language in {"bash", "python"} and not is_for_make(block):
            printed = run(block, served, folder)


def run(block: Block, served: Served, folder: Path) -> str:
    """Run a block of shell or Python in `folder`; what it printed."""
    text = block.text.replace(_WRITTEN_URL, served.url)
    text = text.replace(_WRITTEN_BIN, f"{Path(sys.executable).parent}/")
    command = {
        "bash": ["bash", "-euo", "pipefail", "-c", text],
        "python": [sys.executable, "-W", "error", "-c", text],
    }[block.language]
    ended = subprocess.run(
        command, cwd=folder, env=served.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, f"{block.place} failed:\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def is_for_make(block: Block) -> bool:
    """Whether the block only asks make for something; those targets are compared with the Makefile's elsewhere."""
    return all(make_target(line) for line in block.text.splitlines())


def measured(path: Path) -> tuple[str | None, tuple[int, int]]:
    """A picture's format and size in pixels, found by decoding all of it."""
    with Image.open(path) as picture:
        picture.load()
        return picture.format, picture.size


def needs(*programs: str) -> None:
    """Skip where a program that the page relies on is not there."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
