"""`make chaos`, or `python -m tests.chaos --seed 1 --seconds 60 --jobs 300`: a fault run with its report.

Exits with 1 when a promise was broken.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from tests.chaos import broken_worker
from tests.chaos.history import VIOLATIONS
from tests.chaos.run import Report, run


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Shake a whole gateway.")
    parser.add_argument("--seed", type=int, default=1, help="decides the faults and the orders")
    parser.add_argument("--runs", type=int, default=1, help="so many, with the seeds that follow")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults strike")
    parser.add_argument("--jobs", type=int, help="orders; by default five a second")
    parser.add_argument("--apis", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--variant", choices=broken_worker.VARIANTS, help="break the workers on purpose")
    parser.add_argument("--json", type=Path, help="a file to which each run's numbers are added as one line")
    parser.add_argument(
        "--logs", type=Path, help="a folder for every process' log, should a promise be broken"
    )
    chosen = parser.parse_args()
    is_clean = True
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        report = asyncio.run(
            run(
                seed=seed,
                seconds=chosen.seconds,
                jobs=chosen.jobs or max(int(chosen.seconds * 5), 1),
                apis=chosen.apis,
                workers=chosen.workers,
                worker_command=broken_worker.command(chosen.variant) if chosen.variant else None,
                keep_logs=chosen.logs and chosen.logs / str(seed),
                say=say,
            )
        )
        show(report)
        if chosen.json is not None:
            with chosen.json.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({**report.as_json(), "variant": chosen.variant}) + "\n")
        is_clean &= report.is_clean
    sys.exit(0 if is_clean else 1)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show(report: Report) -> None:
    """Print a report."""
    verdict = report.verdict
    say(f"\nfaults: {report.faults.total()}")
    for kind, count in report.faults.most_common():
        say(f"  {count:4}  {kind}")
    say(
        f"calls: {report.calls}   orders: {report.orders}   jobs: {report.jobs}   attempts: {report.attempts}"
    )
    for counted in (report.statuses, report.answers):
        for text, count in counted.most_common(20):
            say(f"  {count:4}  {text}")
        say("")
    say(
        f"spent {verdict.spent_micros / 1e6:.6f} USD, billed {verdict.billed_micros / 1e6:.6f} USD; "
        f"recovered {verdict.recovered}, SDK retries not attached {len(verdict.unattached)}; "
        f"at rest {report.rested_after_s:.1f} s after the last fault"
    )
    for kind, meaning in VIOLATIONS.items():
        found = verdict.violations[kind]
        say(f"{kind}: {len(found)}" + (f"   ({meaning})" if found else ""))
        for text in found[:10]:
            say(f"  {text}")
    for text in verdict.unattached:
        say(f"not attached: {text}")
    for text in report.integrity:
        say(f"integrity: {text}")
    for text in report.falls:
        say(f"fallen: {text}")
    for text in report.bugs:
        say(f"bug: {text}")
    for job_id, lines in list(report.logs.items())[:5]:
        say(f"-- {job_id}\n{lines}")
    say("every promise was kept" if report.is_clean else "PROMISES WERE BROKEN")


if __name__ == "__main__":
    main()
