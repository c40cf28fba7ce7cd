"""The only place where objects are constructed and joined. What differs between the embedded default and production
(database, doorbell, events, storage) is chosen here and nowhere else.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from app.accounts.limits import AccountLimits
from app.accounts.service import SUBJECT as ACCOUNTS
from app.accounts.service import Accounts
from app.api.instruments import HttpInstruments
from app.api.rendering import Renderer
from app.assets.files import Files
from app.assets.gate import StorageGate
from app.assets.inputs import Inputs
from app.assets.links import LinkSigner
from app.assets.service import PictureKeeper, StoredInputs
from app.assets.storage import Storage, storage_from_url
from app.catalog.current import CurrentCatalog
from app.catalog.embedded import SANDBOX, with_sandbox
from app.catalog.entries import Catalog, TokenRule
from app.catalog.errors import CatalogInvalid, Mistake
from app.catalog.keys import Keyring
from app.catalog.loader import parse_catalog, read_content
from app.db.engine import Database, StoreUnavailable
from app.db.migrate import current_revision, is_known_revision, newest_revision
from app.jobs.admission import Admission
from app.jobs.catalogs import Catalogs, Loader, StoredCatalogs
from app.jobs.engine import Engine, Heartbeat
from app.jobs.errors import ShuttingDown
from app.jobs.instruments import JobInstruments
from app.jobs.routes import Routes
from app.jobs.runner import Work
from app.jobs.service import JobService
from app.jobs.submissions import Submissions
from app.jobs.survey import Survey
from app.jobs.sweeper import Sweeper
from app.jobs.sweeping import keep_sweeping
from app.jobs.transitions import Transitions
from app.jobs.waiting import Waiters
from app.kit.addresses import can_be_reached_from_outside
from app.kit.doorbell import Doorbell, LocalDoorbell
from app.kit.events import Events, LocalEvents
from app.kit.http import GuardedClient, prove_guard
from app.kit.limiter import Limiter, LocalLimiter, RedisLimiter
from app.kit.metrics import LoopLag, Registry, process_registry
from app.kit.redis import RING, ArqDoorbell, RedisEvents
from app.kit.sealing import Sealer
from app.kit.telemetry import get_logger
from app.kit.tracing import NoTracing, OtlpTracing, Tracing
from app.settings import Settings
from app.upstreams.caller import Caller
from app.upstreams.instruments import UpstreamInstruments
from app.upstreams.registry import adapter, adapter_names
from app.upstreams.sandbox.options import SandboxOptions, SandboxOptionsInvalid
from app.upstreams.sandbox.transport import SandboxTransport
from app.webhooks.delivery import Deliverer, JobObject, ShownJob
from app.webhooks.instruments import WebhookInstruments
from app.webhooks.receivers import Receivers
from app.webhooks.service import Webhooks
from app.webhooks.vault import Vault

LOG = get_logger(__name__)

DRAIN_GRACE_S: Final = 330.0
"""The longest call (300 s) and its closing transaction; a supervisor's grace is set above it."""
_POOL_SIZE: Final = 20
"""Connections of one process: each transaction takes milliseconds, so this serves hundreds of requests at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that a process is made of."""

    settings: Settings
    catalog: CurrentCatalog
    catalogs: Catalogs
    keys: Keyring
    database: Database
    storage: Storage
    signer: LinkSigner
    accounts: Accounts
    limits: AccountLimits
    jobs: JobService
    routes: Routes
    waiters: Waiters
    events: Events
    doorbell: Doorbell
    sweeper: Sweeper
    engine: Engine
    heartbeat: Heartbeat | None
    """None with SQLite: in one process no lease outlives its holder."""
    transitions: Transitions
    rung: asyncio.Event
    """Set to make the engine look for work."""
    files: Files
    inputs: Inputs
    webhooks: Webhooks
    vault: Vault
    deliverer: Deliverer
    checks: Mapping[str, Callable[[], Awaitable[None]]]
    """What must work before the process is ready, by name."""
    registry: Registry
    """What this process counts."""
    survey: Survey
    lag: LoopLag
    http: HttpInstruments
    tracing: Tracing

    def warnings(self) -> list[str]:
        """What works but cannot be bought as configured: models without a usable route, and what to set."""
        sentences = []
        for model in self.catalog.get().models.values():
            missing = {self.keys.missing(route.upstream) for route in model.routes}
            if missing and None not in missing:
                names = " or ".join(sorted(name for name in missing if name))
                sentences.append(f"The model {model.name!r} cannot be served: set {names}.")
        return sentences


def catalog_loader(settings: Settings, keys: Keyring) -> Loader:
    """How a process with these settings makes catalogs; the keys that they name are added to `keys`."""

    def parse(content: bytes) -> Catalog:
        catalog = parse_catalog(content, adapter_names(), file=settings.config.name)
        mistakes = tuple(_sandbox_mistakes(catalog, settings.config.name))
        if mistakes:
            raise CatalogInvalid(mistakes)
        return catalog

    def prepare(catalog: Catalog) -> Catalog:
        names = {upstream.api_key_env for upstream in catalog.upstreams.values() if upstream.api_key_env}
        keys.add(settings.variables(names))
        if settings.is_embedded:
            catalog = with_sandbox(catalog, lambda upstream: keys.missing(upstream) is None)
        return catalog

    return Loader(parse=parse, prepare=prepare)


def _sandbox_mistakes(catalog: Catalog, file: str) -> Iterator[Mistake]:
    for name, upstream in catalog.upstreams.items():
        if upstream.adapter == SANDBOX:
            try:
                SandboxOptions.parse(upstream.options)
            except SandboxOptionsInvalid as exc:
                yield Mistake(
                    file=file, line=None, key=f"upstreams.{name}", problem=str(exc), fix="docs/sandbox.md lists them."
                )  # fmt: skip


@asynccontextmanager
async def assemble(settings: Settings, *, is_api: bool = True) -> AsyncIterator[Parts]:
    """Build a process's parts, and close what they hold at the end. Nothing runs yet.

    Only an `is_api` process tells the metrics that hold for all processes together.

    Raises:
        CatalogInvalid: the catalog has mistakes.
        GuardBroken: the guard of outgoing connections does not refuse loopback addresses.
    """
    await prove_guard()
    keys = Keyring({})
    loader = catalog_loader(settings, keys)
    content = await asyncio.to_thread(read_content, settings.config)
    catalog = await loader.load(content)
    sandboxes = Sandboxes(settings.spool_dir)
    sandboxes.follow(catalog)
    async with AsyncExitStack() as closing:
        release = version("darkroom")
        registry, tracing = process_registry(release), _tracing(settings, release)
        closing.push_async_callback(tracing.close)
        counted = JobInstruments(registry)
        database = Database(settings.database_url, pool_size=_POOL_SIZE)
        closing.push_async_callback(database.close)
        client = GuardedClient(allow_networks=settings.allow_networks)
        closing.push_async_callback(client.aclose)
        storage = storage_from_url(
            settings.storage_url,
            settings.data_dir,
            settings.aws_variables(),
            is_shared=not settings.is_embedded,
        )
        signer = LinkSigner(settings.secret_keys, settings.public_url)
        rung = asyncio.Event()
        events: Events = LocalEvents()
        doorbell: Doorbell = LocalDoorbell(rung)
        redis_answers: Callable[[], Awaitable[None]] | None = None
        if settings.redis_url is not None:
            redis_events = RedisEvents(settings.redis_url)
            arq_doorbell = ArqDoorbell(settings.redis_url, redis_events)
            closing.push_async_callback(redis_events.close)
            closing.push_async_callback(arq_doorbell.close)
            events, doorbell, redis_answers = redis_events, arq_doorbell, redis_events.check
        limiter: Limiter = LocalLimiter()
        if settings.redis_url is not None:
            limiter = redis_limiter = RedisLimiter(settings.redis_url, process_name())
            closing.push_async_callback(redis_limiter.close)
        limits = AccountLimits(database, limiter)
        stored = StoredCatalogs(database, loader)
        current = CurrentCatalog(catalog, fetch=stored.find, on_change=sandboxes.follow)
        transitions = Transitions(database, lease_s=settings.lease_s, instruments=counted)
        can_link = can_be_reached_from_outside(urlsplit(settings.public_url).hostname or "")
        routes = Routes(database, keys, random.SystemRandom(), can_link=can_link)
        waiters = Waiters(database, events)
        inputs = StoredInputs(database, storage, signer)
        work = Work(
            transitions=transitions,
            routes=routes,
            catalog=current,
            keys=keys,
            caller=Caller(
                client,
                inputs,
                links=inputs.link,
                transports=sandboxes.transports,
                instruments=UpstreamInstruments(registry),
                tracing=tracing,
            ),
            keeper=PictureKeeper(storage, settings.spool_dir),
            events=events,
            adapter=adapter,
            draining=asyncio.Event(),
            lease_s=settings.lease_s,
            instruments=counted,
            tracing=tracing,
        )
        receivers = Receivers(client)
        submissions = Submissions(
            database,
            Admission(current, routes, max_prompt_chars=settings.max_prompt_chars),
            StorageGate(storage),
            doorbell,
            result_ttl_s=settings.result_ttl_s,
            limits=limits,
            receivers=receivers,
            instruments=counted,
            tracing=tracing,
        )
        jobs = JobService(database, submissions, transitions, waiters, doorbell, events)
        heartbeat = None if database.is_sqlite else Heartbeat(settings.database_url, settings.lease_s)
        vault = Vault(database, Sealer(settings.secret_keys))
        shown = _job_object(jobs, Renderer(signer, settings.public_url))
        yield Parts(
            settings=settings,
            catalog=current,
            catalogs=Catalogs(database, events, current, stored, loader, settings.config, content),
            keys=keys,
            database=database,
            storage=storage,
            signer=signer,
            accounts=Accounts(database, settings.secret_keys, events=events, limiter=limiter),
            limits=limits,
            jobs=jobs,
            routes=routes,
            waiters=waiters,
            events=events,
            doorbell=doorbell,
            sweeper=Sweeper(database, transitions, storage, work.keeper, events, doorbell, counted),
            engine=Engine(
                transitions,
                work,
                heartbeat,
                rung,
                name=process_name(),
                slots=settings.worker_slots,
                instruments=counted,
            ),
            heartbeat=heartbeat,
            transitions=transitions,
            rung=rung,
            files=Files(database, storage, signer),
            inputs=Inputs(
                database,
                storage,
                client,
                settings.spool_dir,
                max_bytes=settings.max_image_bytes,
                max_pixels=settings.max_pixels,
            ),
            webhooks=Webhooks(database, receivers, vault),
            vault=vault,
            deliverer=Deliverer(
                database,
                client,
                vault,
                shown,
                jitter=random.SystemRandom(),
                instruments=WebhookInstruments(registry),
                tracing=tracing,
            ),
            checks=_checks(database, storage, events, jobs),
            registry=registry,
            survey=Survey(database, current, keys, storage, redis_answers, registry, of_all=is_api),
            lag=LoopLag(registry),
            http=HttpInstruments(registry),
            tracing=tracing,
        )


def _job_object(jobs: JobService, renderer: Renderer) -> JobObject:
    """How events show a job: as its team sees it, with fresh links."""

    async def show(job_id: str) -> ShownJob:
        view = await jobs.view(job_id, None)
        return ShownJob(
            document=renderer.job(view), revision=view.job.revision, trace_parent=view.job.trace_parent
        )

    return show


def _tracing(settings: Settings, release: str) -> Tracing:
    if settings.otlp_endpoint is None:
        return NoTracing()
    attributes = {
        "service.name": "darkroom",
        "service.version": release,
        "service.instance.id": process_name(),
    }
    return OtlpTracing(settings.otlp_endpoint, attributes)


def process_name() -> str:
    """Which process holds a lease, for operators: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Sandboxes:
    """The upstreams that answer within this process, as the catalog in force has them."""

    def __init__(self, spool_dir: Path) -> None:
        self._spool_dir = spool_dir
        self._made: dict[str, tuple[SandboxOptions, Mapping[str, TokenRule | None]]] = {}
        self.transports: dict[str, SandboxTransport] = {}
        """By the upstream's name. Looked into for each call; a call that runs keeps what it found."""

    def follow(self, catalog: Catalog) -> None:
        """Make what a catalog names. A sandbox that is as it was goes on counting its calls."""
        rules = {model.name: model.tokens for model in catalog.models.values()}
        named = {name: item for name, item in catalog.upstreams.items() if item.adapter == SANDBOX}
        for name, upstream in named.items():
            made = (SandboxOptions.parse(upstream.options), rules)
            if self._made.get(name) != made:
                self.transports[name] = SandboxTransport(made[0], self._spool_dir, models=rules)
                self._made[name] = made
        for name in catalog.upstreams.keys() & self.transports.keys() - named.keys():
            # The name is another vendor's now. One that is merely gone stays, for jobs that began with it.
            del self.transports[name], self._made[name]


def _checks(
    database: Database, storage: Storage, events: Events, jobs: JobService
) -> dict[str, Callable[[], Awaitable[None]]]:
    async def is_migrated() -> None:
        async with database.reading() as connection:
            found = await current_revision(connection)
        # One that this release does not know is a newer release's, which keeps this one working.
        if found != newest_revision() and (found is None or is_known_revision(found)):
            raise StoreUnavailable(
                f"the schema is at {found}, not {newest_revision()}: run `darkroom migrate`"
            )

    async def takes_work() -> None:
        if jobs.is_stopping:
            raise ShuttingDown("This process is stopping.")

    checks: dict[str, Callable[[], Awaitable[None]]] = {
        "process": takes_work,
        "database": is_migrated,
        "storage": storage.check,
    }
    if isinstance(events, RedisEvents):
        checks["redis"] = partial(_redis_answers, events)
    return checks


async def _redis_answers(events: RedisEvents) -> None:
    try:
        await events.check()
    except ConnectionError as exc:
        raise StoreUnavailable(str(exc)) from exc


@asynccontextmanager
async def listening(parts: Parts) -> AsyncIterator[None]:
    """Run what every process needs that has callers: the looks into the table, and other processes' events."""
    async with AsyncExitStack() as running:
        try:
            # Before the first job is taken in, so that every process knows the catalog that it begins with.
            await parts.catalogs.offer()
        except StoreUnavailable as exc:
            LOG.warning("catalog.not_offered", reason=str(exc))
        running.enter_context(parts.events.listen(ACCOUNTS, parts.accounts.forget))
        await running.enter_async_context(in_background(parts.lag.run()))
        await running.enter_async_context(in_background(parts.catalogs.run()))
        await running.enter_async_context(in_background(parts.waiters.run()))
        if isinstance(parts.events, RedisEvents):
            await running.enter_async_context(in_background(parts.events.run()))
        yield


@asynccontextmanager
async def working(parts: Parts) -> AsyncIterator[None]:
    """Run the engine, its heartbeat, the sweeper and the deliveries of webhooks, and what `listening` runs."""
    if parts.database.is_sqlite:
        upstreams = parts.catalog.get().upstreams.values()
        await parts.transitions.start_over(
            in_process={upstream.name for upstream in upstreams if upstream.adapter == SANDBOX}
        )
    if parts.heartbeat is not None:
        parts.heartbeat.start()
    try:
        with parts.events.listen(RING, parts.rung.set):
            async with (
                listening(parts),
                in_background(parts.engine.run()),
                in_background(parts.deliverer.run()),
                in_background(keep_sweeping(parts.sweeper, every_s=parts.settings.lease_s / 6)),
            ):
                yield
    finally:
        if parts.heartbeat is not None:
            parts.heartbeat.stop()


@asynccontextmanager
async def in_background(chore: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a chore while the context is open; should it crash, the process ends in order."""
    task = asyncio.create_task(chore)
    task.add_done_callback(_end_with)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _end_with(task: asyncio.Task[None]) -> None:
    """A chore that crashed would be missed in silence, so the process ends in order and is started again."""
    if not task.cancelled() and task.exception() is not None:
        LOG.error("process.crashed", exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)
