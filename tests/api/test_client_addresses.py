"""What a client's address decides: how often it may fail to authenticate, and how many connections it holds."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_network

import httpx2
import pytest

from app.accounts.keys import make_key
from app.accounts.service import FAILURES_PER_MINUTE, Accounts
from app.api.application import create_app
from app.api.connections import CONNECTIONS_PER_CLIENT, Connections
from app.api.deadlines import DeadlineH11
from app.api.server import server_of
from app.db.engine import Database
from app.kit.addresses import Network
from app.kit.limiter import LocalLimiter
from tests.api.conftest import SECRET, serving
from tests.api.parts import ADMIN_KEY, API_KEY, known_accounts
from tests.api.test_authentication import ECHO


class Clock:
    """A clock that tests move."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(sqlite_url: str, clock: Clock) -> AsyncIterator[Accounts]:
    database = Database(sqlite_url)
    made = Accounts(database, (SECRET,), limiter=LocalLimiter(clock=clock), clock=clock)
    await made.bootstrap(API_KEY, ADMIN_KEY)
    yield made
    await database.close()


@asynccontextmanager
async def gateway(accounts: Accounts, proxies: Sequence[Network] = ()) -> AsyncIterator[httpx2.AsyncClient]:
    """An API that knows keys and nothing else, served as in production."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    server = server_of(create_app([ECHO], accounts, version="0"), host, port, proxies)
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        await running


async def ask(client: httpx2.AsyncClient, key: str, **headers: str) -> httpx2.Response:
    return await client.get("/v1/jobs", headers={"authorization": f"Bearer {key}", **headers})


async def fail(client: httpx2.AsyncClient, key: str, **headers: str) -> None:
    """Fail to authenticate as often as an address may."""
    answers = [await ask(client, key, **headers) for _ in range(FAILURES_PER_MINUTE)]
    assert {answer.status_code for answer in answers} == {401}


WRONG = {
    "well-formed": make_key(is_admin=False).text,
    "any text": "a-key-of-somebody-elses-gateway-0123",
    "too short": "sk-123",
}


@pytest.mark.parametrize("key", WRONG.values(), ids=WRONG)
async def test_who_fails_too_often_is_told_to_wait(accounts: Accounts, clock: Clock, key: str) -> None:
    async with gateway(accounts) as client:
        await fail(client, key)
        refused = await ask(client, key)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["x-should-retry"] == "true"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert key not in refused.text
        assert (await ask(client, "another-wrong-key-0123456789-0123")).status_code == 429
        clock.now_s += float(refused.headers["retry-after"])
        assert (await ask(client, key)).status_code == 401


async def test_a_right_key_is_let_in_however_many_wrong_ones_came_before(
    accounts: Accounts, clock: Clock
) -> None:
    _, key = await accounts.create_key("default", "mine", limits={})
    async with gateway(accounts) as client:
        await fail(client, WRONG["well-formed"])
        for right in (API_KEY, key):
            assert (await ask(client, right)).status_code == 200
        accounts.forget()
        for right in (API_KEY, key):
            assert (await ask(client, right)).status_code == 200


async def test_a_request_without_a_key_is_no_attempt(accounts: Accounts) -> None:
    async with gateway(accounts) as client:
        for _ in range(FAILURES_PER_MINUTE + 1):
            assert (await client.get("/v1/jobs")).status_code == 401
        assert (await ask(client, WRONG["any text"])).status_code == 401


async def test_an_expired_key_fails_like_a_wrong_one(accounts: Accounts, sqlite_url: str) -> None:
    key, text = await accounts.create_key("default", "old", limits={})
    await accounts.rotate_key(key.id, overlap_s=0)
    async with gateway(accounts) as client:
        await fail(client, text)
        assert (await ask(client, text)).status_code == 429


async def test_what_is_no_key_costs_no_look_into_the_database_any_more(sqlite_url: str, clock: Clock) -> None:
    database = Database(sqlite_url)
    accounts = Accounts(database, (SECRET,), limiter=LocalLimiter(clock=clock), clock=clock)
    looks: list[str] = []

    async with gateway(accounts) as client:
        await fail(client, WRONG["any text"])
        with database.observed(lambda sql, _values: looks.append(sql)):
            assert (await ask(client, WRONG["any text"])).status_code == 429
            assert looks == []
            assert (await ask(client, WRONG["well-formed"])).status_code == 429
        assert len([look for look in looks if "api_keys" in look]) == 1
    await database.close()


async def test_who_a_trusted_proxy_asks_for_is_counted(accounts: Accounts) -> None:
    async with gateway(accounts, proxies=[ip_network("127.0.0.0/8")]) as client:
        one, other = {"x-forwarded-for": "198.51.100.1"}, {"x-forwarded-for": "198.51.100.2"}
        await fail(client, WRONG["any text"], **one)
        assert (await ask(client, WRONG["any text"], **one)).status_code == 429
        assert (await ask(client, WRONG["any text"], **other)).status_code == 401
        # What the client wrote itself stands before what the proxy added.
        claimed = {"x-forwarded-for": "203.0.113.9, 198.51.100.1"}
        assert (await ask(client, WRONG["any text"], **claimed)).status_code == 429


async def test_nobody_else_is_believed(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with gateway(accounts) as client:
        await fail(client, WRONG["any text"])
        claimed = {"x-forwarded-for": "198.51.100.2"}
        assert (await ask(client, WRONG["any text"], **claimed)).status_code == 429


async def test_an_ipv6_customer_is_one_client(accounts: Accounts) -> None:
    async with gateway(accounts, proxies=[ip_network("127.0.0.0/8")]) as client:
        for host in range(FAILURES_PER_MINUTE):
            await ask(client, WRONG["any text"], **{"x-forwarded-for": f"2001:db8:1:2::{host}"})
        sibling = {"x-forwarded-for": "2001:db8:1:2:ffff::1"}
        assert (await ask(client, WRONG["any text"], **sibling)).status_code == 429
        neighbour = {"x-forwarded-for": "2001:db8:1:3::1"}
        assert (await ask(client, WRONG["any text"], **neighbour)).status_code == 401


class Everybody(Connections):
    """Counts this machine's connections too, for all tests come from there."""

    def __init__(self, *, at_most: int) -> None:
        super().__init__(at_most=at_most)
        self.has_room = asyncio.Event()

    def counts(self, address: str) -> bool:
        return True

    def give_back(self, address: str) -> None:
        super().give_back(address)
        self.has_room.set()


async def test_a_client_holds_so_many_connections_and_no_more() -> None:
    held = Everybody(at_most=2)

    class Narrow(DeadlineH11):
        connections_held = held

    app = create_app([ECHO], known_accounts(), version="0")
    async with AsyncExitStack() as closing:
        address = httpx2.URL(await closing.enter_async_context(serving(app, Narrow)))

        async def status(source: str = "127.0.0.1") -> bytes:
            """The first line of an answer on a new connection, which stays open; nothing if it is closed."""
            reader, writer = await asyncio.open_connection(address.host, address.port, local_addr=(source, 0))
            opened.append(writer)
            writer.write(b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n")
            with suppress(ConnectionError):
                return await asyncio.wait_for(reader.readline(), 5)
            return b""

        opened: list[asyncio.StreamWriter] = []
        assert [(await status())[:12] for _ in range(3)] == [b"HTTP/1.1 401"] * 2 + [b""]
        assert (await status("127.0.0.2")).startswith(b"HTTP/1.1 401")
        opened[0].close()
        await asyncio.wait_for(held.has_room.wait(), 5)
        assert (await status()).startswith(b"HTTP/1.1 401")
        for writer in opened:
            writer.close()


def test_only_strangers_are_counted() -> None:
    connections = Connections(proxies=[ip_network("9.9.9.0/24")])
    for counted in ("8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8"):
        assert connections.counts(counted), counted
    for free in (
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "172.18.0.1",
        "192.168.1.1",
        "fd00::1",
        "9.9.9.7",
        "",
        "/sock",
    ):
        assert not connections.counts(free), free


def test_the_neighbours_of_an_ipv6_customer_have_connections_of_their_own() -> None:
    connections = Connections()
    taken = [connections.take(f"2606:4700:0:1::{host:x}") for host in range(CONNECTIONS_PER_CLIENT + 1)]
    assert taken == [True] * CONNECTIONS_PER_CLIENT + [False]
    assert connections.take("2606:4700:0:2::1")
    connections.give_back("2606:4700:0:1::1")
    assert connections.take("2606:4700:0:1::ffff")
