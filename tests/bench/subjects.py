"""What is measured: the vendor itself, this gateway as real processes, and other gateways where they are installed.

All of them stand before the same vendor on loopback, with a price list but without any limit that would slow them.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.db.migrate import upgrade
from tests.bench.load import Connection
from tests.bench.vendor import API_KEY, LARGE, SMALL
from tests.harness.processes import ServerUnavailable, free_port, kill_tree, send, spawn
from tests.harness.servers import PostgresServer, RedisServer

MODEL: Final = "gpt-image-2"
IMPATIENT: Final = "gpt-image-2-impatient"
"""The model whose vendor is given up after `IMPATIENCE_S`."""
IMPATIENCE_S: Final = 2
GENERATIONS: Final = "/images/generations"
LITELLM_VARIABLE: Final = "BENCH_LITELLM"
PORTKEY_VARIABLE: Final = "BENCH_PORTKEY"

_START_S: Final = 240.0
_LOOK_S: Final = 0.1
_KEY_VARIABLE: Final = "BENCH_VENDOR_KEY"
_DARKROOM: Final = str(Path(sys.executable).with_name("darkroom"))
_MAX_IN_FLIGHT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that makes pictures when asked as OpenAI is."""

    name: str
    base_url: str
    api_key: str
    roots: Sequence[int] = ()
    """Its processes; none for the vendor itself, which is what the others are compared with."""
    stores: Sequence[int] = ()
    """The database and what else it cannot do without."""
    versions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that runs while one measures."""

    vendor: Connection
    vendor_url: str
    direct: Subject
    gateway: Subject
    peers: Sequence[Subject]
    database_url: str
    worker: int
    """The process that carries jobs, which a measurement may freeze."""
    skipped: Sequence[str]
    """A sentence for each peer that is not here."""

    @property
    def gateways(self) -> list[Subject]:
        """This gateway and its peers."""
        return [self.gateway, *self.peers]

    async def vendor_answers(self, kind: str = "ok", *, delay_s: float = 0.0) -> None:
        """Say how the vendor answers from now on, and let it count anew."""
        await self.vendor.post("/_bench/mode", {"kind": kind, "delay_s": delay_s})

    async def vendor_counts(self) -> Mapping[str, int]:
        """What the vendor counted since: `posts` and `peak_in_flight`."""
        counts: Mapping[str, int] = (await self.vendor.get("/_bench/counts")).json()
        return counts


@asynccontextmanager
async def open_stage(*, has_peers: bool = True) -> AsyncIterator[Stage]:
    """Start everything, and stop it again whatever happened.

    Raises:
        ServerUnavailable: something did not come up; the message ends with what it printed.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        vendor_url = await _vendor(stack)
        vendor = await stack.enter_async_context(Connection(vendor_url.removesuffix("/v1"), API_KEY))
        postgres = await asyncio.to_thread(stack.enter_context, PostgresServer(durable=True))
        redis = await asyncio.to_thread(stack.enter_context, RedisServer(durable=True))
        database_url = await asyncio.to_thread(postgres.create_database)
        await asyncio.to_thread(upgrade, database_url)
        stores = (postgres.pid, redis.pid)
        gateway, worker = await _gateway(stack, folder, database_url, redis.url, vendor_url, stores)
        peers, skipped = [], []
        if has_peers:
            for start in (_litellm, _portkey):
                found = await start(stack, folder, vendor_url)
                if isinstance(found, Subject):
                    peers.append(found)
                else:
                    skipped.append(found)
        yield Stage(
            vendor=vendor,
            vendor_url=vendor_url,
            direct=Subject(name="direct", base_url=vendor_url, api_key=API_KEY),
            gateway=gateway,
            peers=peers,
            database_url=database_url,
            worker=worker,
            skipped=skipped,
        )


async def _vendor(stack: AsyncExitStack) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.vendor", stdout=asyncio.subprocess.PIPE
    )
    stack.push_async_callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    async with asyncio.timeout(_START_S):
        line = await process.stdout.readline()
    base_url: str = json.loads(line)["base_url"]
    return base_url


async def _gateway(
    stack: AsyncExitStack,
    folder: Path,
    database_url: str,
    redis_url: str,
    vendor_url: str,
    stores: Sequence[int],
) -> tuple[Subject, int]:
    home = folder / "darkroom"
    home.mkdir()
    (home / "gateway.yaml").write_text(json.dumps(_catalog(vendor_url)), encoding="utf-8")  # JSON is YAML
    port, api_key = free_port(), secrets.token_urlsafe(32)
    settings = {
        "CONFIG": str(home / "gateway.yaml"),
        "PORT": str(port),
        "DATA_DIR": str(home / "data"),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "API_KEY": api_key,
        "ADMIN_KEY": secrets.token_urlsafe(32),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "WORKER_SLOTS": str(_MAX_IN_FLIGHT),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "warning",
    }
    lines = [f"DARKROOM_{name}='{value}'" for name, value in settings.items()]
    (home / ".env").write_text("\n".join([*lines, f"{_KEY_VARIABLE}='{API_KEY}'"]) + "\n", encoding="utf-8")
    processes = [
        _start(stack, [_DARKROOM, command], home, f"{command}.log") for command in ("serve", "worker")
    ]
    subject = Subject(
        name="darkroom",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=api_key,
        roots=[process.pid for process in processes],
        stores=stores,
        versions="1 API, 1 worker",
    )
    await _until_it_answers(subject, processes, home)
    return subject, processes[1].pid


def _catalog(vendor_url: str) -> dict[str, Any]:
    def upstream(timeout_s: float) -> dict[str, Any]:
        return {
            "adapter": "openai",
            "base_url": vendor_url,
            "api_key": f"env:{_KEY_VARIABLE}",
            "max_concurrency": _MAX_IN_FLIGHT,
            "timeout_s": timeout_s,
        }

    def model(upstream: str) -> dict[str, Any]:
        prices = {"per_million_tokens": {"text_input": 5, "image_input": 8, "image_output": 30}}
        return {
            "capabilities": {"sizes": [SMALL, LARGE], "qualities": ["auto", "low"], "formats": ["png"]},
            "routes": [{"upstream": upstream, "model": MODEL, "prices": prices}],
        }

    return {
        "version": 1,
        "upstreams": {"vendor": upstream(300), "impatient": upstream(IMPATIENCE_S)},
        "models": {MODEL: model("vendor"), IMPATIENT: model("impatient")},
    }


async def _litellm(stack: AsyncExitStack, folder: Path, vendor_url: str) -> Subject | str:
    program = _installed("litellm", LITELLM_VARIABLE)
    if program is None:
        return (
            f"LiteLLM is not installed: put `litellm` on the PATH, or set {LITELLM_VARIABLE} to a virtual environment "
            "with 'litellm[proxy]' in it."
        )
    home = folder / "litellm"
    home.mkdir()
    api_key, port = f"sk-{secrets.token_hex(16)}", free_port()
    served = {"model": f"openai/{MODEL}", "api_base": vendor_url, "api_key": API_KEY}
    config = {
        "model_list": [
            {"model_name": MODEL, "litellm_params": served},
            {"model_name": IMPATIENT, "litellm_params": {**served, "timeout": IMPATIENCE_S}},
        ],
        "general_settings": {"master_key": api_key},
    }
    (home / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    options = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port), "--num_workers", "2"]
    # Its other server ends workers that take more than five seconds to come up, which a busy machine makes of them.
    options.append("--run_gunicorn")
    environment = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_LOG=ERROR", "NO_PROXY=127.0.0.1"]
    process = _start(stack, [*_absolute(environment), program, *options], home, "litellm.log")
    subject = Subject(
        name="litellm",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=api_key,
        roots=[process.pid],
        versions="2 workers, without a database",
    )
    await _until_it_answers(subject, [process], home)
    return subject


async def _portkey(stack: AsyncExitStack, folder: Path, vendor_url: str) -> Subject | str:
    named = os.environ.get(PORTKEY_VARIABLE)
    if named is None:
        return (
            f"Portkey is not installed: set {PORTKEY_VARIABLE} to the start-server.js of the npm package "
            "@portkey-ai/gateway."
        )
    home = folder / "portkey"
    home.mkdir()
    port = free_port()
    node = shutil.which("node") or "/usr/bin/node"
    process = _start(stack, [node, named, f"--port={port}", "--headless"], home, "portkey.log")
    # It has no configuration of its own: each request carries the vendor's address in headers.
    headers = f"\r\nx-portkey-provider: openai\r\nx-portkey-custom-host: {vendor_url}"
    subject = Subject(
        name="portkey",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=API_KEY + headers,
        roots=[process.pid],
        versions="1 process, without a database",
    )
    await _until_it_answers(subject, [process], home)
    return subject


def _installed(program: str, variable: str) -> str | None:
    named = os.environ.get(variable)
    if named is None:
        return shutil.which(program)
    path = Path(named) / "bin" / program
    return str(path) if path.exists() else None


def _absolute(command: Sequence[str]) -> list[str]:
    return [shutil.which(command[0]) or command[0], *command[1:]]


def _start(stack: AsyncExitStack, command: Sequence[str], folder: Path, log: str) -> subprocess.Popen[bytes]:
    process = spawn(command, folder=folder, log=folder / log, account=None, on_parents_death=signal.SIGKILL)
    stack.push_async_callback(asyncio.to_thread, kill_tree, process)
    return process


async def _until_it_answers(
    subject: Subject, processes: Sequence[subprocess.Popen[bytes]], home: Path
) -> None:
    """Wait until a picture can be had, which also warms the subject up."""
    ends_at = time.monotonic() + _START_S
    async with Connection(subject.base_url, subject.api_key) as connection:
        while (await connection.post(GENERATIONS, order())).status != 200:
            if time.monotonic() > ends_at or any(process.poll() is not None for process in processes):
                raise ServerUnavailable(f"{subject.name} did not come up:\n{_printed(home)}")
            await asyncio.sleep(_LOOK_S)


def _printed(home: Path) -> str:
    return "".join(path.read_text(errors="replace")[-2000:] for path in sorted(home.glob("*.log")))


def order(size: str = SMALL, model: str = MODEL) -> dict[str, str]:
    """What is asked for. No two prompts are alike, so that nobody answers from memory."""
    return {"model": model, "prompt": f"a boat {secrets.token_hex(6)}", "size": size, "quality": "low"}


def freeze(pid: int) -> Callable[[], None]:
    """Stop a process in its tracks; returns what lets it go on."""
    send([pid], signal.SIGSTOP)
    return lambda: send([pid], signal.SIGCONT)
