"""The public API on a real database and real storage, with a worker that finishes jobs when a test says so."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from app.accounts.service import Accounts
from app.api import chat, edits, files, generations, health, imarouter, jobs, models, uploads, variations
from app.api.answers import Answers
from app.api.application import create_app
from app.api.deadlines import DeadlineH11
from app.api.forms import FormLimits
from app.api.rendering import Renderer
from app.assets.files import Files
from app.assets.gate import StorageGate
from app.assets.inputs import Inputs
from app.assets.links import LinkSigner
from app.assets.records import Picture
from app.assets.storage import FileStorage, new_key
from app.catalog.current import CurrentCatalog
from app.catalog.keys import Keyring
from app.db.engine import Database
from app.domain.failures import FailureKind, UpstreamFailure
from app.domain.money import Certainty
from app.domain.pictures import PictureFormat
from app.domain.results import Usage
from app.jobs.admission import Admission
from app.jobs.openings import NewAttempt, UpstreamLimits
from app.jobs.records import Attempt, Job
from app.jobs.routes import Routes
from app.jobs.service import JobService
from app.jobs.submissions import Submissions
from app.jobs.transitions import Transitions
from app.jobs.waiting import Waiters, announce
from app.kit.doorbell import LocalDoorbell
from app.kit.events import LocalEvents
from app.kit.http import GuardedClient
from app.kit.ids import new_id
from tests.api.parts import ADMIN_KEY, API_KEY, AUTHORIZED
from tests.assets.pictures import SAMPLES
from tests.catalog.shipped import shipped

SECRET = b"0123456789abcdef0123456789abcdef"
PUBLIC_URL = "http://darkroom.test"
PNG = SAMPLES["png"]
"""40 × 30 pixels."""
USAGE = Usage(text_input=14, image_output=196)


class Worker:
    """Carries jobs to their end on the real tables, without any upstream."""

    def __init__(
        self,
        database: Database,
        storage: FileStorage,
        events: LocalEvents,
        rung: asyncio.Event,
        folder: Path,
    ) -> None:
        self._transitions = Transitions(database, lease_s=30)
        self._storage = storage
        self._events = events
        self._rung = rung
        self._folder = folder

    async def rung(self) -> None:
        """Wait until a job has been handed in."""
        await self._rung.wait()
        self._rung.clear()

    async def start(self, pictures: int | None = None) -> tuple[Job, Attempt]:
        """Claim the next job and write the intent to buy its pictures."""
        (job,) = await self._transitions.claim("worker", 1)
        new = NewAttempt(id=new_id("att"), upstream="openai", target={}, pictures=pictures or job.n)
        (attempt,) = await self._transitions.open_attempts(
            job.id,
            job.lease_token,
            [new],
            round_number=1,
            limits=UpstreamLimits(max_concurrency=10, requests_per_minute=None, images_per_minute=None),
            timeout_s=60,
        )
        self._events.publish(job.id)
        return job, attempt

    async def finish(self, content: bytes = PNG) -> Job:
        """Make the pictures of the next job."""
        return await self.complete(*await self.start(), content)

    async def show(self, attempt: Attempt, index: int, content: bytes = PNG) -> None:
        """Show a coarse picture of a job that was started."""
        await self._transitions.show_partial(attempt, await self._stored(content), index=index)
        self._events.publish(attempt.job_id)

    async def complete(
        self, job: Job, attempt: Attempt, content: bytes = PNG, *, usage: Usage | None = USAGE
    ) -> Job:
        """Make the pictures of a job that was started."""
        pictures = [await self._stored(content) for _ in range(job.n)]
        done = await self._transitions.succeed(
            attempt,
            pictures,
            usage=usage,
            resolved={"quality": "low", "background": "opaque"},
            cost_micros=7152,
            certainty=Certainty.ACTUAL,
            max_rounds=4,
        )
        announce(self._events, job.id, is_final=done.status.is_final)
        return done

    async def fail(self, kind: FailureKind) -> Job:
        """Fail the next job: refused by the vendor, or with every attempt used up."""
        return await self.refuse(*await self.start(), kind)

    async def refuse(self, job: Job, attempt: Attempt, kind: FailureKind) -> Job:
        """Fail a job that was started."""
        failure = UpstreamFailure(kind, "as the test wants it")
        if kind is FailureKind.TIMED_OUT:
            await self._transitions.lose_track(attempt, failure)
        else:
            await self._transitions.refuse(attempt, failure)
        decision = await self._transitions.decide(job.id, job.lease_token, max_rounds=1, followed=frozenset())
        announce(self._events, job.id, is_final=decision.job.status.is_final)
        return decision.job

    async def _stored(self, content: bytes) -> Picture:
        key, path = new_key(".png"), self._folder / new_id("spool")
        await asyncio.to_thread(path.write_bytes, content)
        await self._storage.put(path, key)
        return Picture(
            file_id=new_id("file"),
            key=key,
            format=PictureFormat.PNG,
            width_px=40,
            height_px=30,
            size_bytes=len(content),
            sha256=sha256(content).digest(),
        )


@dataclass(frozen=True)
class Gateway:
    """The API with everything behind it."""

    app: FastAPI
    holding: Callable[..., FastAPI]
    """The same, holding its callers for so many seconds, and silent in a stream for so many at most."""
    database: Database
    accounts: Accounts
    jobs: JobService
    worker: Worker
    signer: LinkSigner
    storage: FileStorage

    async def finish_next(self, content: bytes = PNG) -> Job:
        """Make the pictures of the next job that is handed in."""
        await self.worker.rung()
        return await self.worker.finish(content)


@pytest.fixture
async def gateway(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    database = Database(sqlite_url)
    storage = FileStorage(tmp_path / "store", min_free_bytes=0, min_free_share=0)
    events, rung = LocalEvents(), asyncio.Event()
    catalog = CurrentCatalog(shipped())
    keys = Keyring({"OPENAI_API_KEY": "sk-test", "THE_ROUTER_API_KEY": "sk-test"})
    routes = Routes(database, keys, random.Random(0))
    admission = Admission(catalog, routes)
    transitions = Transitions(database, lease_s=30)
    doorbell = LocalDoorbell(rung)
    submissions = Submissions(database, admission, StorageGate(storage), doorbell, result_ttl_s=604_800)
    service = JobService(database, submissions, transitions, Waiters(database, events), doorbell, events)
    accounts = Accounts(database, (SECRET,))
    await accounts.bootstrap(API_KEY, ADMIN_KEY)
    signer = LinkSigner((SECRET,), PUBLIC_URL)
    renderer = Renderer(signer, PUBLIC_URL)

    remote = GuardedClient()
    inputs = Inputs(database, storage, remote, tmp_path / "spool", max_bytes=1_000_000, max_pixels=10_000_000)
    limits = FormLimits(total_bytes=5_000_000, file_bytes=1_000_000, files=17)

    def holding(sync_timeout_s: float, heartbeat_s: float = 15) -> FastAPI:
        answers = Answers(service, storage, renderer, sync_timeout_s=sync_timeout_s, heartbeat_s=heartbeat_s)
        routers = [
            health.router({}, tuple),
            generations.router(service, answers, limits, catalog),
            edits.router(service, answers, inputs, limits, catalog),
            chat.router(service, answers, inputs, limits, catalog),
            imarouter.router(service, renderer, inputs, limits, catalog),
            variations.router(),
            jobs.router(service, answers, renderer, catalog),
            models.router(catalog, routes),
            files.router(Files(database, storage, signer), storage),
            uploads.router(Files(database, storage, signer), inputs, limits),
        ]
        return create_app(routers, accounts, version="0.1.0", public_url=PUBLIC_URL)

    worker = Worker(database, storage, events, rung, tmp_path)
    yield Gateway(holding(20), holding, database, accounts, service, worker, signer, storage)
    await remote.aclose()
    await database.close()


@pytest.fixture
async def impatient(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a gateway that hardly holds its callers."""
    transport = httpx2.ASGITransport(app=gateway.holding(0.05))
    async with httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=AUTHORIZED) as made:
        yield made


@pytest.fixture
async def anonymous(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key."""
    transport = httpx2.ASGITransport(app=gateway.app)
    async with httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL) as made:
        yield made


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a team's key."""
    transport = httpx2.ASGITransport(app=gateway.app)
    async with httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=AUTHORIZED) as made:
        yield made


@pytest.fixture
async def stranger(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of another team."""
    team = await gateway.accounts.create_team("strangers", {})
    _, key = await gateway.accounts.create_key(team.id, "theirs", limits={})
    transport = httpx2.ASGITransport(app=gateway.app)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=headers) as made:
        yield made


@asynccontextmanager
async def serving(app: ASGIApp, protocol: type[DeadlineH11] = DeadlineH11) -> AsyncIterator[str]:
    """Serve an application on loopback by uvicorn, as in production; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def address(gateway: Gateway) -> AsyncIterator[str]:
    """The gateway on loopback, behind a real server."""
    async with serving(gateway.app) as at:
        yield at
