"""Whether what a command printed is what a page shows, where `…` on the page stands for a word, or for a moment."""

import json
import re
from typing import Any, Final

_ANYTHING: Final = "…"
_A_WORD_OR_A_MOMENT: Final = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|\d\d:\d\d:\d\d UTC|\S+)"


def is_shown(shown: str, printed: str) -> bool:
    """Compare line by line; the width of columns depends on what stands in them, so any space equals any other."""
    theirs, ours = _lines(shown), _lines(printed)
    return len(theirs) == len(ours) and all(map(_resembles, theirs, ours))


def is_shown_as_json(shown: str, printed: str) -> bool:
    """Compare values; the order of members does not matter."""
    return _equals(json.loads(shown), json.loads(printed))


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def _resembles(shown: str, printed: str) -> bool:
    pattern = re.escape(shown).replace(re.escape(_ANYTHING), _A_WORD_OR_A_MOMENT)
    return re.fullmatch(pattern, printed) is not None


def _equals(shown: Any, printed: Any) -> bool:
    match shown, printed:
        case dict(), dict():
            return shown.keys() == printed.keys() and all(_equals(shown[key], printed[key]) for key in shown)
        case list(), list():
            return len(shown) == len(printed) and all(map(_equals, shown, printed))
        case str(), _ if _ANYTHING in shown:
            return _resembles(shown, str(printed))
        case _:
            return bool(shown == printed)
