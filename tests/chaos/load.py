"""Clients of a gateway that is being shaken: they order pictures, repeat, wait, poll, cancel, and write down what they
were told.
"""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import httpx2
from openai import APIError, APIStatusError, AsyncOpenAI

from tests.chaos.catalog import MODELS
from tests.chaos.history import FINAL, Call, History, Order, Style

_DUPLICATED: Final = 0.3
_CANCELLED: Final = 0.06
_REUSED: Final = 0.03
_FRUGAL: Final = 0.2
_PERSISTS_S: Final = 60.0
"""How long a client with a key goes on to repeat a call that brought it nothing."""
_CALL_S: Final = 12.0
_SDK_S: Final = 6.0
_SDK_TRIES: Final = 3
# With these the job goes on, and the call is worth repeating.
_UNSETTLED: Final = frozenset({"job_still_running", "shutting_down"})
_STYLES: Final[tuple[tuple[Style, float], ...]] = (("keyed", 0.6), ("plain", 0.2), ("sdk", 0.2))


class Load:
    """Orders placed evenly over a time, in an order that the seed decides."""

    def __init__(
        self, history: History, base_urls: list[str], keys: Mapping[bool, str], *, seed: int
    ) -> None:
        """Join the parts; `keys`: whether the frugal team orders -> the key."""
        self._history = history
        self._base_urls = base_urls
        self._keys = keys
        self._random = random.Random(seed)
        self._client = httpx2.AsyncClient(
            timeout=_CALL_S,
            trust_env=False,
            # A client that keeps connections would meet its process' death once, not each time.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        # Made once: each of them reads the machine's certificates.
        self._sdks = {
            is_frugal: [
                AsyncOpenAI(base_url=url, api_key=key, timeout=_SDK_S, max_retries=_SDK_TRIES - 1)
                for url in base_urls
            ]
            for is_frugal, key in keys.items()
        }

    async def run(self, jobs: int, seconds: float) -> None:
        """Place `jobs` orders within `seconds`, and see each of them through as far as its client cares."""
        async with asyncio.TaskGroup() as clients:
            for number in range(jobs):
                chosen = random.Random(self._random.random())
                clients.create_task(self._order(number, chosen))
                await asyncio.sleep(chosen.uniform(0.5, 1.5) * seconds / jobs)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        for sdk in [*self._sdks[True], *self._sdks[False]]:
            await sdk.close()

    async def _order(self, number: int, chosen: random.Random) -> None:
        model = chosen.choice(sorted(MODELS))
        style = chosen.choices([name for name, _ in _STYLES], [weight for _, weight in _STYLES])[0]
        order = Order(
            id=f"order-{number:05}",
            style=style,
            n=chosen.choice((1, 1, 1, 2)),
            calls_that_may_be_paid=MODELS[model][1],
            is_frugal=chosen.random() < _FRUGAL,
        )
        self._history.orders[order.id] = order
        body = {
            "model": model,
            "prompt": f"{order.id}: a boat",
            "n": order.n,
            "quality": "low",
            "size": "1024x1024",
        }
        match style:
            case "keyed":
                await self._keyed(order, body, chosen)
            case "plain":
                call = await self._submit(order, body, chosen, key=None, is_async=True)
                await self._follow(order, call.job_id if call.is_acknowledged else None, chosen)
            case "sdk":
                await self._by_sdk(order, body, chosen)

    async def _keyed(self, order: Order, body: dict[str, Any], chosen: random.Random) -> None:
        twins = 2 if chosen.random() < _DUPLICATED else 1
        is_async = chosen.random() < 0.6
        told = await asyncio.gather(
            *(self._until_told(order, body, random.Random(chosen.random()), is_async) for _ in range(twins))
        )
        if told[0] is not None and chosen.random() < _REUSED:
            other = {**body, "prompt": f"{order.id}-other: a boat"}
            await self._submit(order, other, chosen, key=order.id, is_async=True, what="reuse")
        if is_async:
            await self._follow(order, told[0], chosen)

    async def _until_told(
        self, order: Order, body: dict[str, Any], chosen: random.Random, is_async: bool
    ) -> str | None:
        """Repeat a call under its key, now here and now there, until its job or its end is known."""
        ends_at = time.monotonic() + _PERSISTS_S
        while time.monotonic() < ends_at:
            call = await self._submit(order, body, chosen, key=order.id, is_async=is_async)
            if call.problem == "insufficient_quota":
                return None
            if call.job_id is not None and call.problem not in _UNSETTLED:
                return call.job_id
            await asyncio.sleep(chosen.uniform(0.1, 0.6))
        return None

    async def _submit(
        self,
        order: Order,
        body: dict[str, Any],
        chosen: random.Random,
        *,
        key: str | None,
        is_async: bool,
        what: str = "submit",
    ) -> Call:
        """Order once."""
        headers = self._authorization(order) | ({} if key is None else {"idempotency-key": key})
        url = f"{chosen.choice(self._base_urls)}/images/generations"
        return await self._call(
            order,
            what,
            self._client.post(
                url,
                params={"async": "true"} if is_async else {},
                json=body,
                headers=headers,
                timeout=_CALL_S if is_async else chosen.choice((2.0, _CALL_S, 2 * _CALL_S)),
            ),
        )

    async def _follow(self, order: Order, job_id: str | None, chosen: random.Random) -> None:
        """Do with an acknowledged job what clients do: give it up, wait, poll, or leave it."""
        if job_id is None:
            return
        if chosen.random() < _CANCELLED:
            await asyncio.sleep(chosen.uniform(0.0, 2.5))
            url = f"{chosen.choice(self._base_urls)}/jobs/{job_id}/cancel"
            await self._call(order, "cancel", self._client.post(url, headers=self._authorization(order)))
        manner = chosen.choice(("wait", "wait", "poll", "leave"))
        if manner == "leave":
            return
        ends_at = time.monotonic() + _PERSISTS_S
        while time.monotonic() < ends_at:
            url = f"{chosen.choice(self._base_urls)}/jobs/{job_id}"
            params = {"wait": "8"} if manner == "wait" else {}
            call = await self._call(
                order,
                manner,
                self._client.get(url, params=params, headers=self._authorization(order)),
            )
            if call.job_status in FINAL:
                break
            if manner == "poll" or call.status is None or call.status != 200:
                await asyncio.sleep(chosen.uniform(0.5, 1.0))
        url = f"{chosen.choice(self._base_urls)}/jobs/{job_id}/result"
        await self._call(
            order, "result", self._client.get(url, headers=self._authorization(order)), job_id=job_id
        )

    async def _by_sdk(self, order: Order, body: dict[str, Any], chosen: random.Random) -> None:
        """Order as most clients do: wait for the picture, and let the SDK repeat what breaks."""
        sdk = chosen.choice(self._sdks[order.is_frugal])
        started_s = time.monotonic()
        status, headers, content, problem = None, httpx2.Headers(), b"", None
        try:
            answer = await sdk.images.with_raw_response.generate(**body)
        except APIStatusError as exc:
            status, headers, content = (
                exc.status_code,
                httpx2.Headers(dict(exc.response.headers)),
                exc.response.content,
            )
        except APIError as exc:
            problem = type(exc).__name__
        else:
            status, headers, content = (
                answer.status_code,
                httpx2.Headers(dict(answer.headers)),
                answer.content,
            )
        self._note(order, "sdk", started_s, status, headers, content, problem)

    def _authorization(self, order: Order) -> dict[str, str]:
        return {"authorization": f"Bearer {self._keys[order.is_frugal]}"}

    async def _call(
        self,
        order: Order,
        what: str,
        answering: Awaitable[httpx2.Response],
        *,
        job_id: str | None = None,
    ) -> Call:
        started_s = time.monotonic()
        try:
            answer = await answering
        except httpx2.HTTPError as exc:
            return self._note(order, what, started_s, None, httpx2.Headers(), b"", type(exc).__name__, job_id)
        return self._note(
            order, what, started_s, answer.status_code, answer.headers, answer.content, None, job_id
        )

    def _note(
        self,
        order: Order,
        what: str,
        started_s: float,
        status: int | None,
        headers: httpx2.Headers,
        content: bytes,
        problem: str | None,
        job_id: str | None = None,
    ) -> Call:
        document = _document(content)
        error = document.get("error") or {}
        if isinstance(error, dict) and "status" not in document:
            problem = problem or error.get("code")
            job_id = job_id or error.get("job_id")
        is_job = document.get("object") == "image_job"
        is_result = status == 200 and "data" in document and not is_job
        call = Call(
            order_id=order.id,
            what=what,
            started_s=started_s,
            ended_s=time.monotonic(),
            status=status,
            job_id=document.get("id") if is_job else headers.get("x-darkroom-job-id", job_id),
            job_status=document.get("status") if is_job else None,
            result_sha256=hashlib.sha256(content).hexdigest() if is_result else None,
            problem=problem,
        )
        self._history.calls.append(call)
        return call


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
