"""Tables and facts for people; scripts ask for JSON instead. Nothing is cut to fit a terminal: ids are for copying."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; None becomes a dash."""
    lines = [list(columns), *(["-" if value is None else str(value) for value in row] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip_longest(*lines, fillvalue="")]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one to a line; what is None is left out."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if value is not None:
            first, *rest = str(value).splitlines() or [""]
            print(f"{name:<{width}}  {first}")
            for line in rest:
                print(f"{'':<{width}}  {line}")


def moment(unix_s: object) -> str | None:
    """A moment in UTC for people; None when there is none."""
    is_moment = isinstance(unix_s, int | float) and unix_s > 0
    return f"{datetime.fromtimestamp(float(str(unix_s)), UTC):%Y-%m-%d %H:%M:%S} UTC" if is_moment else None
