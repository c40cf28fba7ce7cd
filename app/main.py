"""The web process: builds the parts, mounts the edges, and stops in order. Without a Redis it carries jobs as well."""

import asyncio
import contextlib
import fcntl
import signal
from collections.abc import Iterator
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from uvicorn.loops.auto import auto_loop_factory

from app.admin import audit_log, config, keys, maintenance, metrics, spend, teams, upstreams, webhooks
from app.admin import jobs as all_jobs
from app.admin.audit import Audit
from app.admin.configuration import Configuration
from app.api import chat, edits, files, generations, health, imarouter, models, route, uploads, variations
from app.api import jobs as job_endpoints
from app.api.answers import Answers
from app.api.application import create_app
from app.api.forms import FormLimits
from app.api.rendering import Renderer
from app.api.server import server_of
from app.assembly import DRAIN_GRACE_S, Parts, assemble, listening, process_name, working
from app.kit.telemetry import get_logger
from app.ledger.service import Ledger
from app.settings import Settings

LOG = get_logger(__name__)


class AlreadyServed(Exception):
    """Another process serves this data directory."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        AlreadyServed: another process serves the embedded default's data directory.
    """
    with _only_process(settings), asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_serve(settings))


def build_app(parts: Parts) -> FastAPI:
    """Join the endpoints to one application; without the operators' when they have a listener of their own."""
    settings = parts.settings
    renderer = Renderer(parts.signer, settings.public_url)
    answers = Answers(parts.jobs, parts.storage, renderer, sync_timeout_s=settings.sync_timeout_s)
    limits = FormLimits(
        total_bytes=settings.max_body_bytes,
        file_bytes=settings.max_image_bytes,
        files=settings.max_images + 1,
    )
    routers = [
        generations.router(parts.jobs, answers, limits, parts.catalog),
        edits.router(parts.jobs, answers, parts.inputs, limits, parts.catalog),
        chat.router(parts.jobs, answers, parts.inputs, limits, parts.catalog),
        imarouter.router(parts.jobs, renderer, parts.inputs, limits, parts.catalog),
        variations.router(),
        route.router(parts.jobs, parts.inputs, limits, parts.catalog),
        job_endpoints.router(parts.jobs, answers, renderer, parts.catalog),
        models.router(parts.catalog, parts.routes, parts.limits),
        files.router(parts.files, parts.storage),
        uploads.router(parts.files, parts.inputs, limits),
        health.router(parts.checks, parts.warnings),
    ]
    if settings.admin_address is None:
        routers += _operators(parts, renderer)
    return _joined(routers, parts)


def build_admin_app(parts: Parts) -> FastAPI:
    """Join the operators' endpoints to an application of their own."""
    renderer = Renderer(parts.signer, parts.settings.public_url)
    return _joined([*_operators(parts, renderer), health.router(parts.checks, parts.warnings)], parts)


def _metrics(parts: Parts) -> APIRouter:
    is_public = parts.settings.metrics_public
    return metrics.router(parts.registry, parts.survey.refresh, is_public=is_public)


def _operators(parts: Parts, renderer: Renderer) -> list[APIRouter]:
    audit = Audit(parts.database)
    return [
        teams.router(parts.accounts, parts.catalog, audit),
        keys.router(parts.accounts, parts.jobs, parts.catalog, audit),
        all_jobs.router(parts.jobs, renderer, parts.catalog, audit),
        upstreams.router(parts.routes, parts.catalog, audit),
        config.router(parts.catalogs, parts.catalog, _configuration(parts)),
        maintenance.router(parts.jobs, audit),
        spend.router(Ledger(parts.database), audit),
        webhooks.router(parts.webhooks, parts.vault, audit),
        audit_log.router(audit),
        _metrics(parts),
    ]


def _configuration(parts: Parts) -> Configuration:
    return Configuration(parts.catalogs, Audit(parts.database), process=process_name())


def _joined(routers: list[APIRouter], parts: Parts) -> FastAPI:
    return create_app(
        routers,
        parts.accounts,
        version=version("darkroom"),
        public_url=parts.settings.public_url,
        are_metrics_public=parts.settings.metrics_public,
        instruments=parts.http,
        tracing=parts.tracing,
    )


async def _serve(settings: Settings) -> None:
    async with contextlib.AsyncExitStack() as running:
        parts = await running.enter_async_context(assemble(settings))
        await parts.accounts.bootstrap(
            settings.api_key.get_secret_value(), settings.admin_key.get_secret_value()
        )
        await running.enter_async_context(working(parts) if settings.has_own_workers else listening(parts))
        proxies = settings.trusted_proxies
        servers = [server_of(build_app(parts), settings.host, settings.port, proxies)]
        if settings.admin_address is not None:
            servers.append(server_of(build_admin_app(parts), *settings.admin_address, proxies))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            parts.jobs.stop()
            for server in servers:
                server.should_exit = True
            # A second signal ends the process at once; what is in flight is then settled at the next start.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

        reload = _configuration(parts).reload_by_signal
        loop.add_signal_handler(signal.SIGHUP, parts.catalogs.reload_soon, reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        LOG.info("server.started", host=settings.host, port=settings.port, admin=settings.admin_listen)
        await asyncio.gather(*(server.serve() for server in servers))
        if settings.has_own_workers:
            LOG.info("server.draining", jobs=parts.engine.running)
            await parts.engine.drain(DRAIN_GRACE_S)
        LOG.info("server.stopped")


@contextlib.contextmanager
def _only_process(settings: Settings) -> Iterator[None]:
    """On the embedded default, hold a lock that the system takes back when this process ends, however it ends."""
    if not settings.is_embedded:
        yield
        return
    with settings.lock_file.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise AlreadyServed(
                f"Another Darkroom serves {settings.data_dir}. Stop it, or set DARKROOM_DATA_DIR to another folder."
            ) from exc
        yield
