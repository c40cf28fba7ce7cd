"""Tables and facts for people; scripts ask for JSON instead."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; None becomes a dash. Without a terminal nothing is cut to fit one."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=not console.is_terminal, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if value is None else str(value)) for value in row))
    if not console.is_terminal:
        console = Console(width=max(console.measure(table).maximum, 80) if table.rows else 80)
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one to a line; what is None is left out."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if value is not None:
            first, *rest = str(value).splitlines() or [""]
            print(f"{name:<{width}}  {first}")
            for line in rest:
                print(f"{'':<{width}}  {line}")
