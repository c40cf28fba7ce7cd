"""The outage that `docs/outage.md` tells of happens, word for word."""

import subprocess
import sys

from tests.docs.pages import DOCS, ROOT


def test_the_page_tells_what_the_demonstration_prints() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.demos.outage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    page = (DOCS / "outage.md").read_text(encoding="utf-8")
    assert f"```text\n{ended.stdout}```\n" in page
