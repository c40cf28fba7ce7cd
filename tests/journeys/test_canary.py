"""No secret, prompt, file name or header is left behind where it does not belong, whatever goes wrong.

A whole production is used in every way and made to fail in many; then everything that it wrote is searched for
markers (reliability 4.10).
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx2
import pytest

from app.db.migrate import upgrade
from tests.assets.pictures import SAMPLES
from tests.chaos.cluster import Member
from tests.collector import Collector, collecting
from tests.harness.processes import free_port
from tests.harness.servers import PostgresServer, RedisServer
from tests.journeys.canaries import (
    Place,
    command_line,
    database_places,
    file_names_below,
    found_in,
    marker,
    monitored,
    redis_places,
)
from tests.journeys.production import DARKROOM, come_up, member, running
from tests.kit.scripted_server import Exchange, ScriptedServer, scripted_server
from tests.kitchen import catalog_of
from tests.simulators.openai import OpenAi

pytestmark = [pytest.mark.journey, pytest.mark.timeout(480)]

PNG: Final = SAMPLES["png"]

PRIVATE: Final = {
    name: marker(name)
    for name in (
        "prompt", "user", "metadata", "file-name", "header", "cookie", "idempotency-key", "webhook-token",
        "image-token", "request-id", "bad-value",
    )
}  # fmt: skip
"""What is a client's own: kept where it has to be, and nowhere else."""

KEPT: Final = {
    ("jobs.request", "prompt"): "what is to be bought",
    ("jobs.request", "user"): "handed on to the vendor",
    ("jobs.metadata", "metadata"): "shown with the job",
    ("jobs.webhook_url", "webhook-token"): "where the job's end is told",
    ("webhook_deliveries.url", "webhook-token"): "the same",
    ("webhook_endpoints.url", "webhook-token"): "where every job's end is told",
    ("audit_entries.after", "webhook-token"): "what an operator set",
    ("webhook_deliveries.answer", "metadata"): "what a receiver said, which may be the job that it was sent",
    ("assets.filename", "file-name"): "shown with the file",
    ("idempotency_keys.key", "idempotency-key"): "recognised when it comes again",
    ("errors that clients saw", "bad-value"): "named to the client that sent it",
    ("errors that clients saw", "idempotency-key"): "named to the client that sent it",
    ("outputs of the command", "issued key"): "shown this once",
}
"""Where a marker may stand, and why."""


@dataclass
class Stage:
    """A production in small, its vendors and receivers, and all that is searched at the end."""

    folder: Path
    postgres: PostgresServer
    redis: RedisServer
    database_url: str
    echo: ScriptedServer
    """A vendor that says back whatever it was sent, in the form that is next in `echoes`."""
    echoes: list[tuple[int, str, str]]
    spare: OpenAi
    receiver: ScriptedServer
    images: ScriptedServer
    secret: dict[str, str]
    """Name -> a text that may stand nowhere at all."""
    api: Member
    worker: Member
    base_url: str
    watched: str
    """Where the worker tells its metrics."""
    collector: Collector
    errors: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    command_lines: list[str] = field(default_factory=list)

    async def places(self, heard: bytearray) -> list[Place]:
        """Everywhere to look. What else a process tells anybody belongs here too."""
        names = await asyncio.to_thread(file_names_below, self.folder)
        return [
            Place("log of the API", self.api.everything_printed()),
            Place("log of the worker", self.worker.everything_printed()),
            Place("log of Redis", self.redis.log),
            Place("log of Postgres", self.postgres.log),
            Place("names of files", names),
            Place("command lines", "\n".join(self.command_lines)),
            Place("metrics", "\n".join(self.metrics)),
            Place("traces", "\n".join(body.decode("latin-1") for body in self.collector.requests)),
            Place("headers of traces", str(self.collector.headers)),
            Place("errors that clients saw", "\n".join(self.errors)),
            Place("outputs of the command", "\n".join(self.outputs)),
            Place("commands to Redis", heard.decode("latin-1")),
            *await redis_places(self.redis.url),
            *await database_places(self.database_url),
        ]

    def client(self, key: str | None) -> httpx2.AsyncClient:
        """A client that remembers every error it is told."""

        async def remember(answer: httpx2.Response) -> None:
            if answer.status_code >= 400:
                self.errors.append(f"{answer.headers}\n{(await answer.aread()).decode()}")

        headers = {
            "x-canary": PRIVATE["header"],
            "cookie": PRIVATE["cookie"],
            "user-agent": PRIVATE["header"],
        }
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return httpx2.AsyncClient(
            base_url=self.base_url, headers=headers, event_hooks={"response": [remember]}, timeout=60
        )

    async def command(self, *arguments: str, **changed: str) -> str:
        """Run `darkroom` beside the API; what it printed."""
        process = await asyncio.create_subprocess_exec(
            DARKROOM,
            *arguments,
            cwd=self.folder / "api",
            env={"PATH": os.environ["PATH"], **changed},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed = (await process.communicate())[0].decode()
        self.outputs.append(printed)
        return printed


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Stage]:
    echoes: list[tuple[int, str, str]] = []

    async def echo(exchange: Exchange) -> None:
        request = await exchange.request()
        said = json.dumps(f"{PRIVATE['prompt']} {request.headers.get('authorization')} {request.headers}")[
            1:-1
        ]
        status, media_type, body = echoes.pop(0) if echoes else (401, "application/json", ENVELOPE)
        text = body.replace("SAID", said).replace("PROMPT", PRIVATE["prompt"])
        text = text.replace("KEY", request.headers.get("authorization", "").removeprefix("Bearer "))
        await exchange.answer(status, text.encode(), content_type=media_type, x_said=said, connection="close")

    async def receive(exchange: Exchange) -> None:
        request = await exchange.request()
        await exchange.answer(500, request.body + str(request.headers).encode(), connection="close")

    async def show(exchange: Exchange) -> None:
        is_missing = "missing" in (await exchange.request()).line
        await exchange.answer(404 if is_missing else 200, b"" if is_missing else PNG, connection="close")

    async with AsyncExitStack() as closing:
        postgres = await asyncio.to_thread(closing.enter_context, PostgresServer())
        redis = await asyncio.to_thread(closing.enter_context, RedisServer())
        database_url = await asyncio.to_thread(postgres.create_database)
        await asyncio.to_thread(upgrade, database_url)
        await execute(
            database_url, "ALTER ROLE postgres SET log_error_verbosity = 'terse'"
        )  # as docker-compose.yml
        echoing = await closing.enter_async_context(scripted_server(echo))
        receiver = await closing.enter_async_context(scripted_server(receive))
        images = await closing.enter_async_context(scripted_server(show))
        secret = {
            "API key": marker("api-key"), "admin key": marker("admin-key"), "secret key": marker("secret-key"),
            "vendor key": marker("vendor-key"), "spare's key": f"sk-{marker('spare')}",
            "database password": str(urlsplit(database_url).password),
            "Redis password": str(urlsplit(redis.url).password),
        }  # fmt: skip
        spare = await closing.enter_async_context(OpenAi(api_key=secret["spare's key"]))
        collector = await closing.enter_async_context(collecting())
        port, watched = free_port(), free_port()
        settings = {
            "DARKROOM_CONFIG": str(folder / "gateway.yaml"),
            "DARKROOM_DATABASE_URL": database_url,
            "DARKROOM_REDIS_URL": redis.url,
            "DARKROOM_STORAGE_URL": f"file://{folder / 'pictures'}",
            "DARKROOM_API_KEY": secret["API key"],
            "DARKROOM_ADMIN_KEY": secret["admin key"],
            "DARKROOM_SECRET_KEY": secret["secret key"],
            "DARKROOM_ALLOW_NETWORKS": "127.0.0.0/8",
            "DARKROOM_LEASE_S": "3",
            "DARKROOM_LOG_LEVEL": "debug",
            "DARKROOM_PORT": str(port),
            "DARKROOM_WORKER_LISTEN": f"127.0.0.1:{watched}",
            "DARKROOM_OTLP_ENDPOINT": collector.url,
            "XAIROUTER_TEST_KEY": secret["vendor key"],
            "OPENAI_TEST_KEY": secret["spare's key"],
        }
        catalog = catalog_of({"xairouter": _At(f"{echoing.url}/v1"), "openai": spare})  # type: ignore[dict-item] # only its address is looked at
        for upstream in catalog["upstreams"].values():
            upstream["timeout_s"] = 4
        (folder / "gateway.yaml").write_text(json.dumps(catalog), encoding="utf-8")
        api = member(folder, "api", "serve", {**settings, "DARKROOM_LOG_FORMAT": "json"})
        worker = member(folder, "worker", "worker", {**settings, "DARKROOM_LOG_FORMAT": "console"})
        stage = Stage(
            folder=folder, postgres=postgres, redis=redis, database_url=database_url, echo=echoing,
            echoes=echoes, spare=spare, receiver=receiver, images=images, secret=secret, api=api,
            worker=worker, base_url=f"http://127.0.0.1:{port}",
            watched=f"http://127.0.0.1:{watched}", collector=collector,
        )  # fmt: skip
        await closing.enter_async_context(running(api, worker))
        yield stage


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@dataclass(frozen=True)
class _At:
    base_url: str


ENVELOPE: Final = '{"error": {"message": "SAID", "code": "SAID", "type": "SAID", "param": "SAID"}}'
NAMES: Final = '{"error": {"message": "SAID", "code": "PROMPT", "type": "KEY", "param": "PROMPT"}}'
KEY_AS_PARAMETER: Final = '{"error": {"message": "SAID", "code": "KEY", "type": "PROMPT", "param": "KEY"}}'
ECHOES: Final = [
    (400, "application/json", '{"error": {"message": "SAID", "code": "moderation_blocked"}}'),
    (400, "application/json", NAMES),
    (400, "application/json", KEY_AS_PARAMETER),
    (400, "application/json", ENVELOPE),
    (401, "application/json", NAMES),
    (429, "application/json", ENVELOPE),
    (500, "application/json", KEY_AS_PARAMETER),
    (502, "text/html", "<html>SAID</html>"),
    (200, "application/json", '{"data": "SAID", "SAID": 1}'),
    (200, "application/json", '{"data": [{"url": "http://127.0.0.1:9/SAID"}]}'),
    (200, "application/json", "SAID"),
    (302, "application/json", ENVELOPE),
]
"""What a vendor may answer that says back what it was sent: (status, media type, body)."""


async def test_nothing_that_is_secret_or_private_is_left_behind(stage: Stage) -> None:
    async with (
        monitored(stage.redis.url) as heard,
        stage.client(stage.secret["API key"]) as client,
        stage.client(stage.secret["admin key"]) as admin,
        stage.client(None) as anonymous,
    ):
        await _operate(stage, admin)
        await _buy(stage, client, admin)
        await _go_wrong(stage, client, anonymous)
        await _use_the_command(stage)
        await _lose_a_worker(stage, client)
        await _look_around(stage, admin)
        assert stage.receiver.requests, "no webhook was tried"
        assert len(stage.errors) >= 20
        # What they still have to tell, they tell as they stop.
        assert [await each.stop() for each in (stage.worker, stage.api)] == [0, 0]
        places = await stage.places(heard)
    assert b"darkroom:events" in heard
    assert len(stage.collector.spans()) > 100
    # Whoever looks in the wrong place finds nothing: what is kept has to be there.
    leaks = found_in(places, {**stage.secret, **PRIVATE})
    assert sorted(leaks - KEPT.keys()) == []
    assert sorted(KEPT.keys() - leaks) == []


def _body(**more: Any) -> dict[str, Any]:
    return {
        "model": "gpt-image-2", "prompt": PRIVATE["prompt"], "user": PRIVATE["user"], "size": "1024x1024",
        "quality": "low", "metadata": {"album": PRIVATE["metadata"]}, **more,
    }  # fmt: skip


async def _operate(stage: Stage, admin: httpx2.AsyncClient) -> None:
    """What operators do, well and badly."""

    async def act(method: str, path: str, **sent: Any) -> Any:
        answer = await admin.request(method, f"/admin/v1/{path}", **sent)
        assert answer.status_code < 300, answer.text
        return answer.json()

    team = await act("POST", "teams", json={"name": "lab"})
    key = await act("POST", "keys", json={"team_id": team["id"], "name": "one"})
    newer = await act("POST", f"keys/{key['id']}/rotate", json={})
    await act("DELETE", f"keys/{key['id']}")
    rotated = await act("POST", "webhooks/secrets/rotate", json={"team_id": "default"})
    url = f"{stage.receiver.url}/hook?token={PRIVATE['webhook-token']}"
    await act("POST", "webhooks/endpoints", json={"team_id": "default", "url": url})
    stage.secret |= {"made key": key["key"], "rotated key": newer["key"], "webhook secret": rotated["secret"]}
    literal = f"version: 1\nupstreams:\n  a: {{adapter: openai, api_key: {stage.secret['vendor key']}}}\n"
    for content in (
        literal,
        literal.replace("a: {", "a: {{"),
        f"{stage.secret['vendor key']}: [",
        literal * 2,
    ):
        checked = await act("POST", "config/check", content=content.encode())
        assert not checked["valid"]
        stage.errors.append(json.dumps(checked))
    await act("POST", "config/reload")
    await act("POST", "upstreams/openai/disable")
    await act("POST", "upstreams/openai/enable")
    bodies: list[Any] = [{"name": "x", "limits": {"max_jobs": PRIVATE["bad-value"]}}, [], PRIVATE["prompt"]]
    for body in bodies:
        assert (await admin.post("/admin/v1/teams", json=body)).status_code == 400


async def _upload(client: httpx2.AsyncClient) -> httpx2.Response:
    file = (f"{PRIVATE['file-name']}.png", PNG)
    return await client.post("/v1/files", data={"purpose": "vision"}, files={"file": file})


async def _buy(stage: Stage, client: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    """Every way to buy, well and with a vendor that says back what it was sent."""
    hook = {"webhook_url": f"{stage.receiver.url}/hook?token={PRIVATE['webhook-token']}"}
    shown = f"{stage.images.url}/a.png?token={PRIVATE['image-token']}"
    data_url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    again = {"idempotency-key": PRIVATE["idempotency-key"]}
    made = await client.post(
        "/v1/images/generations", json=_body(response_format="url", **hook), headers=again
    )
    assert made.status_code == 200, made.text
    link = made.json()["data"][0]["url"]
    stage.secret["signature"] = parse_qs(urlsplit(link).query)["sig"][0]
    assert (await client.get(link)).status_code == 200
    assert (await client.get(link[:-2])).status_code == 404
    reused = await client.post("/v1/images/generations", json=_body(n=2), headers=again)
    assert reused.status_code == 422
    file = await _upload(client)
    for images in ([{"file_id": file.json()["id"]}], [{"image_url": shown}], [{"image_url": data_url}]):
        edited = await client.post("/v1/images/edits", json=_body(images=images))
        assert edited.status_code == 200, edited.text
    form = {name: str(value) for name, value in _body().items() if name != "metadata"}
    uploaded = {"image": (f"{PRIVATE['file-name']}.png", PNG), "mask": (f"{PRIVATE['file-name']}.png", b"no")}
    assert (await client.post("/v1/images/edits", data=form, files=uploaded)).status_code == 400
    part = {"type": "image_url", "image_url": {"url": shown}}
    content = [{"type": "text", "text": PRIVATE["prompt"]}, part]
    chat = {"model": "gpt-image-2", "messages": [{"role": "user", "content": content}]}
    assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200
    streamed = await client.post("/v1/images/generations", json=_body(stream=True, partial_images=1))
    assert "image_generation.completed" in streamed.text
    generate = {"prompt": PRIVATE["prompt"], "webhookUrl": hook["webhook_url"]}
    polled = await client.post("/v1/image/gpt-image-2/generate", json=generate)
    assert (await client.get(f"/v1/jobs/{polled.json()['id']}?wait=30")).json()["status"] == "completed"
    for echo in ECHOES:
        # Whatever the vendor did before, it is asked again.
        await admin.post("/admin/v1/upstreams/xairouter/reset")
        stage.echoes.append(echo)
        answer = await client.post("/v1/images/generations", json=_body(**hook))
        assert not stage.echoes
        job = await client.get(f"/v1/jobs/{answer.headers['x-darkroom-job-id']}")
        failed = json.dumps([job.json()["error"], job.json()["attempts"]])
        stage.errors += [failed, str(answer.headers)]
        await client.get(f"/v1/jobs/{answer.headers['x-darkroom-job-id']}/result")


async def _go_wrong(stage: Stage, client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    """What clients get wrong, and a database that refuses."""
    path, bad = "/v1/images/generations", PRIVATE["bad-value"]
    for wrong in (
        {"size": bad}, {"model": bad}, {"n": bad}, {"metadata": {bad: 1}}, {"prompt": [PRIVATE["prompt"]]},
        {bad: 1}, {"webhook_url": f"http://user:{PRIVATE['webhook-token']}@x/"},
        {"prompt": PRIVATE["prompt"] * 1000},
    ):  # fmt: skip
        assert (await client.post(path, json=_body(**wrong))).status_code >= 400
    for content in (
        f'{{"prompt": "{PRIVATE["prompt"]}", ',
        f'"{PRIVATE["prompt"]}"',
        f"{PRIVATE['prompt']}\0",
    ):
        assert (await client.post(path, content=content.encode())).status_code == 400
    missing = f"{stage.images.url}/missing?token={PRIVATE['image-token']}"
    refused = f"http://127.0.0.1:9/{PRIVATE['image-token']}"
    for image in (missing, refused, f"ftp://{PRIVATE['image-token']}/"):
        edit = _body(images=[{"image_url": image}])
        assert (await client.post("/v1/images/edits", json=edit)).status_code == 400
    chat = {
        "model": "gpt-image-2",
        "messages": [{"role": PRIVATE["bad-value"], "content": PRIVATE["prompt"]}],
    }
    assert (await client.post("/v1/chat/completions", json=chat)).status_code == 400
    for key in (f"{stage.secret['API key']}x", stage.secret["admin key"], f"Basic {stage.secret['API key']}"):
        told = {"authorization": f"Bearer {key}", "x-request-id": f"{PRIVATE['request-id']} !"}
        assert (await anonymous.get("/v1/jobs", headers=told)).status_code == 401
    assert (await client.get("/admin/v1/teams")).status_code == 403
    await _break(stage, "jobs", "priority = 2", lambda: client.post(path, json=_body(priority="low")))
    await _break(stage, "assets", "kind = 'upload'", lambda: _upload(client))
    assert "request.failed" in stage.api.everything_printed()


async def _break(stage: Stage, table: str, rows: str, call: Callable[[], Awaitable[httpx2.Response]]) -> None:
    """Let the database refuse what a call writes."""
    rule = f"ALTER TABLE {table} ADD CONSTRAINT not_now CHECK (NOT {rows}) NOT VALID"
    await execute(stage.database_url, rule)
    assert (await call()).status_code == 500
    await execute(stage.database_url, f"ALTER TABLE {table} DROP CONSTRAINT not_now")


async def _use_the_command(stage: Stage) -> None:
    """The command, with settings that are right and with some that are not."""
    base = ("--base-url", stage.base_url)
    await stage.command("doctor")
    wrong_host = f"postgresql://user:{marker('x')}@127.0.0.1:9/none"
    stage.secret["wrong password"] = str(urlsplit(wrong_host).password)
    wrong_redis = f"redis://:{stage.secret['wrong password']}@127.0.0.1:9/0"
    await stage.command("doctor", DARKROOM_DATABASE_URL=wrong_host)
    await stage.command("doctor", "--json", DARKROOM_REDIS_URL=wrong_redis)
    await stage.command("serve", DARKROOM_DATABASE_URL=wrong_host, DARKROOM_PORT=str(free_port()))
    await stage.command("serve", DARKROOM_SECRET_KEY=stage.secret["wrong password"][:20])
    await stage.command("migrate", DARKROOM_DATABASE_URL=wrong_host)
    literal = stage.folder / "literal.yaml"
    literal.write_text(
        f"version: 1\nupstreams: {{a: {{adapter: openai, api_key: {stage.secret['vendor key']}}}}}\n"
    )
    assert "literal.yaml" in await stage.command("config", "check", str(literal))
    issued = await stage.command("keys", "create", "two", "--team", "lab", "--json", *base)
    assert issued.startswith("{"), issued
    stage.secret["issued key"] = json.loads(issued)["key"]
    for arguments in (
        ("jobs", "list"), ("upstreams", "list"), ("keys", "list"), ("teams", "list"), ("secrets", "rotate"),
        ("generate", PRIVATE["prompt"], "-o", str(stage.folder / "out.png")),
    ):  # fmt: skip
        await stage.command(*arguments, *(() if arguments[0] == "secrets" else base))


async def _lose_a_worker(stage: Stage, client: httpx2.AsyncClient) -> None:
    """A worker that dies in the middle of a call, and its successor."""
    stage.spare.script("hang")
    job = await client.post("/v1/images/generations?async=true", json=_body())
    await stage.spare.hung()
    await stage.worker.kill()
    stage.spare.release()
    await come_up(stage.worker)
    path = f"/v1/jobs/{job.json()['id']}"
    while (await client.get(f"{path}?wait=30")).json()["status"] not in ("failed", "succeeded"):
        continue
    await client.get(f"{path}/result")


async def _look_around(stage: Stage, admin: httpx2.AsyncClient) -> None:
    """Every list of the operators, read but not searched: they may see what is private."""
    for path in (
        "jobs",
        "keys",
        "teams",
        "webhooks/deliveries",
        "webhooks/endpoints",
        "audit",
        "config",
        "spend",
    ):
        assert (
            await admin.get(f"/admin/v1/{path}?{'by=team' if path == 'spend' else ''}")
        ).status_code == 200, path
    for address in (stage.base_url, stage.watched):
        told = await admin.get(f"{address}/metrics")
        assert "darkroom_" in told.text
        stage.metrics.append(told.text)
    stage.command_lines += [command_line(each.pid or 0) for each in (stage.api, stage.worker)]
