"""The measurements: each asks something of a subject, and returns what was found in plain numbers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tests.bench.gauges import PeakMemory, cpu_s, family, memory_bytes
from tests.bench.load import Connection, Shot, fire, percentile
from tests.bench.subjects import GENERATIONS, IMPATIENT, MODEL, Stage, Subject, freeze, order
from tests.bench.vendor import LARGE

Numbers = dict[str, float]

_ACCEPTED_STATUSES: Final = {200, 202}
_FULL_TABLES: Final = """
SET session_replication_role = replica;
INSERT INTO jobs (id, team_id, api_key_id, operation, dialect, model, catalog_version, request, n, fingerprint,
                  metadata, priority, status, lease_token, claims, available_at, deadline_at, to_buy, spare, result,
                  created_at, started_at, finished_at, expires_at, delivered_at, caller_retry, revision)
SELECT 'job_full' || i, team_id, api_key_id, operation, dialect, model, catalog_version, request, n,
       sha256(i::text::bytea), '{}', 1, 'succeeded', 1, 0, born, born + interval '10 min', 0, 0, result,
       born, born, born + interval '1 min', born + interval '30 days', born + interval '1 min', 0, 3
FROM (SELECT * FROM jobs WHERE status = 'succeeded' LIMIT 1) one, generate_series(1, $ROWS) i,
     LATERAL (SELECT now() - interval '20 days' + i * interval '1 second' AS born) b;
INSERT INTO attempts (id, job_id, number, round, upstream, target, pictures, owner_token, state, opened_at,
                      outcome_due, finished_at, hold_micros, cost_micros, certainty, settled)
SELECT 'att_full' || i, 'job_full' || i, 0, 1, 'vendor', '{}', 1, 1, 'succeeded', born, born, born + interval '1 min',
       6000, 6000, 'actual', 'spent'
FROM generate_series(1, $ROWS) i, LATERAL (SELECT now() - interval '20 days' + i * interval '1 second' AS born) b;
SET session_replication_role = DEFAULT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything is asked for."""

    sequential: int = 200
    """Requests one after the other, small pictures."""
    concurrent: int = 600
    """Requests with small pictures, `in_flight` at a time."""
    in_flight: int = 40
    large: int = 120
    """Requests with 12.6 MB pictures, `in_flight` at a time."""
    waiting_jobs: int = 1000
    """Jobs that are all in flight at the same time."""
    waiting_s: float = 20.0
    """How long the vendor takes for each of those."""
    submitted: int = 400
    rows: int = 1_000_000
    failing: int = 3
    rounds: int = 3
    """How often each subject has its turn; the median counts."""


async def latency(stage: Stage, subject: Subject, sizes: Sizes) -> Numbers:
    """One request after the other: milliseconds at the median and at the 99th percentile."""
    await stage.vendor_answers()
    bodies = [order() for _ in range(sizes.sequential)]
    shots, _ = await fire(subject.base_url, subject.api_key, bodies, in_flight=1, path=GENERATIONS)
    times = [shot.seconds * 1000 for shot in shots if shot.status == 200]
    return {"latency_p50_ms": percentile(times, 0.5), "latency_p99_ms": percentile(times, 0.99)}


async def small_rate(stage: Stage, subject: Subject, sizes: Sizes) -> Numbers:
    """Many small pictures: requests per second, and per second of a core's time."""
    await stage.vendor_answers()
    return await _rate(subject, "small", "1024x1024", sizes.concurrent, sizes.in_flight)


async def large_rate(stage: Stage, subject: Subject, sizes: Sizes) -> Numbers:
    """Many pictures of 12.6 MB: requests per second, and the memory of one request in flight at the peak."""
    await stage.vendor_answers()
    with PeakMemory(subject.roots) as memory:
        found = await _rate(subject, "large", LARGE, sizes.large, sizes.in_flight)
    if subject.roots:
        found["large_idle_mb"] = memory.idle_bytes / 1e6
        found["large_peak_mb"] = memory.peak_bytes / 1e6
        found["large_mb_per_request"] = memory.added_bytes / 1e6 / sizes.in_flight
    return found


async def _rate(subject: Subject, name: str, size: str, requests: int, in_flight: int) -> Numbers:
    bodies = [order(size) for _ in range(requests)]
    began, stores_began = cpu_s(subject.roots), cpu_s(subject.stores)
    shots, seconds = await fire(
        subject.base_url, subject.api_key, bodies, in_flight=in_flight, path=GENERATIONS
    )
    used_s, stores_used_s = cpu_s(subject.roots) - began, cpu_s(subject.stores) - stores_began
    served = sum(shot.status == 200 for shot in shots)
    found = {f"{name}_per_s": served / seconds, f"{name}_failed": float(requests - served)}
    if used_s:
        found[f"{name}_per_core_s"] = served / used_s
    if stores_used_s:
        found[f"{name}_per_core_s_with_stores"] = served / (used_s + stores_used_s)
    return found


async def in_flight(stage: Stage, sizes: Sizes) -> Numbers:
    """Jobs that wait for a slow vendor all at once: how many, and what one of them costs in memory."""
    gateway = stage.gateway
    await stage.vendor_answers(delay_s=sizes.waiting_s)
    before = memory_bytes(family(gateway.roots))
    bodies = [order() for _ in range(sizes.waiting_jobs)]
    accepted, seconds = await fire(
        gateway.base_url, gateway.api_key, bodies, in_flight=20, path=f"{GENERATIONS}?async=true"
    )
    with PeakMemory(gateway.roots) as memory:
        await _until_done(gateway, accepted[-1].json()["id"])
        await _until_done(gateway, accepted[0].json()["id"])
    peak = (await stage.vendor_counts())["peak_in_flight"]
    return {
        "jobs_in_flight": peak,
        "jobs_in_flight_submit_s": seconds,
        "jobs_in_flight_kb_per_job": max(memory.peak_bytes - before, 0) / 1e3 / max(peak, 1),
    }


async def table_rates(stage: Stage, sizes: Sizes, name: str) -> Numbers:
    """Jobs handed in and looked at per second, while no worker takes any of the machine."""
    gateway = stage.gateway
    await stage.vendor_answers()
    bodies = [order() for _ in range(sizes.submitted)]
    thaw = freeze(stage.worker)
    try:
        accepted, submit_s = await fire(
            gateway.base_url, gateway.api_key, bodies, in_flight=20, path=f"{GENERATIONS}?async=true"
        )
        ids = [shot.json()["id"] for shot in _served(accepted)]
        poll_s = await _poll(gateway, ids)
    finally:
        thaw()
    drain_s = await _drained(gateway, ids)
    return {
        f"submit_per_s_{name}": len(ids) / submit_s,
        f"poll_per_s_{name}": len(ids) / poll_s,
        f"carried_per_s_{name}": len(ids) / drain_s,
    }


async def fill_tables(stage: Stage, rows: int) -> None:
    """Add finished jobs with their attempts, as many as a busy month leaves."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        await connection.execute(_FULL_TABLES.replace("$ROWS", str(rows)), timeout=3600)
        await connection.execute("ANALYZE jobs, attempts")
    finally:
        await connection.close()


async def calls_under_failure(stage: Stage, subject: Subject, sizes: Sizes, kind: str) -> Numbers:
    """A vendor that fails: the calls that one request of a client came to, at most; and the seconds until its end."""
    model = IMPATIENT if kind == "silent" else MODEL
    calls, seconds = [], []
    for _ in range(sizes.failing):
        await stage.vendor_answers(kind)
        shots, took_s = await fire(
            subject.base_url, subject.api_key, [order(model=model)], in_flight=1, path=GENERATIONS
        )
        assert shots[0].status not in _ACCEPTED_STATUSES, shots[0]
        calls.append((await stage.vendor_counts())["posts"])
        seconds.append(took_s)
    await stage.vendor_answers()
    return {f"calls_{kind}": max(calls), f"seconds_{kind}": max(seconds)}


async def _poll(gateway: Subject, ids: list[str]) -> float:
    left = iter(ids)

    async def poller() -> None:
        async with Connection(gateway.base_url, gateway.api_key) as connection:
            for job_id in left:
                shot = await connection.get(f"/jobs/{job_id}")
                assert shot.status == 200, shot

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(poller() for _ in range(20)))
    return loop.time() - began


async def _drained(gateway: Subject, ids: list[str]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(600):
        for job_id in ids:
            await _until_done(gateway, job_id)
    return loop.time() - began


async def _until_done(gateway: Subject, job_id: str) -> None:
    async with Connection(gateway.base_url, gateway.api_key) as connection:
        while True:
            job: Mapping[str, Any] = (await connection.get(f"/jobs/{job_id}?wait=60")).json()
            if job["status"] not in {"queued", "in_progress"}:
                assert job["status"] == "succeeded", job
                return


def _served(shots: list[Shot]) -> list[Shot]:
    failed = [shot for shot in shots if shot.status not in _ACCEPTED_STATUSES]
    assert not failed, f"{len(failed)} of {len(shots)} requests failed, such as {failed[0]}"
    return shots
