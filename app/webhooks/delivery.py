"""Sends what is due, from every worker: at least once, under one id, until the receiver takes it or a day is over.

Claim and commit, send, record and commit. A process that dies in between sends again after the lease.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from sqlalchemy import select

from app.db.connection import Connection
from app.db.engine import Database, StoreUnavailable
from app.db.types import now
from app.kit.http import Answer, EgressDenied, GuardedClient, NoAnswer, Timeouts
from app.kit.ids import new_id
from app.kit.json import JsonObject
from app.kit.retry_after import retry_after_s
from app.kit.sealing import SealBroken
from app.kit.telemetry import Redaction, get_logger
from app.kit.tracing import NoTracing, SpanKind, Tracing
from app.webhooks import repository, signing
from app.webhooks.instruments import WebhookInstruments
from app.webhooks.payload import body_of
from app.webhooks.records import Claimed, Delivery, DeliveryStatus, DisabledReason, Endpoint, Outcome
from app.webhooks.schedule import next_try
from app.webhooks.vault import Vault

LOG = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownJob:
    """A job as its team sees it."""

    document: dict[str, object]
    """The public object, with fresh links."""
    revision: int
    trace_parent: str | None = None
    """The span that it was handed in under."""


JobObject: TypeAlias = Callable[[str], Awaitable[ShownJob]]
"""Shows a job by its id."""

LOOK_EVERY_S: Final = 1.0
"""How late a delivery may be noticed."""
TIMEOUT_S: Final = 15.0
"""For one try, from the look-up of the name to the end of the answer."""
PER_RECEIVER: Final = 4
"""Tries under way to one receiver, over all workers."""
ANSWER_BYTES: Final = 4096
"""How much of an answer is kept."""
_REDACTION: Final = Redaction()
FAILING_AT_MOST_S: Final = 5 * 86400.0
"""After so long without any success an endpoint is disabled."""
_SLOTS: Final = 32
_LEASE_S: Final = 60.0
"""A try and its record, with room for a database that is slow to answer."""
_STOP_WITHIN_S: Final = 5.0
_NOW: Final = select(now())


class Deliverer:
    """Delivers events from this process."""

    def __init__(
        self,
        database: Database,
        client: GuardedClient,
        vault: Vault,
        job_object: JobObject,
        *,
        jitter: random.Random,
        instruments: WebhookInstruments | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._database = database
        self._client = client
        self._vault = vault
        self._job_object = job_object
        self._jitter = jitter
        self._instruments = instruments or WebhookInstruments()
        self._tracing = tracing or NoTracing()
        self._running: dict[asyncio.Task[None], Delivery] = {}

    async def run(self) -> None:
        """Look and deliver, for ever; once cancelled, give back what is not sent within a few seconds."""
        try:
            while True:
                ended = asyncio.Event()
                try:
                    await self.start_due(ended)
                except StoreUnavailable as exc:
                    LOG.warning("webhooks.not_claimed", reason=str(exc))
                with contextlib.suppress(TimeoutError):
                    # A slot or a receiver that became free is used at once; jitter keeps workers from looking together.
                    async with asyncio.timeout(LOOK_EVERY_S * random.uniform(0.8, 1.2)):
                        await ended.wait()
        finally:
            await self._stop()

    async def deliver_due(self) -> int:
        """Try what is due now and has room, once, and wait for it; how many tries.

        Raises:
            StoreUnavailable: the database did not answer.
        """
        started = await self.start_due(asyncio.Event())
        while self._running:
            await asyncio.wait(set(self._running))
        return started

    async def start_due(self, ended: asyncio.Event) -> int:
        """Begin to try what is due and has room; `ended` is set whenever one of these tries is over.

        Raises:
            StoreUnavailable: the database did not answer.
        """
        free = _SLOTS - len(self._running)
        if free <= 0:
            return 0
        async with self._database.transaction() as connection:
            claimed = await repository.claim(
                connection, limit=free, per_receiver=PER_RECEIVER, lease_s=_LEASE_S
            )
        for item in claimed:
            task = asyncio.create_task(self._deliver(item), name=item.delivery.id)
            self._running[task] = item.delivery
            task.add_done_callback(self._ended(ended))
        return len(claimed)

    def _ended(self, ended: asyncio.Event) -> Callable[[asyncio.Task[None]], None]:
        def note(task: asyncio.Task[None]) -> None:
            delivery = self._running.pop(task, None)
            if not task.cancelled() and task.exception() is not None:
                # The lease lapses, and it is tried again: by then with another release, perhaps.
                LOG.error(
                    "webhook.crashed",
                    delivery_id=delivery.id if delivery else None,
                    exc_info=task.exception(),
                )
            ended.set()

        return note

    async def _deliver(self, claimed: Claimed) -> None:
        delivery = claimed.delivery
        try:
            if not await self._is_wanted(delivery):
                return
            outcome = await self._try(claimed)
            await self._record(claimed, outcome)
        except StoreUnavailable as exc:
            # Perhaps it was sent and we cannot say so: the lease lapses, and it is sent again under the same id.
            LOG.warning("webhook.not_recorded", delivery_id=delivery.id, reason=str(exc))
        except SealBroken as exc:
            LOG.error("webhook.not_signed", delivery_id=delivery.id, reason=str(exc))  # noqa: TRY400 - no bug: settings

    async def _is_wanted(self, delivery: Delivery) -> bool:
        """Whether the endpoint is in use; one may have gone out of use while the job ended."""
        if delivery.endpoint_id is None:
            return True
        async with self._database.reading() as connection:
            endpoint = await repository.find_endpoint(connection, delivery.endpoint_id)
        if endpoint is not None and endpoint.is_in_use:
            return True
        async with self._database.transaction() as connection:
            await repository.give_up_all(connection, delivery.endpoint_id)
        return False

    async def _try(self, claimed: Claimed) -> Outcome:
        event = claimed.event
        job = await self._job_object(event.job_id)
        secrets = await self._vault.signing_secrets(event.team_id)
        body = body_of(event, job.document, job.revision)
        # The database's time: a worker with a wrong clock must not send what every receiver takes for a replay.
        timestamp_s = int(claimed.at.timestamp())
        headers = {
            "content-type": "application/json; charset=utf-8",
            "content-length": str(len(body)),
            "accept-encoding": "identity",
            "user-agent": "darkroom",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signing.sign(secrets, event.id, timestamp_s, body),
        }
        with self._tracing.span(
            "webhook.deliver",
            kind=SpanKind.CLIENT,
            parent=job.trace_parent,
            job_id=event.job_id,
            delivery_id=claimed.delivery.id,
            event=event.type.value,
        ):
            outcome = await self._post(claimed.delivery.url, headers, body)
            if outcome.is_success:
                self._tracing.note(status=outcome.status, outcome="succeeded")
            else:
                self._tracing.note(status=outcome.status)
                self._tracing.fail("failed")
        return outcome

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        began_at = time.monotonic()
        answer: Answer | None = None
        error: str | None = None
        text = b""
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client.exchange(
                    "POST", url, headers=headers, timeouts=Timeouts(read_s=TIMEOUT_S), content=_once(body)
                ) as answer,
            ):
                async for chunk in answer.body:
                    text += chunk
                    if len(text) >= ANSWER_BYTES:
                        break
        except EgressDenied:
            error = "the address may not be reached"
        except NoAnswer as exc:
            error = exc.reason
        except TimeoutError:
            error = f"no answer within {TIMEOUT_S:g} s"
        # Once the status has come, how the body ends makes no difference.
        return Outcome(
            status=None if answer is None else answer.status,
            error=error if answer is None else None,
            answer=None if answer is None else _shown(text),
            retry_after_s=None if answer is None else retry_after_s(answer.headers),
            duration_ms=round((time.monotonic() - began_at) * 1000),
        )

    async def _record(self, claimed: Claimed, outcome: Outcome) -> None:
        async with self._database.transaction() as connection:
            endpoint_id = claimed.delivery.endpoint_id
            endpoint = (
                None
                if endpoint_id is None
                else await repository.find_endpoint(connection, endpoint_id, is_to_change=True)
            )
            delivery = await repository.find_delivery(connection, claimed.delivery.id, is_to_change=True)
            if delivery is None or delivery.status is not DeliveryStatus.PENDING:
                return
            # Success is welcome from everybody, failure only from the current holder.
            if not outcome.is_success and delivery.claims != claimed.delivery.claims:
                return
            await self._judge(connection, delivery, endpoint, outcome)

    async def _judge(
        self, connection: Connection, delivery: Delivery, endpoint: Endpoint | None, outcome: Outcome
    ) -> None:
        at = (await connection.execute(_NOW)).scalar_one()
        history = [*delivery.history, _entry(int(at.timestamp()), outcome)]
        LOG.info(
            "webhook.tried",
            delivery_id=delivery.id,
            job_id=delivery.job_id,
            status=outcome.status,
            error=outcome.error,
        )
        if outcome.is_success:
            self._count(connection, "succeeded", outcome)
            await repository.finish(
                connection, delivery.id, DeliveryStatus.SUCCEEDED, history=history, answer=outcome.answer
            )
            if endpoint is not None and endpoint.failing_since is not None:
                await repository.note_success(connection, endpoint.id)
            return
        next_at = (
            None
            if outcome.is_gone
            else next_try(
                at,
                tries=delivery.tries + 1,
                ends_at=delivery.ends_at,
                retry_after_s=outcome.retry_after_s,
                jitter=self._jitter,
            )
        )
        self._count(connection, "given_up" if next_at is None else "put_off", outcome)
        if next_at is None:
            await repository.finish(
                connection, delivery.id, DeliveryStatus.FAILED, history=history, answer=outcome.answer
            )
        else:
            await repository.put_off(connection, delivery.id, next_at, history=history, answer=outcome.answer)
        if endpoint is None or not endpoint.is_in_use:
            return
        await repository.note_failure(connection, endpoint.id)
        since = endpoint.failing_since
        if outcome.is_gone:
            await self._disable(connection, endpoint, DisabledReason.GONE)
        elif since is not None and (at - since).total_seconds() >= FAILING_AT_MOST_S:
            await self._disable(connection, endpoint, DisabledReason.FAILING)

    def _count(self, connection: Connection, ending: str, outcome: Outcome) -> None:
        self._database.once_committed(
            connection, partial(self._instruments.tried, ending, outcome.duration_ms)
        )

    async def _disable(self, connection: Connection, endpoint: Endpoint, reason: DisabledReason) -> None:
        LOG.warning("webhook_endpoint.disabled", endpoint_id=endpoint.id, reason=reason.value)
        await repository.disable(connection, endpoint.id, reason)
        await repository.give_up_all(connection, endpoint.id)
        await repository.tell_operators(connection, new_id("audit"), endpoint.id, reason)

    async def _stop(self) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(set(self._running), timeout=_STOP_WITHIN_S)
        held = [self._running[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        try:
            async with self._database.transaction() as connection:
                for delivery in held:
                    await repository.give_back(connection, delivery.id, claims=delivery.claims)
        except StoreUnavailable as exc:
            LOG.warning("webhooks.not_given_back", reason=str(exc))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _shown(answer: bytes) -> str:
    """The start of an answer as text; what is no text, or no database keeps, is replaced, and so are secrets.

    A receiver may say back what it was sent, and a job's links open its pictures.
    """
    return _REDACTION.text(answer[:ANSWER_BYTES].decode("utf-8", "replace").replace("\x00", "�"))


def _entry(at_s: int, outcome: Outcome) -> JsonObject:
    return {
        "at": at_s,
        "status": outcome.status,
        "error": outcome.error,
        "duration_ms": outcome.duration_ms,
    }
