"""A whole production in small: Postgres, Redis, vendors, APIs and workers as real processes, with a fault proxy on
every edge between them, and a supervisor that starts again what has ended, as a container engine would.
"""

import asyncio
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2

from app.db.migrate import upgrade
from tests.chaos.catalog import OPENAI_FAULTS, THEROUTER_FAULTS, catalog, key_variable
from tests.chaos.faultproxy import FaultProxy
from tests.harness.processes import ServerUnavailable, free_port, kill_tree, send, spawn
from tests.harness.servers import PostgresServer, RedisServer
from tests.simulators.process import RemoteSimulator, running
from tests.simulators.script import OCCASIONS

LEASE_S: Final = 3
SYNC_TIMEOUT_S: Final = 20
FRUGAL_USD: Final = "0.15"
"""A budget of about twenty pictures."""
_READY_S: Final = 120.0
_LOOK_S: Final = 0.05
_DRAIN_S: Final = 40.0
_DARKROOM: Final = str(Path(sys.executable).with_name("darkroom"))


@dataclass(frozen=True, slots=True)
class Fall:
    """A process that ended although nobody told it to, or not in order when told."""

    name: str
    code: int
    log: str
    """The end of what it had printed."""

    def __str__(self) -> str:
        """Say what happened."""
        return f"{self.name} ended with code {self.code}:\n{self.log}"


class Member:
    """One API or worker: its process of the moment, and the folder that they all share with their predecessors."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, ready: bytes) -> None:
        self.name = name
        self.is_busy = False
        """A fault is being done to it; another one would only spoil that."""
        self._command = command
        self._folder = folder
        self._ready = ready
        self._log = folder / "log"
        self._began_at = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a process; it answers a moment later."""
        self._began_at = self._log.stat().st_size if self._log.exists() else 0
        self._process = spawn(
            self._command,
            folder=self._folder,
            log=self._log,
            account=None,
            on_parents_death=signal.SIGKILL,
        )

    @property
    def pid(self) -> int | None:
        """The process's id; None when it was killed and not started again."""
        return self._process.pid if self._process else None

    def is_ready(self) -> bool:
        """Whether this process has come up."""
        return self._ready in self.printed()

    def printed(self) -> bytes:
        """What this process has printed."""
        with self._log.open("rb") as log:
            log.seek(self._began_at)
            return log.read()

    def everything_printed(self) -> str:
        """What this process and its predecessors have printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ended_with(self) -> int | None:
        """The exit code; None while it runs, frozen or not."""
        return self._process.poll() if self._process else None

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as a power cut would."""
        # Let go of first, so that nobody takes it for fallen meanwhile.
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(kill_tree, process)

    async def stop(self) -> int:
        """Tell it to stop, and wait for its exit code; it is killed after a grace (-9)."""
        assert self._process is not None
        self._send(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self._process.wait, _DRAIN_S)
        except subprocess.TimeoutExpired:
            kill_tree(self._process)
            return -signal.SIGKILL
        finally:
            self._process = None

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            send([self._process.pid], number)


@dataclass(slots=True, kw_only=True)
class Cluster:
    """What runs, and the ways to everything in it."""

    postgres: PostgresServer
    redis: RedisServer
    database_url: str
    """Past every proxy, for the checker."""
    api_key: str
    admin_key: str
    frugal_key: str = ""
    """The key of a team whose budget is too small for what it will order."""
    apis: list[Member] = field(default_factory=list)
    workers: list[Member] = field(default_factory=list)
    edges: dict[str, FaultProxy] = field(default_factory=dict)
    """`FROM>TO` -> the proxy between them."""
    vendors: dict[str, RemoteSimulator] = field(default_factory=dict)
    falls: list[Fall] = field(default_factory=list)
    hurt: set[str] = field(default_factory=set)
    """Stores to which a fault is being done."""

    @property
    def base_urls(self) -> list[str]:
        """Where clients reach each API, by way of its proxy."""
        return [f"http://127.0.0.1:{self.edges[f'client>{member.name}'].port}/v1" for member in self.apis]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where each API listens, past its proxy."""
        return [self.edges[f"client>{member.name}"].target for member in self.apis]

    @property
    def members(self) -> list[Member]:
        """Every process of the product."""
        return [*self.apis, *self.workers]

    async def supervise(self) -> None:
        """Start again what has ended by itself, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for member in self.members:
                code = member.ended_with()
                if code is None or member.is_busy:
                    continue
                # A process that comes up while its database is away may give up; one that was up may not.
                if member.is_ready():
                    self.falls.append(_fall(member, code))
                member.start()

    async def roll(self, member: Member) -> None:
        """Stop a process in order and start its successor."""
        was_busy, member.is_busy = member.is_busy, True
        was_ready = member.is_ready()
        code = await member.stop()
        if was_ready and code != 0:
            self.falls.append(_fall(member, code))
        member.start()
        member.is_busy = was_busy

    async def until_ready(self) -> None:
        """Wait until every process has come up.

        Raises:
            ServerUnavailable: one of them did not; the message ends with what it printed.
        """
        ends_at = time.monotonic() + _READY_S
        while waits := [member for member in self.members if not member.is_ready()]:
            if time.monotonic() > ends_at:
                raise ServerUnavailable(
                    f"{waits[0].name} did not come up:\n{waits[0].everything_printed()[-3000:]}"
                )
            await asyncio.sleep(_LOOK_S)

    async def heal(self) -> None:
        """Undo every fault that is still there."""
        for member in self.members:
            member.thaw()
        for proxy in self.edges.values():
            proxy.toxics.clear()
            proxy.is_down = False
        for server in (self.postgres, self.redis):
            if server.is_running():
                server.resume()
            await asyncio.to_thread(server.start)


def _fall(member: Member, code: int) -> Fall:
    return Fall(member.name, code, member.printed()[-4000:].decode(errors="replace"))


@asynccontextmanager
async def open_cluster(
    *, seed: int, apis: int = 2, workers: int = 3, worker_command: Sequence[str] = (_DARKROOM, "worker")
) -> AsyncIterator[Cluster]:
    """Bring everything up, and take it down again whatever happened.

    `worker_command`: the absolute path of a program and its arguments, instead of `darkroom worker`.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-chaos-")))
        postgres = await asyncio.to_thread(stack.enter_context, PostgresServer(durable=True))
        redis = await asyncio.to_thread(stack.enter_context, RedisServer(durable=True))
        database_url = await asyncio.to_thread(postgres.create_database)
        await asyncio.to_thread(upgrade, database_url)
        cluster = Cluster(
            postgres=postgres,
            redis=redis,
            database_url=database_url,
            api_key=secrets.token_urlsafe(32),
            admin_key=secrets.token_urlsafe(32),
        )
        await _add_vendors(cluster, stack, seed)
        for kind in ("api", "worker"):
            await _add_edge(cluster, stack, f"{kind}>postgres", postgres.url)
            await _add_edge(cluster, stack, f"{kind}>redis", redis.url)
        _write_catalog(cluster, folder)
        shared = {
            "CONFIG": str(folder / "gateway.yaml"),
            "STORAGE_URL": f"file://{folder / 'pictures'}",
            "API_KEY": cluster.api_key,
            "ADMIN_KEY": cluster.admin_key,
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ALLOW_NETWORKS": "127.0.0.0/8",
            "LEASE_S": str(LEASE_S),
            "SYNC_TIMEOUT_S": str(SYNC_TIMEOUT_S),
            "LOG_FORMAT": "json",
        }
        for number in range(apis):
            port = free_port()
            name = f"api-{number}"
            await _add_edge(cluster, stack, f"client>{name}", f"http://127.0.0.1:{port}")
            settings = {**shared, **_stores(cluster, "api"), "PORT": str(port)}
            command = (_DARKROOM, "serve")
            cluster.apis.append(
                Member(name, command, _folder(cluster, folder / name, settings), b"server.started")
            )
        for number in range(workers):
            name = f"worker-{number}"
            settings = {**shared, **_stores(cluster, "worker")}
            cluster.workers.append(
                Member(name, worker_command, _folder(cluster, folder / name, settings), b"worker.started")
            )
        stack.push_async_callback(_kill_all, cluster)
        for member in cluster.members:
            member.start()
        await cluster.until_ready()
        await _add_frugal_team(cluster)
        supervisor = asyncio.create_task(cluster.supervise())
        stack.callback(supervisor.cancel)
        yield cluster


async def _add_frugal_team(cluster: Cluster) -> None:
    admin = cluster.base_urls[0].removesuffix("/v1") + "/admin/v1"
    headers = {"authorization": f"Bearer {cluster.admin_key}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as client:
        team = await client.post(
            f"{admin}/teams", json={"name": "frugal", "limits": {"budget_month_usd": FRUGAL_USD}}
        )
        key = await client.post(f"{admin}/keys", json={"team_id": team.json()["id"], "name": "chaos"})
    cluster.frugal_key = key.json()["key"]


async def _kill_all(cluster: Cluster) -> None:
    for member in cluster.members:
        await member.kill()


async def _add_edge(cluster: Cluster, stack: AsyncExitStack, name: str, url: str) -> FaultProxy:
    proxy = cluster.edges[name] = await stack.enter_async_context(FaultProxy.before(url))
    return proxy


async def _add_vendors(cluster: Cluster, stack: AsyncExitStack, seed: int) -> None:
    openai = await stack.enter_async_context(running("openai", "--latency", "0.3-2", "--seed", str(seed)))
    therouter = await stack.enter_async_context(
        running("therouter", "--working", "0.3-3", "--seed", str(seed))
    )
    await openai.script(chances=OPENAI_FAULTS, seed=seed)
    for on in OCCASIONS:
        if on in THEROUTER_FAULTS:
            await therouter.script(on=on, chances=THEROUTER_FAULTS[on], seed=seed)
    for vendor in (openai, therouter):
        for letter in "ab":
            name = f"{vendor.name}-{letter}"
            cluster.vendors[name] = vendor
            await _add_edge(cluster, stack, f"worker>{name}", vendor.base_url)


def _stores(cluster: Cluster, kind: str) -> dict[str, str]:
    return {
        "DATABASE_URL": cluster.edges[f"{kind}>postgres"].url(cluster.database_url),
        "REDIS_URL": cluster.edges[f"{kind}>redis"].url(cluster.redis.url),
    }


def _write_catalog(cluster: Cluster, folder: Path) -> None:
    base_urls = {
        name: cluster.edges[f"worker>{name}"].url(vendor.base_url) for name, vendor in cluster.vendors.items()
    }
    # JSON is YAML.
    (folder / "gateway.yaml").write_text(json.dumps(catalog(base_urls)), encoding="utf-8")


def _folder(cluster: Cluster, folder: Path, settings: Mapping[str, str]) -> Path:
    """The folder of one process, with its settings in `.env`."""
    folder.mkdir()
    lines = [f"DARKROOM_{name}='{value}'" for name, value in settings.items()]
    lines += [f"{key_variable(name)}='{vendor.api_key}'" for name, vendor in cluster.vendors.items()]
    (folder / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
