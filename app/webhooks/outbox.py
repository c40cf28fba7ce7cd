"""Writes the end of a job into the outbox, in the transaction that ends it: told at least once, or never happened."""

from typing import Final
from urllib.parse import urlsplit

from app.db.connection import Connection
from app.kit.ids import new_id
from app.webhooks import repository
from app.webhooks.records import EventType
from app.webhooks.schedule import SPAN_S

_EVENT: Final = "evt"
_DELIVERY: Final = "whd"


async def write_end(
    connection: Connection, *, job_id: str, team_id: str, status: str, webhook_url: str | None
) -> None:
    """Write down that a job ended, for the URL of its request and for each endpoint of its team that wants to know.

    Nothing is written where nobody does, or when the job's end is written already. `status` is the job's final one.
    """
    event = EventType(f"job.{status}")
    receivers: list[dict[str, str | None]] = [
        {"endpoint_id": endpoint.id, "url": endpoint.url, "receiver": endpoint.id}
        for endpoint in await repository.subscribed(connection, team_id, event)
    ]
    if webhook_url is not None:
        receivers.append({"endpoint_id": None, "url": webhook_url, "receiver": receiver_of(webhook_url)})
    if not receivers:
        return
    event_id = new_id(_EVENT)
    is_new = await repository.insert_event(
        connection, event_id=event_id, job_id=job_id, team_id=team_id, event=event
    )
    if is_new:
        rows = [
            {"id": new_delivery_id(), "event_id": event_id, "job_id": job_id, "team_id": team_id, **receiver}
            for receiver in receivers
        ]
        await repository.insert_deliveries(connection, rows, span_s=SPAN_S)


def new_delivery_id() -> str:
    """Return a fresh id of a delivery."""
    return new_id(_DELIVERY)


def receiver_of(url: str) -> str:
    """Whose load a request's URL adds to: its origin, as it is written."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
