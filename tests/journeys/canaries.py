"""Markers that stand for secrets and for what is private, and every place in which one may have been left behind."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis

_PIECE_BYTES: Final = 65_536


def marker(name: str) -> str:
    """A word that stands nowhere else, long enough to be a key."""
    return f"canary-{name}-{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to look, and what was found there, as text."""

    name: str
    text: str


def found_in(places: Iterable[Place], markers: Mapping[str, str]) -> set[tuple[str, str]]:
    """Every (place, marker's name) where a marker stands, as it is or in hex."""
    return {
        (place.name, name)
        for place in places
        for name, text in markers.items()
        if text in place.text or text.encode().hex() in place.text
    }


async def database_places(url: str) -> list[Place]:
    """Every column of every table, as text."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        places = []
        for (table,) in names:
            rows = await connection.fetch(f'SELECT * FROM "{table}"')  # noqa: S608 - the database's own names
            for column in rows[0].keys() if rows else ():
                text = "\n".join(_text(row[column]) for row in rows)
                places.append(Place(f"{table}.{column}", text))
        return places
    finally:
        await connection.close()


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


async def redis_places(url: str) -> list[Place]:
    """Every key of a Redis, and its value."""
    client = Redis.from_url(url)
    places = []
    async with client:
        async for key in client.scan_iter():
            match await client.type(key):
                case b"string":
                    value: object = await client.get(key)
                case b"hash":
                    value = await client.hgetall(key)
                case b"zset":
                    value = await client.zrange(key, 0, -1, withscores=True)
                case b"set":
                    value = await client.smembers(key)
                case b"list":
                    value = await client.lrange(key, 0, -1)
                case kind:
                    raise AssertionError(f"{key!r} is a {kind!r}; say how to read one")
            places.append(Place(f"redis key {key.decode()}", f"{key!r} {value!r}"))
    return places


@asynccontextmanager
async def monitored(url: str) -> AsyncIterator[bytearray]:
    """Listen to every command that a Redis is sent, messages between processes included; grows while the context is."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"AUTH {parts.password}\r\nMONITOR\r\n".encode())
    heard = bytearray()

    async def listen() -> None:
        while piece := await reader.read(_PIECE_BYTES):
            heard.extend(piece)

    listening = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        writer.close()


def file_names_below(folder: Path) -> str:
    """The path of everything below a folder, one a line."""
    return "\n".join(str(path) for path in folder.rglob("*"))


def command_line(pid: int) -> str:
    """What everybody on the machine can read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="latin-1")
