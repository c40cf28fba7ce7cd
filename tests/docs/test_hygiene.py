"""Nothing in the repository ties it to one machine or to one place that packages come from."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT

_PATTERNS: Final = {
    "an index's address": re.compile(r"(?<!emit-)index-url|/simple/|PIP_INDEX|UV_INDEX_URL"),
    "a folder of one machine": re.compile(r"(?<![\w.$}])/(?:work|root|Users)/|(?<![\w.$}])/home/[a-z]"),
}


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a clone of the repository"
)
@pytest.mark.parametrize("what", _PATTERNS)
def test_no_tracked_file_holds(what: str) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    itself = Path(__file__).relative_to(ROOT)
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in listed.decode().split("\0")
        if name and Path(name) != itself and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_bytes().decode("utf-8", "replace").splitlines(), 1)
        if _PATTERNS[what].search(line)
    ]

    assert not found
