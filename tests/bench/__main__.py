"""`make bench`, or `python -m tests.bench --quick`: measure this gateway beside others, on this machine.

Prints a table, and writes a file of figures and ratios.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Final

from tests.bench.measures import Sizes
from tests.bench.run import PARTS, run, table

QUICK: Final = Sizes(
    sequential=30,
    concurrent=80,
    in_flight=10,
    large=20,
    waiting_jobs=50,
    waiting_s=3.0,
    submitted=50,
    rows=10_000,
    failing=1,
    rounds=1,
)
"""A look in a minute; its figures say little."""


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure this gateway.")
    parser.add_argument("--quick", action="store_true", help="small numbers: a look, not a measurement")
    parser.add_argument("--no-peers", action="store_true", help="leave other gateways out")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure only these")
    parser.add_argument("--json", type=Path, default=Path("data/bench.json"), help="where the figures go")
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), dest=field.name)
    chosen = parser.parse_args()
    base = QUICK if chosen.quick else Sizes()
    sizes = Sizes(
        **{
            field.name: getattr(base, field.name) if (given := getattr(chosen, field.name)) is None else given
            for field in fields(Sizes)
        }
    )
    findings = asyncio.run(run(sizes, parts=chosen.parts, has_peers=not chosen.no_peers, say=say))
    say("\n" + table(findings))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(findings.as_json(), indent=2) + "\n", encoding="utf-8")
    say(f"\n{chosen.json} holds these figures, and what they were taken on.")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
