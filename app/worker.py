"""The worker process: the engine that carries jobs, and beside it arq, which rings its bell and keeps the schedules.

arq may die with its Redis and is started again; the engine does not notice.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Final

from arq.cron import cron
from arq.worker import Worker, func
from fastapi import FastAPI
from redis.exceptions import RedisError
from uvicorn.loops.auto import auto_loop_factory

from app.admin import metrics
from app.admin.audit import Audit
from app.admin.configuration import Configuration
from app.api import health
from app.api.application import create_app
from app.api.server import server_of
from app.assembly import DRAIN_GRACE_S, Parts, assemble, in_background, process_name, working
from app.kit.backoff import full_jitter
from app.kit.redis import FORWARD, QUEUE, arq_redis, deserialize, serialize
from app.kit.telemetry import get_logger
from app.settings import Settings
from app.tasks.doorbell import forward
from app.tasks.schedules import purge, sweep

LOG = get_logger(__name__)

_POLL_DELAY_S: Final = 0.05
_TASKS_AT_MOST: Final = 100
_READ_LIMIT: Final = 10_000
"""How far arq looks into its queue; its default stalls behind tasks in progress."""


def run(settings: Settings) -> None:
    """Serve as a worker until SIGTERM or SIGINT, then drain."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_serve(settings))


def build_app(parts: Parts) -> FastAPI:
    """What a worker answers, for those who watch it: its metrics, and how it is."""
    is_public = parts.settings.metrics_public
    return create_app(
        [
            metrics.router(parts.registry, parts.survey.refresh, is_public=is_public),
            health.router(parts.checks, parts.warnings),
        ],
        parts.accounts,
        version=version("darkroom"),
        are_metrics_public=is_public,
        instruments=parts.http,
        tracing=parts.tracing,
    )


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with assemble(settings, is_api=False) as parts, working(parts), _observable(parts):
        configuration = Configuration(parts.catalogs, Audit(parts.database), process=process_name())
        loop.add_signal_handler(signal.SIGHUP, parts.catalogs.reload_soon, configuration.reload_by_signal)
        LOG.info("worker.started", slots=settings.worker_slots)
        async with in_background(_keep_arq_running(settings, parts)):
            await stop.wait()
            LOG.info("worker.draining", jobs=parts.engine.running)
            # arq stops with the context: what it would ring for, others claim.
        ended = await parts.engine.drain(DRAIN_GRACE_S)
        LOG.info("worker.stopped", drained=ended)


@contextlib.asynccontextmanager
async def _observable(parts: Parts) -> AsyncIterator[None]:
    """Answer those who watch, to the end of the draining, where the settings say so."""
    if parts.settings.worker_address is None:
        yield
        return
    server = server_of(build_app(parts), *parts.settings.worker_address)
    serving = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _keep_arq_running(settings: Settings, parts: Parts) -> None:
    """Arq ends with its Redis; it is started again as long as this process lives."""
    failures = 0
    while True:
        arq = _arq(settings, parts)
        try:
            await arq.async_run()
        except (RedisError, OSError, TimeoutError) as exc:
            failures += 1
            LOG.warning("arq.stopped", reason=type(exc).__name__, failures=failures)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await arq.close()
        await asyncio.sleep(0.2 + full_jitter(min(failures, 6), base_s=0.1, cap_s=3.0))


def _arq(settings: Settings, parts: Parts) -> Worker:
    seconds = set(range(0, 60, max(int(settings.lease_s / 6), 1)))
    return Worker(
        functions=[func(forward, name=FORWARD, keep_result=0, timeout=5)],  # type: ignore[arg-type] # any arguments
        cron_jobs=[
            cron(sweep, second=seconds, run_at_startup=True, timeout=60),  # type: ignore[arg-type] # as above
            cron(purge, second=30, timeout=3600),  # type: ignore[arg-type] # as above
        ],
        redis_pool=arq_redis(settings.redis_url or ""),
        queue_name=QUEUE,
        handle_signals=False,
        keep_result=0,
        max_jobs=_TASKS_AT_MOST,
        poll_delay=_POLL_DELAY_S,
        queue_read_limit=_READ_LIMIT,
        job_serializer=serialize,
        job_deserializer=deserialize,
        ctx={"rung": parts.rung, "sweeper": parts.sweeper},
        log_results=False,
    )
