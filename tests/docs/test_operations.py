"""The operator's day in `docs/operations.md` is lived through, in one shell, at a gateway that really runs."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from tests.docs.conftest import serving
from tests.docs.pages import DOCS, Block, blocks, make_target
from tests.docs.printed import is_shown, is_shown_as_json
from tests.docs.test_readme import needs
from tests.harness.processes import free_port

_PAGE: Final = DOCS / "operations.md"
_WRITTEN_URL: Final = "http://127.0.0.1:8080"
_WRITTEN_RECEIVER: Final = "8099"
_LONGEST_S: Final = 480.0
"""The page is three quarters of a minute of work on an idle machine; every command is a process of its own."""


@pytest.mark.journey
@pytest.mark.timeout(_LONGEST_S + 60)
def test_the_day_goes_as_it_is_told(tmp_path: Path) -> None:
    needs("bash", "python3", "awk", "grep", "sed")
    page = list(blocks(_PAGE))
    (start,) = [place for place, block in enumerate(page) if is_for_make(block)]
    settings = dict(word.split("=", 1) for word in page[start].text.split() if "=" in word)
    told = in_one_shell(page[:start], tmp_path, dict(os.environ))

    with serving(tmp_path, settings) as gateway:
        # As on a reader's machine: the command finds its keys by itself, and is found beside this Python.
        environment = {
            name: value for name, value in gateway.environment.items() if name != "DARKROOM_API_KEY"
        }
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        ports = {_WRITTEN_URL: gateway.url, _WRITTEN_RECEIVER: str(free_port())}
        told += in_one_shell([swapped(block, ports) for block in page[start + 1 :]], tmp_path, environment)

    assert len(told) > 20
    differing = [
        f"{shown.place} shows:\n{shown.text}and printed was:\n{printed}"
        for shown, printed in told
        if not (is_shown_as_json if shown.language == "json" else is_shown)(shown.text, printed)
    ]
    assert not differing, "\n".join(differing)


def is_for_make(block: Block) -> bool:
    """Whether the block starts the gateway."""
    return any(make_target(line) == "run" for line in block.text.splitlines())


def swapped(block: Block, words: Mapping[str, str]) -> Block:
    """The block with what is written in it put in the words of this run."""
    text = block.text
    for written, meant in words.items():
        text = text.replace(written, meant)
    return Block(
        place=block.place, language=block.language, text=text, follows_directly=block.follows_directly
    )


def in_one_shell(
    page: Sequence[Block], folder: Path, environment: Mapping[str, str]
) -> list[tuple[Block, str]]:
    """Type the page's blocks of shell one after another; each block that shows what was printed, with what was."""
    mark = "-- that was "
    typed = [block for block in page if block.language == "bash"]
    script = "\n".join(f"{block.text}echo '{mark}{block.place}'" for block in typed)
    output = folder / "printed"
    # Into a file, since what is left in the background would keep a pipe open.
    with output.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607 - the reader's own
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        code = process.wait(_LONGEST_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    text = output.read_text(encoding="utf-8")
    assert code == 0, f"a command failed:\n{text}"
    printed: dict[str, str] = {}
    for block in typed:
        printed[block.place], _, text = text.partition(f"{mark}{block.place}\n")
    return [
        (block, printed[before.place])
        for before, block in pairwise(page)
        if before.language == "bash" and block.language != "bash" and block.follows_directly
    ]
