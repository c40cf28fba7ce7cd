"""Events, endpoints and deliveries as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.kit.json import JsonObject


class EventType(StrEnum):
    """What receivers are told: how a job ended (contract 8)."""

    SUCCEEDED = "job.succeeded"
    """At least one picture was delivered."""
    FAILED = "job.failed"
    """No picture in time."""
    CANCELLED = "job.cancelled"
    """Its client, or an operator, gave it up."""
    EXPIRED = "job.expired"
    """Its deadline came before any worker did. The deletion of old pictures is no event."""


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    """It will be tried, or tried again."""
    SUCCEEDED = "succeeded"
    """The receiver answered 2xx."""
    FAILED = "failed"
    """It is given up; operators can send it again."""


class DisabledReason(StrEnum):
    """Why nothing more is sent to an endpoint."""

    GONE = "gone"
    """It answered 410."""
    FAILING = "failing"
    """It has only failed for days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of `webhook_events`."""

    id: str
    job_id: str
    team_id: str
    type: EventType
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One row of `webhook_endpoints`."""

    id: str
    team_id: str
    url: str
    events: tuple[EventType, ...]
    created_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None
    deleted_at: datetime | None

    @property
    def is_in_use(self) -> bool:
        """Whether anything is sent there."""
        return self.disabled_at is None and self.deleted_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One row of `webhook_deliveries`, with the type of its event."""

    id: str
    event_id: str
    event_type: EventType
    team_id: str
    job_id: str
    endpoint_id: str | None
    """None: to the URL that came with the request."""
    url: str
    receiver: str
    """Whose tries are counted together: an endpoint's id, or the origin of a request's URL."""
    resent_from: str | None
    status: DeliveryStatus
    created_at: datetime
    next_at: datetime
    ends_at: datetime
    claims: int
    lease_until: datetime | None
    tries: int
    history: Sequence[JsonObject]
    answer: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery that this process is to try now, with the database's time of the claim."""

    delivery: Delivery
    event: Event
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one try."""

    status: int | None
    """Of the answer; None when there was none."""
    error: str | None
    """A word or two when there was no answer; never an address."""
    answer: str | None
    """The start of the answer's body."""
    retry_after_s: float | None
    """How long the receiver asks to be left alone."""
    duration_ms: int

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken the event; a redirect is not followed."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing more."""
        return self.status == 410


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """One row of `webhook_secrets`."""

    id: str
    team_id: str
    sealed: bytes
    shown_at: datetime | None
    """When an operator saw it; None while nobody has."""


def endpoint_from(row: Mapping[str, Any]) -> Endpoint:
    """Read a row of `webhook_endpoints`."""
    values = {name: row[name] for name in Endpoint.__slots__ if name not in ("events", "disabled_reason")}
    reason = row["disabled_reason"]
    return Endpoint(
        **values,
        events=tuple(EventType(item) for item in row["events"]),
        disabled_reason=None if reason is None else DisabledReason(reason),
    )


def delivery_from(row: Mapping[str, Any]) -> Delivery:
    """Read a row of `webhook_deliveries`, joined with its event's type."""
    values = {name: row[name] for name in Delivery.__slots__ if name not in ("status", "event_type")}
    return Delivery(**values, status=DeliveryStatus(row["status"]), event_type=EventType(row["event_type"]))


def event_from(row: Mapping[str, Any]) -> Event:
    """Read a row of `webhook_events`."""
    values = {name: row[name] for name in Event.__slots__ if name != "type"}
    return Event(**values, type=EventType(row["type"]))
