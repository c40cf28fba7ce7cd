"""Every simulated vendor at its fixed port, for use by hand with `config/simulated.yaml`: `make vendors`."""

import argparse
import asyncio
import contextlib
import signal
import sys
from contextlib import AsyncExitStack
from typing import Final

from tests.simulators import imarouter, openai, therouter, vercel, xairouter
from tests.simulators.server import Simulator

PORTS: Final = {"openai": 9101, "therouter": 9102, "xairouter": 9103, "imarouter": 9104, "vercel": 9105}
"""Where `config/simulated.yaml` looks for each."""

_FILES_PORTS: Final = {"therouter": 9112, "imarouter": 9114}

_KEY_VARIABLES: Final = {
    "openai": "OPENAI_API_KEY",
    "therouter": "THE_ROUTER_API_KEY",
    "xairouter": "XAIROUTER_API_KEY",
    "imarouter": "IMAROUTER_API_KEY",
    "vercel": "AI_GATEWAY_API_KEY",
}


def simulators(latency_s: tuple[float, float]) -> list[Simulator]:
    """Build one simulator of each vendor, not yet listening; a picture takes a time between these at each."""
    return [
        openai.OpenAi(latency_s=latency_s),
        therouter.TheRouter(working_s=latency_s, files_port=_FILES_PORTS["therouter"]),
        xairouter.XaiRouter(latency_s=latency_s),
        imarouter.ImaRouter(working_s=latency_s, files_port=_FILES_PORTS["imarouter"]),
        vercel.Vercel(latency_s=latency_s),
    ]


async def _serve(latency_s: tuple[float, float]) -> None:
    told = asyncio.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wish, told.set)
    async with AsyncExitStack() as stack:
        running = simulators(latency_s)
        for simulator in running:
            await simulator.start(PORTS[simulator.name])
            stack.push_async_callback(simulator.stop)
        sys.stdout.write(_greeting(running))
        sys.stdout.flush()
        await told.wait()


def _greeting(running: list[Simulator]) -> str:
    addresses = [f"  {simulator.name:<10} {simulator.base_url}" for simulator in running]
    keys = [f"export {_KEY_VARIABLES[simulator.name]}={simulator.api_key}" for simulator in running]
    lines = [
        "Simulated vendors:",
        *addresses,
        "",
        "A gateway that buys from them:",
        "",
        *keys,
        "export DARKROOM_CONFIG=config/simulated.yaml",
        "export DARKROOM_ALLOW_NETWORKS=127.0.0.0/8",
        "make run",
        "",
        "A prompt can script them, as in: a cat [[openai@503]] [[xairouter@429:7]]",
        "What was bought: curl http://127.0.0.1:9101/_sim/ledger",
    ]
    return "\n".join(lines) + "\n"


def _span(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulators.all", description="Behave like every vendor."
    )
    parser.add_argument("--latency", type=_span, default=(2.0, 4.0), metavar="LOW-HIGH", help="seconds")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().latency))
