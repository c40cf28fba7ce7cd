"""What all workers know together of upstreams: pauses, breaker, probes, the last resort, retries and measures."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from app.catalog.entries import Model, RoutingPolicy
from app.catalog.keys import Keyring
from app.db.engine import Database
from app.db.postgres import PostgresConnection
from app.db.tables.attempts import attempts
from app.domain.failures import FailureKind, UpstreamFailure
from app.jobs.measures import FRESH_S, Measures, samples_of
from app.jobs.routes import Routes
from app.kit.retry_after import retry_after_s
from app.routing.health import EJECT_AT_MOST_S, EJECT_S, PROBE_S, TRIP_AFTER
from app.routing.plan import Absence, Plan
from tests.catalog.shipped import A_REQUEST, a_model
from tests.house import pass_time
from tests.jobs.conftest import Store

KEYS = {"OPENAI_API_KEY": "a", "THE_ROUTER_API_KEY": "b"}
REMOTE = {"openai": "gpt-image-2", "therouter": "openai/gpt-image-2"}


def two_routes(policy: RoutingPolicy = RoutingPolicy.PRIORITY) -> Model:
    """The shipped gpt-image-2, from two vendors."""
    model = a_model()
    routes = tuple(route for route in model.routes if route.upstream.name in REMOTE)
    return replace(model, routes=routes, routing=replace(model.routing, policy=policy))


@dataclass
class Worker:
    """One worker's view of the routes; every worker has its own."""

    routes: Routes
    database: Database
    model: Model

    async def plan(self) -> Plan:
        return (await self.routes.plan(self.model, A_REQUEST)).plan

    async def order(self) -> list[str]:
        return [item.route.upstream.name for item in (await self.plan()).candidates]

    async def fail(self, kind: FailureKind, *, upstream: str = "openai", times: int = 1, **more: Any) -> None:
        for _ in range(times):
            await self.routes.failed(upstream, REMOTE[upstream], UpstreamFailure(kind, "scripted", **more))

    async def may_ask(self, upstream: str = "openai", *, is_repeat: bool = False) -> bool:
        route = next(item for item in self.model.routes if item.upstream.name == upstream)
        outlook = await self.routes.plan(self.model, A_REQUEST)
        has_tripped = upstream in outlook.tripped
        return await self.routes.may_ask(route.upstream, is_repeat=is_repeat, has_tripped=has_tripped)

    async def away_s(self, upstream: str = "openai") -> float:
        """For how many seconds an upstream is left alone; 0 when it is not."""
        outlook = await self.routes.plan(self.model, A_REQUEST)
        plan, at = outlook.plan, outlook.at
        absent = [item.retry_at for item in plan.left_out if item.route.upstream.name == upstream]
        return (absent[0] - at).total_seconds() if absent and absent[0] else 0.0

    async def pass_time(self, seconds: float) -> None:
        """Let so many seconds go by for everything that is remembered."""
        await pass_time(self.database, seconds)


@pytest.fixture
def workers(store: Store) -> tuple[Worker, Worker]:
    """Two workers on one database, on SQLite and on Postgres."""
    one, other = (
        Worker(Routes(store.database, Keyring(KEYS), random.Random(0)), store.database, two_routes())
        for _ in range(2)
    )
    return one, other


Workers = tuple[Worker, Worker]


@pytest.mark.parametrize(
    "header, low_s, high_s",
    [
        ("7", 6, 7),
        ("1e9", 1, 60),
        ("-1", 0.5, 21),
        ("abc", 0.5, 21),
        ("Sat, 21 Nov 2026 10:00:00 GMT", 59, 60),
    ],
)
async def test_a_vendor_that_asks_for_a_pause_gets_it_from_everybody(
    workers: Workers, header: str, low_s: float, high_s: float
) -> None:
    one, other = workers
    asked_s = retry_after_s({"retry-after": header, "date": "Sat, 21 Nov 2026 09:00:00 GMT"})
    await one.fail(FailureKind.BUSY, retry_after_s=asked_s)
    assert await other.order() == ["therouter"]
    assert low_s <= await other.away_s() <= high_s
    await one.pass_time(61)
    assert await other.order() == ["openai", "therouter"]


async def test_a_call_that_was_sent_before_does_not_end_the_pause(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.BUSY, retry_after_s=30)
    await other.routes.delivered("openai", REMOTE["openai"])
    assert await one.order() == ["therouter"]


async def test_a_shorter_pause_does_not_shorten_a_longer_absence(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.CREDENTIALS)
    await other.fail(FailureKind.BUSY, retry_after_s=2)
    (left_out,) = (await one.plan()).left_out
    assert left_out.absence is Absence.OFF
    assert await one.away_s() > 500


async def test_failures_in_a_row_trip_the_breaker_for_everybody(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.DOWN, times=TRIP_AFTER - 2)
    await other.fail(FailureKind.TIMED_OUT)
    assert await other.order() == ["openai", "therouter"]
    await other.fail(FailureKind.GARBLED)
    assert await one.order() == ["therouter"]
    assert EJECT_S - 2 < await one.away_s() <= EJECT_S


async def test_a_success_between_failures_starts_the_count_again(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.DOWN, times=TRIP_AFTER - 1)
    await other.routes.delivered("openai", REMOTE["openai"])
    await one.fail(FailureKind.DOWN)
    assert await other.order() == ["openai", "therouter"]


async def test_one_call_at_a_time_probes_an_upstream_that_was_ejected(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.DOWN, times=TRIP_AFTER)
    await one.pass_time(EJECT_S + 1)
    assert await one.order() == await other.order() == ["openai", "therouter"]
    assert [await one.may_ask(), await other.may_ask()] == [True, False]
    assert await other.order() == ["therouter"]
    await one.pass_time(PROBE_S + 1)
    assert await other.may_ask()


async def test_a_probe_that_succeeds_closes_the_breaker(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.DOWN, times=TRIP_AFTER)
    await one.pass_time(EJECT_S + 1)
    assert await one.may_ask()
    await one.routes.delivered("openai", REMOTE["openai"])
    assert await other.order() == ["openai", "therouter"]
    assert [await other.may_ask(), await other.may_ask()] == [True, True]


async def test_each_probe_that_fails_ejects_for_longer_up_to_a_limit(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.DOWN, times=TRIP_AFTER)
    for _ in range(2):
        await one.pass_time(EJECT_AT_MOST_S + 1)
        assert await one.may_ask()
        await one.fail(FailureKind.DOWN)
    assert 2 * EJECT_S < await other.away_s() <= 3 * EJECT_S
    for _ in range(12):
        await one.fail(FailureKind.DOWN)
    assert EJECT_AT_MOST_S - 2 < await other.away_s() <= EJECT_AT_MOST_S


async def test_the_last_resort_is_probed_however_long_it_is_ejected(workers: Workers) -> None:
    one, other = workers
    for name in REMOTE:
        await one.fail(FailureKind.DOWN, upstream=name, times=TRIP_AFTER + 5)
    assert await one.order() == []
    await one.pass_time(EJECT_S + 1)
    assert await other.order() == ["openai", "therouter"]
    assert [await one.may_ask(), await other.may_ask()] == [True, False]
    assert await other.order() == ["therouter"]


async def test_one_that_is_well_is_preferred_to_a_last_resort(workers: Workers) -> None:
    one, _ = workers
    await one.fail(FailureKind.DOWN, times=TRIP_AFTER + 5)
    await one.pass_time(EJECT_S + 1)
    assert await one.order() == ["therouter"]


@pytest.mark.parametrize("kind", [FailureKind.CREDENTIALS, FailureKind.FUNDS])
async def test_an_account_at_fault_is_out_until_the_timer_or_an_operator_lifts_it(
    workers: Workers, kind: FailureKind
) -> None:
    one, other = workers
    await one.fail(kind)
    assert [item.absence for item in (await other.plan()).left_out] == [Absence.OFF]
    await other.routes.reset("openai", None)
    assert await one.order() == ["openai", "therouter"]
    await one.fail(kind)
    await one.pass_time(601)
    assert await other.order() == ["openai", "therouter"]


async def test_a_vendor_without_the_model_is_set_aside_for_it_alone(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.UNSUPPORTED)
    assert await other.order() == ["therouter"]
    other.model = replace(
        other.model, routes=tuple(replace(item, model="another") for item in other.model.routes)
    )
    assert await other.order() == ["openai", "therouter"]


async def test_a_vendor_without_a_parameter_is_not_set_aside(workers: Workers) -> None:
    one, other = workers
    await one.fail(FailureKind.UNSUPPORTED, param="moderation")
    assert await other.order() == ["openai", "therouter"]


@pytest.mark.parametrize("kind", [FailureKind.INVALID, FailureKind.REFUSED])
async def test_a_clients_mistake_is_not_held_against_the_vendor(workers: Workers, kind: FailureKind) -> None:
    one, other = workers
    await one.fail(kind, times=TRIP_AFTER + 1)
    assert await other.order() == ["openai", "therouter"]


async def test_retries_at_an_upstream_keep_within_their_budget(workers: Workers, store: Store) -> None:
    one, _ = workers
    down = UpstreamFailure(FailureKind.DOWN, "scripted")
    for repeats in range(4):
        # Three may retry at any time; asking for the first time is always free.
        assert await one.may_ask(is_repeat=True) is (repeats < 3)
        assert await one.may_ask()
        job_id = await store.job()
        job = await store.claim()
        assert job.id == job_id
        (attempt,) = await store.open(job)
        await store.moves.refuse(attempt, down)
        await store.open(job, round_number=2)
    # A fifth of the calls in flight, where that is more.
    for _ in range(17):
        await store.job()
        await store.open(await store.claim())
    assert await one.may_ask(is_repeat=True)


async def an_attempt(store: Store, upstream: str, took_s: float) -> None:
    """A picture that took so long."""
    await store.job()
    (attempt,) = await store.open(await store.claim(), upstream=upstream)
    await store.succeed(attempt)
    async with store.database.transaction() as connection:
        target = {"model": REMOTE[upstream]}
        ended = (await store.attempts(attempt.job_id))[0].finished_at
        assert ended is not None
        values = {"opened_at": ended - timedelta(seconds=took_s), "target": target}
        await connection.execute(update(attempts).where(attempts.c.id == attempt.id).values(**values))


async def test_the_fastest_is_asked_first_and_unmeasured_ones_last(workers: Workers, store: Store) -> None:
    one, other = workers
    one.model = other.model = two_routes(RoutingPolicy.FASTEST)
    await an_attempt(store, "therouter", 20)
    assert await one.order() == ["therouter", "openai"]
    await an_attempt(store, "openai", 5)
    assert await other.order() == ["openai", "therouter"]

    health = await other.routes.survey([other.model])
    latencies = {pair[0]: found.measure.latency_s for pair, found in health.items() if found.measure}
    assert latencies == pytest.approx({"openai": 5.0, "therouter": 20.0}, abs=0.1)


async def test_measures_cost_a_query_every_few_seconds_at_most(store: Store) -> None:
    await an_attempt(store, "openai", 5)
    seconds = [0.0]
    measures = Measures(store.database, clock=lambda: seconds[0])
    with statements_of(store.database) as statements:
        for _ in range(10):
            found = await measures.of({"openai"})
            assert found["openai", "gpt-image-2"].attempts == 1
        first = len(statements)
        seconds[0] += FRESH_S + 1
        await measures.of({"openai"})
        assert first > 0
        assert len(statements) == 2 * first


@contextmanager
def statements_of(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Gathers the statements that a database is sent, with their parameters."""
    found: list[tuple[str, Any]] = []

    with database.observed(lambda statement, values: found.append((statement, values))):
        yield found


async def test_measuring_reads_an_index_and_not_the_table(postgres_store: Store) -> None:
    database = postgres_store.database
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        with statements_of(database) as statements:
            await samples_of(connection, {"openai", "therouter"})
        statement, parameters = statements[-1]
        assert isinstance(connection, PostgresConnection)
        plan = [row[0] for row in await connection.driver.fetch(f"EXPLAIN {statement}", *parameters)]
    assert "Index Scan Backward using attempts_rate" in "\n".join(plan)
    assert "Sort" not in "\n".join(plan)


async def test_an_operators_word_on_a_model_outlasts_the_pause_of_its_vendor(workers: Workers) -> None:
    one, other = workers
    await one.routes.turn("openai", [REMOTE["openai"]], "off")
    await one.fail(FailureKind.BUSY, retry_after_s=30)
    (left_out,) = (await other.plan()).left_out
    assert left_out.absence is Absence.OFF
