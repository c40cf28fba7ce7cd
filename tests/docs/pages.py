"""Reads the documentation: which pages there are, and what stands in them as code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_COMMENT: Final = re.compile(r"^\s*#.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    place: str
    """File and line, for messages."""
    language: str
    """As written behind the fence; empty when nothing is."""
    text: str
    follows_directly: bool
    """Nothing but white space stands between the block before and this one."""


def pages() -> list[Path]:
    """Every page that we publish."""
    return [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text, end = page.read_text(encoding="utf-8"), 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(
            place=f"{page.relative_to(ROOT)}:{line}",
            language=match[1],
            text=match[2],
            follows_directly=end > 0 and not text[end : match.start()].strip(),
        )
        end = match.end()


def code(page: Path) -> Iterator[str]:
    """Everything on a page that stands as code: whole blocks without their comments, and pieces within sentences."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield _COMMENT.sub("", match[2])
    for match in _SPAN.finditer(_FENCE.sub("", text)):
        yield match[1]


def make_target(line: str) -> str | None:
    """The target that a line of shell asks make for, variables before it allowed; None when it is something else."""
    match = re.fullmatch(r"(?:\w+=\S+ )*make ([a-z][a-z-]*)(?: \w+=\S*)*", line.strip())
    return None if match is None else match[1]
