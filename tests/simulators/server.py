"""The frame of every simulator: a port, a script, a ledger, and the control API under `/_sim/`.

In a test: `async with OpenAi() as vendor:`. By hand and across processes: `python -m tests.simulators.openai`.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from email.utils import formatdate
from typing import Any, ClassVar, Final, Self

from tests.simulators.ledger import Call, Ledger
from tests.simulators.script import OCCASIONS, PATIENCE_S, Hold, Occasion, Script, Step
from tests.simulators.wire import Answer, Origin, Request, Reset

_CONTROL: Final = "/_sim/"

BREAKAGES: Final = frozenset({
    "ok", "hang", "reset", "drip", "cut", "truncated", "nonsense", "not_json", "wrong_type", "empty", "huge", "html",
    "redirect", "502", "504", "520", "521", "522", "523", "524", "408",
})  # fmt: skip
"""The kinds of step that every vendor's transport knows, whatever its format."""

# What stands between the vendor and us answers with these, behind whatever the vendor did.
_EDGE_STATUSES: Final = frozenset({"408", "502", "504", "520", "521", "522", "523", "524"})
_HUGE_BLOCK: Final = b"A" * 1024 * 1024


class Simulator(ABC):
    """A vendor on a loopback port, in the running event loop. Subclasses say what it answers."""

    name: ClassVar[str]
    """The vendor, as prompt markers and the command line call it."""
    kinds: ClassVar[frozenset[str]]
    """The kinds of step that its script may hold."""

    def __init__(self, *, api_key: str, latency_s: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> None:
        self.api_key = api_key
        self.latency_s = latency_s
        """Every purchase takes a random time between these."""
        self.origin = Origin(self)
        self._seed = seed
        self._ledger = Ledger()
        self._script = Script(self.name, self.kinds)
        self._random = random.Random(seed)
        self._hanging = asyncio.Event()
        self._hung = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def base_url(self) -> str:
        """What a client is configured with."""
        return f"{self.origin.url}/v1"

    @property
    def ledger(self) -> Ledger:
        """What was received, made and billed up to now."""
        self.settle()
        return self._ledger

    def settle(self) -> None:  # noqa: B027 - nothing to do for a vendor that answers at once
        """Book what has fallen due since somebody last looked."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        await self.origin.start(port)

    async def stop(self) -> None:
        """Close the port and every connection.

        Raises:
            ExceptionGroup: the simulator itself failed, or the script is wrong.
        """
        await self.origin.stop()

    # -- The script, in Python.

    def script(self, *steps: str, on: Occasion = "purchase") -> None:
        """Queue one step for each of the next calls on this occasion, as in `script("429:7", "ok")`.

        Raises:
            ValueError: a step is of no known kind.
        """
        self._script.add(steps, on)

    def chances(self, chances: Mapping[str, float], *, on: Occasion = "purchase", seed: int = 0) -> None:
        """Let each step happen with its probability, the same sequence for the same seed."""
        self._script.set_chances(chances, on, seed)

    def hold(self, on: Occasion = "purchase") -> Hold:
        """Let the next call on this occasion stand still, received but not yet charged or answered."""
        hold = Hold()
        self._script.holds[on].append(hold)
        return hold

    async def hung(self) -> None:
        """Wait until a call hangs."""
        async with asyncio.timeout(PATIENCE_S):
            await self._hung.wait()

    def release(self) -> None:
        """Let every call go on that hangs."""
        self._hanging.set()
        self._hanging = asyncio.Event()
        self._hung.clear()

    async def idle(self) -> None:
        """Wait until no purchase is in work, those included whose client has left."""
        async with asyncio.timeout(PATIENCE_S):
            while self._ledger.in_flight:
                self._idle.clear()
                await self._idle.wait()

    def reset(self) -> None:
        """Forget the script, the ledger and all that was made. Calls that hang go on."""
        self.release()
        self._ledger = Ledger()
        self._script = Script(self.name, self.kinds)
        self._random = random.Random(self._seed)

    # -- What a vendor fills in.

    @abstractmethod
    def occasion_of(self, method: str, path: str) -> Occasion | None:
        """Say what kind of call this is; None for what can neither be scripted nor bought."""

    @abstractmethod
    async def serve(self, call: Call, request: Request) -> Answer:
        """Answer a call that was recorded."""

    # -- What a vendor uses.

    def choose(self, call: Call, on: Occasion, prompt: str = "") -> Step:
        """Take the step that is scripted for this call."""
        step = self._script.choose(on, prompt)
        call.step = step.text
        return step

    async def pause(self, call: Call, on: Occasion, step: Step) -> None:
        """Stand still as long as a test holds the call, the step delays it, and a purchase takes."""
        if self._script.holds[on]:
            await self._script.holds[on].popleft().stop(call)
        delay_s = step.delay_s + (self._random.uniform(*self.latency_s) if on == "purchase" else 0.0)
        if delay_s:
            await asyncio.sleep(delay_s)
        if step.kind == "hang":
            self._hung.set()
            await self._hanging.wait()

    # -- The port.

    def accepted(self) -> None:
        """Reset a new connection if that is the next step of any queue."""
        for on in OCCASIONS:
            step = self._script.peek(on)
            if step is not None and step.kind == "reset" and step.argument == "accept":
                self._script.choose(on, "")
                raise Reset

    def announced(self, request: Request) -> None:
        """Reset a request before its body is read, if that is the next step."""
        on = self.occasion_of(request.method, request.path)
        step = None if on is None else self._script.peek(on)
        if on is None or step is None or step.kind != "reset" or step.argument != "headers":
            return
        self.choose(self._record(request, on), on)
        raise Reset

    async def handle(self, request: Request) -> Answer:
        """Record a request and answer it."""
        if request.path.startswith(_CONTROL):
            return self._control(request)
        on = self.occasion_of(request.method, request.path)
        call = self._record(request, on)
        ledger = self._ledger
        if on == "purchase":
            ledger.in_flight += 1
            ledger.peak_in_flight = max(ledger.peak_in_flight, ledger.in_flight)
        try:
            answer = await self.serve(call, request)
        finally:
            if on == "purchase":
                ledger.in_flight -= 1
                self._idle.set()
        return Answer(
            status=answer.status,
            headers={"date": formatdate(usegmt=True), **answer.headers},
            pieces=answer.pieces,
            cut_at=answer.cut_at,
            reset=answer.reset,
            drip_s=answer.drip_s,
        )

    def _record(self, request: Request, on: Occasion | None) -> Call:
        return self._ledger.record(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            occasion=on,
        )

    def _control(self, request: Request) -> Answer:
        match request.method, request.path.removeprefix(_CONTROL):
            case "GET", "ledger":
                return json_answer(self.ledger.as_json(calls=request.query.get("calls") == "1"))
            case "POST", "script":
                return self._scripted(json.loads(request.body))
            case "POST", "release":
                self.release()
            case "POST", "reset":
                self.reset()
            case _:
                return json_answer({"problem": f"no such control: {request.method} {request.path}"}, 404)
        return json_answer({})

    def _scripted(self, wanted: dict[str, Any]) -> Answer:
        on = wanted.get("on", "purchase")
        try:
            self._script.add(wanted.get("steps", ()), on)
            if "chances" in wanted:
                self._script.set_chances(wanted["chances"], on, wanted.get("seed", 0))
        except ValueError as exc:
            return json_answer({"problem": str(exc)}, 400)
        if "latency_s" in wanted:
            low, high = wanted["latency_s"]
            self.latency_s = (low, high)
        return json_answer({})


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with a JSON document."""
    return Answer(
        status=status,
        headers={"content-type": "application/json", **(headers or {})},
        pieces=(json.dumps(value).encode(),),
    )


def before_work(step: Step) -> Answer | None:
    """What an edge answers in the vendor's stead; None when the vendor itself is to answer.

    Raises:
        Reset: the connection ends without an answer.
    """
    if step.kind == "reset" and step.argument != "reply":
        raise Reset
    if step.kind in _EDGE_STATUSES:
        return html_page(int(step.kind))
    if step.kind == "html":
        return html_page(int(step.argument or 500))
    if step.kind == "redirect":
        return Answer(status=302, headers={"location": step.argument or "http://127.0.0.1:9/"})
    return None


def deliver(answer: Answer, step: Step) -> Answer:
    """Spoil the delivery of a good answer as the step says."""
    pieces, headers = answer.pieces, dict(answer.headers)
    cut_at, drip_s, reset = None, None, False
    match step.kind:
        case "drip":
            drip_s = float(step.argument or 0)
        case "cut":
            cut_at = float(step.argument or 0.5)
        case "reset":
            cut_at, reset = 0.5, True
        case "truncated":
            pieces = _first_half(pieces)
        case "nonsense":
            headers, pieces = (
                {"content-type": "application/json"},
                ((step.argument or '{"hello": "world"}').encode(),),
            )
        case "not_json":
            headers, pieces = {"content-type": "application/json"}, (b"<<< not JSON",)
        case "wrong_type":
            headers["content-type"] = step.argument or "text/html"
        case "empty":
            headers, pieces = {}, ()
        case "huge":
            block = [b'{"created": 1, "data": [{"b64_json": "']
            pieces = [*block, *[_HUGE_BLOCK] * int(step.argument or 300), b'"}]}']
    return Answer(
        status=answer.status, headers=headers, pieces=pieces, cut_at=cut_at, reset=reset, drip_s=drip_s
    )


def html_page(status: int) -> Answer:
    """The page of an edge that stands before a vendor; not JSON."""
    page = f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>\r\n"
    return Answer(status=status, headers={"content-type": "text/html"}, pieces=(page.encode(),))


def _first_half(pieces: object) -> Sequence[bytes]:
    if not isinstance(pieces, Iterable):
        return (b"event: ",)
    whole = b"".join(pieces)
    return (whole[: len(whole) // 2],)


def arguments(name: str) -> argparse.ArgumentParser:
    """The options that every simulator has as a process."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.simulators.{name}", description=f"Behave like {name}."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", help="the one key that it accepts")
    parser.add_argument("--latency", type=_span, default=(0.0, 0.0), metavar="LOW-HIGH", help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--chance", type=_chance, action="append", default=[], metavar="STEP=P", help="repeatable"
    )
    return parser


def run(simulator: Simulator, chosen: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line of JSON when ready: name, base_url, api_key."""
    simulator.chances(dict(chosen.chance), seed=chosen.seed)
    # The answer to a signal; a simulator has nothing to save.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(simulator, chosen.port))


async def _serve(simulator: Simulator, port: int) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await simulator.start(port)
    ready = {"name": simulator.name, "base_url": simulator.base_url, "api_key": simulator.api_key}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await told.wait()
    await simulator.stop()


def _span(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _chance(text: str) -> tuple[str, float]:
    step, _, chance = text.rpartition("=")
    return step, float(chance)
