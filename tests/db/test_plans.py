"""What the queries of a busy day cost when the tables are full: pages touched, and plans that never read a whole table.

100,000 finished jobs of a thousand teams, one of which has half of them; 10,000 of its jobs wait, and one job
of a small team. The statements are those that the functions really send. Each is asked for its plan twice: for these
values, counting pages, and for any values, as a prepared statement ends up with.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pytest

from app.assets.records import AssetKind
from app.assets.repository import assets_of_jobs, expired_assets, finished_inputs
from app.db.connection import Connection
from app.db.engine import Database
from app.db.postgres import PostgresConnection
from app.jobs import adoption, claims, repository
from app.jobs.lifecycle import Status
from app.webhooks import repository as webhooks

JOBS: Final = 100_000
BIG: Final = (
    "jobs", "attempts", "assets", "job_metadata", "idempotency_keys", "webhook_events", "webhook_deliveries"
)  # fmt: skip
PAGES_MAX: Final = 1_500
"""Pages of 8 kB that one statement may touch; reading the smallest of these tables takes thousands."""

FULL: Final = """
SET session_replication_role = replica;  -- no triggers, no foreign keys: the rows are right as they are
INSERT INTO teams SELECT 'team_' || t, 'team ' || t, '{}', now() FROM generate_series(0, 999) t;
INSERT INTO jobs (id, team_id, api_key_id, operation, dialect, model, catalog_version, request, n, fingerprint,
                  metadata, priority, status, lease_token, claims, available_at, deadline_at, to_buy, spare, result,
                  error, created_at, started_at, finished_at, expires_at, purged_at, delivered_at, caller_retry,
                  revision)
SELECT 'job_' || lpad(i::text, 8, '0'), 'team_' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % 1000 END, 'key_' || i % 1000,
       'image.generation', 'openai', CASE WHEN i % 1000 < 998 THEN 'gpt-image-2' ELSE 'rare' END, 'v',
       '{"prompt": "a boat", "model": "gpt-image-2", "operation": "image.generation", "n": 1}', 1,
       sha256(i::text::bytea), '{}', 1, CASE WHEN i % 1000 = 1 THEN 'failed' ELSE 'succeeded' END, 1, 0,
       born, born + interval '10 min', 0, 0, '{"files": []}', NULL, born, born, born + interval '1 min',
       born + interval '30 days', NULL, CASE WHEN i % 3 = 0 THEN NULL ELSE born + interval '1 min' END, 0, 3
FROM generate_series(1, {jobs}) i, LATERAL (SELECT now() - interval '20 days' + i * interval '1 second' AS born) b;
INSERT INTO attempts (id, job_id, number, round, upstream, target, pictures, owner_token, state, opened_at, outcome_due,
                      finished_at, hold_micros, cost_micros, certainty, settled)
SELECT 'att_' || substr(id, 5), id, 0, 1, 'openai', '{}', 1, 1, 'succeeded', created_at, created_at, finished_at,
       6000, 6000, 'estimated', 'spent' FROM jobs;
INSERT INTO assets (id, team_id, kind, job_id, attempt_id, index, key, filename, purpose, format, width_px, height_px,
                    size_bytes, sha256, created_at, expires_at)
SELECT 'file_' || substr(id, 5), team_id, 'result', id, 'att_' || substr(id, 5), 0, 'k/' || id, 'f.png', 'vision',
       'png', 1024, 1024, 1000, sha256(id::bytea), created_at, expires_at FROM jobs;
INSERT INTO job_metadata SELECT team_id, sha256('["env", "prod"]'), created_at, id FROM jobs;
INSERT INTO job_metadata SELECT team_id, sha256('["order", "4711"]'), created_at, id FROM jobs
WHERE id = 'job_00000042';
INSERT INTO idempotency_keys SELECT team_id, 'k' || id, fingerprint, id, created_at, created_at + interval '30 days'
FROM jobs;
INSERT INTO webhook_events SELECT 'evt_' || substr(id, 5), id, team_id, 'job.' || status,
       created_at - interval '252 hours' FROM jobs;  -- 30 days ago for half of them
INSERT INTO webhook_deliveries (id, event_id, team_id, job_id, url, receiver, status, created_at, next_at, ends_at,
                                claims, tries, history, finished_at)
SELECT 'whd_' || substr(job_id, 5), id, team_id, job_id, 'http://a', 'http://a', 'succeeded', created_at, created_at,
       created_at, 1, 1, '[]', created_at FROM webhook_events;
INSERT INTO jobs (id, team_id, api_key_id, operation, dialect, model, catalog_version, request, n, fingerprint,
                  metadata, priority, status, lease_token, claims, available_at, deadline_at, to_buy, spare, created_at,
                  expires_at, caller_retry, revision)
SELECT 'job_q' || i, CASE WHEN i = 0 THEN 'team_7' ELSE 'team_0' END, 'key_q', 'image.generation', 'openai',
       'gpt-image-2', 'v', '{"prompt": "a boat", "model": "gpt-image-2", "operation": "image.generation", "n": 1}', 1,
       sha256(i::text::bytea), '{}', 1, 'queued', 0, 0, now() - i * interval '1 ms', now() + interval '10 min', 1, 0,
       now() - i * interval '1 ms', now() + interval '30 days', 0, 0
FROM generate_series(0, 9999) i;
INSERT INTO jobs (id, team_id, api_key_id, operation, dialect, model, catalog_version, request, n, fingerprint,
                  metadata, priority, status, lease_token, lease_until, claims, available_at, deadline_at, to_buy,
                  spare, created_at, started_at, expires_at, caller_retry, revision)
SELECT 'job_r' || i, 'team_' || i % 50, 'key_r', 'image.generation', 'openai', 'gpt-image-2', 'v',
       '{"prompt": "a boat", "model": "gpt-image-2", "operation": "image.generation", "n": 1}', 1,
       sha256(i::text::bytea), '{}', 1, 'in_progress', 1, now() + interval '20 s', 1, now(), now() + interval '5 min',
       0, 0, now(), now(), now() + interval '30 days', 0, 1
FROM generate_series(0, 199) i;
INSERT INTO attempts (id, job_id, number, round, upstream, target, pictures, owner_token, state, opened_at, outcome_due)
SELECT 'att_' || id, id, 0, 1, 'openai', '{}', 1, 1, 'intent', now(), now() + interval '5 min'
FROM jobs WHERE status = 'in_progress';
SET session_replication_role = DEFAULT;
""".replace("{jobs}", str(JOBS))

T = TypeVar("T")
Ask = Callable[[Connection], Awaitable[T]]


@dataclass(frozen=True)
class Sent:
    """A statement as the driver got it."""

    sql: str
    values: tuple[Any, ...]


class Full:
    """A full database, and its opinion on statements."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.Runner()
        self._database = Database(url, pool_size=1, statement_timeout_s=300.0)
        self._sent: list[Sent] = []
        self._observing = self._database.observed(
            lambda sql, values: self._sent.append(Sent(sql, tuple(values)))
        )
        self._observing.__enter__()

    def close(self) -> None:
        """Leave the database."""
        self.loop.run(self._database.close())
        self.loop.close()

    def fill(self) -> None:
        """Write the rows, building the indexes once instead of row by row."""

        async def work() -> None:
            async with self._database.transaction() as connection:
                driver = _driver(connection)
                kept = await driver.fetch(
                    "SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS sql FROM pg_index i"
                    " JOIN pg_class c ON c.oid = i.indrelid WHERE c.relname = ANY($1) AND NOT i.indisprimary"
                    " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)",
                    list(BIG),
                )
                for index in kept:
                    await driver.execute(f"DROP INDEX {index['name']}")
                await driver.execute(FULL)
                for index in kept:
                    await driver.execute(index["sql"])
            async with self._database.reading() as connection:
                await _driver(connection).execute("VACUUM ANALYZE")

        self.loop.run(work())

    def ask(self, question: Ask[T]) -> T:
        """Ask for real, and take every change back."""

        async def work() -> T:
            async with self._database.reading() as connection:
                driver = _driver(connection)
                await driver.execute("BEGIN")
                answer = await question(connection)
                await driver.execute("ROLLBACK")
                return answer

        return self.loop.run(work())

    def plans(self, question: Ask[object]) -> list[tuple[Sent, dict[str, Any], dict[str, Any]]]:
        """Each statement that the question sends, its plan for these values with what it touched, and for any."""

        async def work() -> list[tuple[Sent, dict[str, Any], dict[str, Any]]]:
            found = []
            async with self._database.reading() as connection:
                driver = _driver(connection)
                self._sent.clear()
                await driver.execute("BEGIN")
                await question(connection)
                await driver.execute("ROLLBACK")
                sent = list(self._sent)
                for statement in sent:
                    await driver.execute("BEGIN")
                    these = await driver.fetchval(
                        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}", *statement.values
                    )
                    await driver.execute("ROLLBACK")
                    await driver.execute(
                        "CREATE OR REPLACE FUNCTION pg_temp.plan(q text) RETURNS json LANGUAGE plpgsql AS $$"
                        " DECLARE p json; BEGIN EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || q INTO p;"
                        " RETURN p; END $$"
                    )
                    any_values = await driver.fetchval("SELECT pg_temp.plan($1)", statement.sql)
                    found.append((statement, _plan(these), _plan(any_values)))
            return found

        return self.loop.run(work())


def _driver(connection: Connection) -> Any:
    assert isinstance(connection, PostgresConnection)
    return connection.driver


@pytest.fixture
def full(postgres_url: str) -> Iterator[Full]:
    """A full database."""
    database = Full(postgres_url)
    database.fill()
    yield database
    database.close()


def _plan(explained: Any) -> dict[str, Any]:
    [plan] = json.loads(explained) if isinstance(explained, str) else explained
    return dict(plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def listing(team_id: str | None = "team_0", **filters: Any) -> Ask[object]:
    """A page of a team's jobs; without a team, of everybody's."""
    wanted = {"status": None, "model": None, "metadata": {}, "after": None, "limit": 21, **filters}
    return lambda connection: repository.list_jobs(connection, team_id, **wanted)


PAGE = "job_00075000"
QUESTIONS: dict[str, Ask[object]] = {
    "claim": lambda c: claims.claim(c, "worker", limit=4, lease_s=30.0, claims_max=3),
    "find": lambda c: repository.find(c, "job_00000042", team_id="team_0"),
    "lock": lambda c: repository.lock(c, "job_00000042"),
    "renew": lambda c: repository.renew_leases(c, {"job_r1": 1, "job_r2": 1}, lease_s=30.0),
    "statuses": lambda c: repository.statuses(c, ["job_00000042", "job_q1"]),
    "lapsed leases": lambda c: repository.lapsed(c, limit=200),
    "late jobs": lambda c: repository.late(c, limit=200),
    "undecided jobs": lambda c: repository.undecided(c, after_s=30.0, limit=200),
    "spent jobs": lambda c: repository.spent(c, claims_max=3, limit=200),
    "traffic of an upstream": lambda c: repository.traffic(c, "openai"),
    "attempts of jobs": lambda c: repository.attempts_of(c, ["job_00000042", "job_00000043"]),
    "pictures of jobs": lambda c: assets_of_jobs(c, ["job_00000042", "job_00000043"], [AssetKind.RESULT]),
    "adoption": lambda c: adoption.adopt(c, "key_42", b"no such", retry=1, held_s=10.0),
    "a call that was overtaken": lambda c: adoption.overtaken_by(
        c, "key_42", b"no such", retry=0, within_s=5.0
    ),
    "the queue, for metrics": repository.queue,
    "open attempts, for metrics": repository.open_attempts,
    "the backlog of webhooks, for metrics": webhooks.backlog,
    "purge of jobs": lambda c: repository.purge_jobs(c, limit=200),
    "purge of keys": lambda c: repository.purge_idempotency_keys(c, limit=200),
    "purge of deliveries": lambda c: webhooks.purge_deliveries(c, limit=200),
    "purge of pictures": lambda c: expired_assets(c, limit=200),
    "purge of inputs": lambda c: finished_inputs(c, limit=200),
    "list": listing(),
    "list, next page": listing(after=PAGE),
    "list of a small team": listing("team_7"),
    "list by status": listing(status=Status.FAILED),
    "list by status, next page": listing(status=Status.SUCCEEDED, after=PAGE),
    "list by a model that is common": listing(model="gpt-image-2", after=PAGE),
    "list by a model that is rare": listing(model="rare"),
    "list by metadata that all have": listing(metadata={"env": "prod"}),
    "list by metadata that all have, next page": listing(metadata={"env": "prod"}, after=PAGE),
    "list by metadata that one has": listing(metadata={"order": "4711"}),
    "list by metadata that one has and all have": listing(metadata={"env": "prod", "order": "4711"}),
    "list by metadata that none has": listing(metadata={"order": "none"}),
    "list of everybody's jobs": listing(None),
    "list of everybody's jobs, next page": listing(None, after=PAGE),
}


def complaints(full: Full, name: str) -> Iterator[str]:
    """What is wrong with the statements of one question."""
    for statement, these, any_values in full.plans(QUESTIONS[name]):
        begin = " ".join(statement.sql.split())[:60]
        for kind, plan in (("these values", these), ("any values", any_values)):
            for node in nodes(plan["Plan"]):
                if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
                    yield f"{name}: reads all of {node['Relation Name']} for {kind}: {begin}"
        touched = these["Plan"]["Shared Hit Blocks"] + these["Plan"]["Shared Read Blocks"]
        if touched > PAGES_MAX:
            yield f"{name}: touches {touched} pages: {begin}"


def test_no_query_reads_a_whole_table(full: Full) -> None:
    # One test for all, since it is filling the tables that takes its time.
    found = [complaint for name in QUESTIONS for complaint in complaints(full, name)]
    assert not found, "\n".join(found)
    team_of_turn = full.ask(lambda c: claims.claim(c, "worker", limit=2, lease_s=30.0, claims_max=3))
    assert {job.team_id for job in team_of_turn} == {"team_0", "team_7"}
