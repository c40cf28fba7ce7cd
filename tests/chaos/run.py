"""One fault run from beginning to end: bring up, load and torment, heal, wait for rest, fetch, judge."""

import asyncio
import base64
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
from PIL import Image, UnidentifiedImageError

from app.db.engine import Database
from app.jobs.integrity import check_integrity
from tests.chaos import nemesis
from tests.chaos.catalog import DEADLINE_S
from tests.chaos.cluster import Cluster, open_cluster
from tests.chaos.history import (
    AFTER_DEADLINE,
    FINAL,
    Bill,
    BookedAttempt,
    BookedBudget,
    BookedJob,
    Collected,
    History,
    Verdict,
    judge,
)
from tests.chaos.load import Load
from tests.simulators.pictures import mark_of

_REST_S: Final = DEADLINE_S + AFTER_DEADLINE.total_seconds() + 10.0
_FETCHES: Final = 4
# What libraries leave behind unheard when a server goes away: asyncpg while it connects, arq at the end of a hint.
_LEFT_BEHIND: Final = (
    "ConnectionError('unexpected connection_lost() call')",
    "coro=<Worker.finish_job() done",
    "Unclosed Pipeline client",
)


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to."""

    seed: int
    seconds: float
    faults: Counter[str]
    calls: int
    orders: int
    jobs: int
    attempts: int
    statuses: Counter[str]
    answers: Counter[str]
    """What clients got, by kind of call."""
    rested_after_s: float
    """From the end of the faults until every job and every attempt was over."""
    verdict: Verdict
    integrity: list[str]
    """Promises that the product's own check finds broken."""
    falls: list[str]
    """Processes that ended although nobody told them to."""
    bugs: list[str]
    """What processes logged as errors of their own, one of each kind, with its trace."""
    logs: dict[str, str] = field(default_factory=dict)
    """Job id -> what the processes said of it, for the jobs that a violation names."""

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict.is_clean and not self.integrity and not self.falls and not self.bugs

    def as_json(self) -> dict[str, Any]:
        """The numbers, to be added up over runs."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "faults": dict(self.faults),
            "calls": self.calls,
            "orders": self.orders,
            "jobs": self.jobs,
            "attempts": self.attempts,
            "statuses": dict(self.statuses),
            "answers": dict(self.answers),
            "rested_after_s": round(self.rested_after_s, 1),
            "violations": {kind: len(found) for kind, found in self.verdict.violations.items()},
            "integrity": len(self.integrity),
            "falls": len(self.falls),
            "bugs": len(self.bugs),
            "recovered": self.verdict.recovered,
            "unattached": len(self.verdict.unattached),
            "spent_micros": self.verdict.spent_micros,
            "billed_micros": self.verdict.billed_micros,
        }


async def run(
    *,
    seed: int,
    seconds: float,
    jobs: int,
    apis: int = 2,
    workers: int = 3,
    worker_command: Sequence[str] | None = None,
    keep_logs: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run once. `say` is told how it goes; `keep_logs`: where every process' log is copied if a promise is broken."""
    history = History()
    command = {} if worker_command is None else {"worker_command": worker_command}
    say(f"seed {seed}: starting {apis} APIs and {workers} workers")
    async with open_cluster(seed=seed, apis=apis, workers=workers, **command) as cluster:
        load = Load(history, cluster.base_urls, {False: cluster.api_key, True: cluster.frugal_key}, seed=seed)
        try:
            faults = nemesis.plan(seed, seconds)
            say(f"{jobs} orders and {len(faults)} faults in {seconds:.0f} s")
            clients = asyncio.create_task(load.run(jobs, seconds * 0.9))
            struck = await nemesis.torment(cluster, faults)
            await cluster.heal()
            healed = time.monotonic()
            say(f"healed after {struck.total()} faults; waiting for rest")
            await clients
            await until_rest(cluster)
            rested_after_s = time.monotonic() - healed
            say(f"at rest after {rested_after_s:.1f} s; fetching results")
            verdict = await judged(cluster, history)
            report = Report(
                seed=seed,
                seconds=seconds,
                faults=struck,
                calls=len(history.calls),
                orders=len(history.orders),
                jobs=len(history.jobs),
                attempts=len(history.attempts),
                statuses=Counter(
                    job.status + (f" {job.error_code}" if job.error_code else "")
                    for job in history.jobs.values()
                ),
                answers=Counter(
                    f"{call.what}: {call.status or 'no answer'} {call.problem or ''}".rstrip()
                    for call in history.calls
                ),
                rested_after_s=rested_after_s,
                verdict=verdict,
                integrity=await _integrity(cluster),
                falls=[str(fall) for fall in cluster.falls],
                bugs=_bugs(cluster),
            )
            report.logs = _logs(cluster, history, report)
            if keep_logs is not None and not report.is_clean:
                await asyncio.to_thread(_keep_logs, cluster, keep_logs)
            return report
        finally:
            await load.close()


async def judged(cluster: Cluster, history: History) -> Verdict:
    """Add to what clients know the books, the bills and every result, and judge; nothing may be under way."""
    await _read_books(cluster, history)
    await _read_bills(cluster, history)
    await _collect(cluster, history)
    return judge(history)


async def until_rest(cluster: Cluster) -> None:
    """Wait until no job and no attempt is open, or the promise's time for that is over."""
    ends_at = time.monotonic() + _REST_S
    connection = await asyncpg.connect(cluster.database_url)
    try:
        while time.monotonic() < ends_at:
            open_ = await connection.fetchval(
                "SELECT (SELECT count(*) FROM jobs WHERE finished_at IS NULL OR lease_until IS NOT NULL)"
                " + (SELECT count(*) FROM attempts WHERE finished_at IS NULL)"
            )
            if not open_:
                return
            await asyncio.sleep(0.3)
    finally:
        await connection.close()


async def _read_books(cluster: Cluster, history: History) -> None:
    connection = await asyncpg.connect(cluster.database_url)
    try:
        jobs = await connection.fetch("SELECT * FROM jobs")
        attempts = await connection.fetch("SELECT * FROM attempts")
        budgets = await connection.fetch("SELECT * FROM budgets")
    finally:
        await connection.close()
    for row in jobs:
        error = json.loads(row["error"]) if row["error"] else None
        history.jobs[row["id"]] = BookedJob(
            id=row["id"],
            order_id=json.loads(row["request"])["prompt"].partition(":")[0],
            status=row["status"],
            error_code=error["code"] if error else None,
            n=row["n"],
            to_buy=row["to_buy"],
            has_lease=row["lease_until"] is not None,
            deadline_at=row["deadline_at"],
            finished_at=row["finished_at"],
        )
    for row in budgets:
        history.budgets.append(
            BookedBudget(
                id=row["id"],
                limit_micros=row["limit_micros"],
                reserved_micros=row["reserved_micros"],
                spent_micros=row["spent_micros"],
            )
        )
    for row in attempts:
        history.attempts[row["id"]] = BookedAttempt(
            id=row["id"],
            job_id=row["job_id"],
            state=row["state"],
            settled=row["settled"],
            cost_micros=row["cost_micros"],
        )


async def _read_bills(cluster: Cluster, history: History) -> None:
    for vendor in {vendor.base_url: vendor for vendor in cluster.vendors.values()}.values():
        ledger = await vendor.ledger()
        for attempt_id, account in ledger["attempts"].items():
            history.bills[attempt_id] = Bill(
                posts=account["posts"],
                charges=account["charges"],
                pictures=account["pictures"],
                cost_micros=round(float(account["cost_usd"]) * 1_000_000),
            )


async def _collect(cluster: Cluster, history: History) -> None:
    """Fetch and open every picture that was delivered."""
    await cluster.until_ready()
    gate = asyncio.Semaphore(_FETCHES)
    async with httpx2.AsyncClient(trust_env=False, timeout=30.0) as client:

        async def fetch(job: BookedJob) -> None:
            order = history.orders.get(job.order_id)
            key = cluster.frugal_key if order is not None and order.is_frugal else cluster.api_key
            headers = {"authorization": f"Bearer {key}"}
            async with gate:
                url = f"{cluster.base_urls[0]}/jobs/{job.id}/result"
                history.collected[job.id] = await _fetched(client, url, headers)

        await asyncio.gather(*(fetch(job) for job in history.jobs.values() if job.status == "succeeded"))


async def _fetched(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> Collected:
    try:
        answer = await client.get(url, headers=headers)
    except httpx2.HTTPError as exc:
        return Collected(result_sha256=None, marks=[], problem=type(exc).__name__)
    if answer.status_code != 200:
        return Collected(result_sha256=None, marks=[], problem=f"{answer.status_code}: {answer.text[:300]}")
    marks: list[str | None] = []
    for item in answer.json()["data"]:
        picture = base64.b64decode(item["b64_json"])
        try:
            with Image.open(io.BytesIO(picture)) as image:
                image.load()
        except (OSError, UnidentifiedImageError, SyntaxError) as exc:
            return Collected(result_sha256=None, marks=[], problem=f"a picture does not open: {exc}")
        marks.append(mark_of(picture))
    return Collected(result_sha256=hashlib.sha256(answer.content).hexdigest(), marks=marks)


async def _integrity(cluster: Cluster) -> list[str]:
    database = Database(cluster.database_url)
    try:
        async with database.reading() as connection:
            return [f"{item.name}: {', '.join(item.ids)}" for item in await check_integrity(connection)]
    finally:
        await database.close()


def _keep_logs(cluster: Cluster, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for member in cluster.members:
        (folder / f"{member.name}.log").write_text(member.everything_printed(), encoding="utf-8")


def _bugs(cluster: Cluster) -> list[str]:
    """Every kind of error that was logged; what is handled is a warning at most."""
    found: dict[str, str] = {}
    for member in cluster.members:
        for line in member.everything_printed().splitlines():
            if '"level": "error"' in line and not any(text in line for text in _LEFT_BEHIND):
                event = json.loads(line)
                trace = str(event.get("exception", ""))
                found.setdefault(
                    f"{event['event']} {trace.splitlines()[-1:]}", f"{member.name}: {event['event']}\n{trace}"
                )
    return list(found.values())


def _logs(cluster: Cluster, history: History, report: Report) -> dict[str, str]:
    """What every process said of the jobs that a violation names, for whoever looks for the reason."""
    said = " ".join(text for found in report.verdict.violations.values() for text in found)
    said += " ".join(report.integrity) + " ".join(report.verdict.unattached)
    named = {job_id for job_id in history.jobs if job_id in said}
    named |= {attempt.job_id for attempt in history.attempts.values() if attempt.id in said}
    lines = [
        (line, member.name) for member in cluster.members for line in member.everything_printed().splitlines()
    ]
    return {
        job_id: "\n".join(f"{name}: {line}" for line, name in sorted(lines, key=_time) if job_id in line)
        for job_id in sorted(named)
        if job_id in history.jobs and history.jobs[job_id].status in {*FINAL, "queued", "in_progress"}
    }


def _time(entry: tuple[str, str]) -> str:
    return entry[0].rpartition('"at": ')[2]
