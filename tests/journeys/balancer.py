"""What stands before several APIs in production: takes connections, and passes each to an API that answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_PIECE_BYTES = 65_536


@asynccontextmanager
async def balanced(apis: Sequence[tuple[str, int]]) -> AsyncIterator[str]:
    """Lend the base URL of a balancer before these APIs; connections take turns, and dead APIs are passed over."""
    turns = list(apis)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turns.append(turns.pop(0))
        for host, port in tuple(turns):
            try:
                api_reader, api_writer = await asyncio.open_connection(host, port)
            except OSError:
                continue
            await asyncio.gather(_pump(reader, api_writer), _pump(api_reader, writer))
            return
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    own_port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{own_port}/v1"
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()
