"""`/admin/v1/webhooks`: who is told of the ends of jobs, what is signed with, and what became of each delivery."""

from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.admin.audit import Audit
from app.admin.parameters import (
    CHECKED_ACT,
    check_order,
    read_document,
    read_fields,
    read_flag,
    read_moment,
    read_page,
    refuse_rest,
)
from app.admin.rendering import listing, seconds
from app.admin.schemas import ADMIN_BEARER, DRY_RUN, PAGE, Moment, answer, body
from app.api import queries
from app.api.parameters import Fields
from app.api.schemas import ERRORS, query
from app.domain.errors import InvalidValue, MissingParameter
from app.kit.json import Json, JsonObject
from app.webhooks.records import Delivery, DeliveryStatus, Endpoint, EventType
from app.webhooks.service import Replayed, Webhooks
from app.webhooks.vault import OVERLAP_S, Rotation, Vault

_ANY: Final = "any"
_EVENTS: Final = tuple(item.value for item in EventType)
_STATUSES: Final = tuple(item.value for item in DeliveryStatus)
_SECRET: Final = {"cache-control": "no-store"}
"""No cache on the way keeps a secret."""


class NewEndpoint(BaseModel):
    """An endpoint to create."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"team_id": "default", "url": "https://203.0.113.7/pictures"}},
    )

    team_id: str = Field(min_length=1)
    url: str = Field(min_length=1, description="A public http or https URL.")
    events: list[EventType] | None = Field(None, description="What to tell; everything unless it is given.")


class EndpointObject(BaseModel):
    """Where a team is told of the ends of its jobs."""

    id: str
    team_id: str
    url: str
    events: list[EventType]
    status: str = Field(description="`enabled` or `disabled`.")
    disabled_at: int | None
    disabled_reason: str | None = Field(description="`gone`: it answered 410; `failing`: for days.")
    failing_since: int | None
    created_at: int


class CreatedEndpoint(EndpointObject):
    """An endpoint just made."""

    secret: str | None = Field(
        description="The team's secret, shown this once; null when it has been shown before."
    )


class SecretRotation(BaseModel):
    """How to rotate a team's secret."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"team_id": "default"}})

    team_id: str = Field(min_length=1)
    overlap_s: float | None = Field(
        None, ge=0, le=OVERLAP_S, description="How long the old one signs beside the new; a day unless given."
    )


class ShownSecret(BaseModel):
    """A team's new secret."""

    team_id: str
    secret: str = Field(description="`whsec_…`, shown this once.")
    previous_expires_at: int | None = Field(description="When the old one signs no more.")


class DeliveryObject(BaseModel):
    """An event on its way to one receiver."""

    id: str
    event_id: str = Field(description="The `webhook-id` that the receiver sees, the same on every try.")
    event: EventType
    team_id: str
    job_id: str
    endpoint_id: str | None = Field(description="Null: to the `webhook_url` of the request.")
    url: str
    status: DeliveryStatus
    resent_from: str | None
    created_at: int
    next_try_at: int | None
    finished_at: int | None
    tries: list[dict[str, Any]] = Field(description="`{at, status, error, duration_ms}`, oldest first.")
    answer: str | None = Field(description="The start of the last answer's body.")


class Replay(BaseModel):
    """Which events to send again."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"from": "2027-01-30T00:00:00Z", "to": "2027-01-31T00:00:00Z"}},
    )

    since: Moment = Field(alias="from", description="Unix seconds, or ISO 8601 with its zone.")
    to: Moment
    team_id: str | None = None
    status: Literal["failed", "succeeded", "any"] | None = Field(None, description="`failed` unless given.")


def router(webhooks: Webhooks, vault: Vault, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/webhooks",
        tags=["webhooks"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    @routes.post(
        "/endpoints",
        summary="Tell a URL of the ends of a team's jobs",
        status_code=201,
        openapi_extra=body(NewEndpoint),
        responses=answer(CreatedEndpoint, "The new endpoint.", 201),
    )
    async def create(request: Request) -> Response:
        """Create an endpoint; the URL must be reachable from outside."""
        document = await read_document(request)
        events = _events(document.pop("events", None))
        fields = Fields(document)
        team_id, url = fields.required_text("team_id"), fields.required_text("url")
        refuse_rest(fields, "team_id", "url", "events")
        endpoint, secret = await webhooks.create_endpoint(
            team_id,
            url,
            events,
            witness=audit.witness(request, "webhook_endpoint.created", subject=_id_of, render=_endpoint),
        )
        document = {**_endpoint(endpoint), "secret": secret}
        return JSONResponse(document, status_code=201, headers=_SECRET)

    @routes.get(
        "/endpoints",
        summary="List endpoints, newest first",
        openapi_extra={"parameters": [query("team_id", "Only of this team.", {"type": "string"}), *PAGE]},
        responses={200: {"description": "A page of endpoints."}},
    )
    async def list_endpoints(request: Request) -> Response:
        """List endpoints, disabled ones too."""
        after, limit = read_page(request)
        team_id = request.query_params.get("team_id")
        found, has_more = await webhooks.list_endpoints(team_id, after=after, limit=limit)
        return JSONResponse(listing(found, has_more, _endpoint))

    @routes.get(
        "/endpoints/{endpoint_id}",
        summary="Look at an endpoint",
        responses=answer(EndpointObject, "The endpoint."),
    )
    async def show_endpoint(_request: Request, endpoint_id: str) -> Response:
        """Look at an endpoint."""
        return JSONResponse(_endpoint(await webhooks.find_endpoint(endpoint_id)))

    @routes.post(
        "/endpoints/{endpoint_id}/enable",
        summary="Send to a disabled endpoint again",
        responses=answer(EndpointObject, "The endpoint as it is now."),
    )
    async def enable(request: Request, endpoint_id: str) -> Response:
        """Send to an endpoint again that was disabled; what it missed is sent by a replay."""
        witness = audit.witness(request, "webhook_endpoint.enabled", subject=_id_of, render=_endpoint)
        return JSONResponse(_endpoint(await webhooks.enable_endpoint(endpoint_id, witness=witness)))

    @routes.delete(
        "/endpoints/{endpoint_id}",
        summary="Send nothing more to an endpoint",
        openapi_extra={"parameters": [DRY_RUN]},
        responses=answer(EndpointObject, "The endpoint, and how many deliveries were given up."),
    )
    async def delete(request: Request, endpoint_id: str) -> Response:
        """Delete an endpoint; deliveries that wait for it are given up."""
        if read_flag(request, "dry_run"):
            endpoint = await webhooks.find_endpoint(endpoint_id)
            waiting = await webhooks.count_pending(endpoint_id)
            return JSONResponse({**_endpoint(endpoint), "dry_run": True, "given_up": waiting})
        witness = audit.witness(request, "webhook_endpoint.deleted", subject=_id_of, render=_endpoint)
        endpoint, given_up = await webhooks.delete_endpoint(endpoint_id, witness=witness)
        return JSONResponse({**_endpoint(endpoint), "status": "deleted", "given_up": given_up})

    @routes.post(
        "/secrets/rotate",
        summary="Give a team a new secret",
        status_code=201,
        openapi_extra={**body(SecretRotation), "parameters": [DRY_RUN]},
        responses={
            200: {"description": "With `dry_run`: when the secret that signs now would end."},
            **answer(ShownSecret, "The new secret.", 201),
        },
    )
    async def rotate(request: Request) -> Response:
        """Make a secret and show it this once; the old one signs beside it until the overlap is over."""
        fields = await read_fields(request)
        team_id = fields.required_text("team_id")
        overlap_s = fields.number("overlap_s")
        refuse_rest(fields, "team_id", "overlap_s")
        if overlap_s is None:
            overlap_s = OVERLAP_S
        if not 0 <= overlap_s <= OVERLAP_S:
            message = f"Invalid 'overlap_s': expected seconds from 0 to {OVERLAP_S:g}, but got {overlap_s:g}."
            raise InvalidValue(message, param="overlap_s")
        if read_flag(request, "dry_run"):
            ends_at = await vault.check_rotation(team_id, overlap_s=overlap_s)
            would: JsonObject = {"previous_expires_at": seconds(ends_at)}
            return JSONResponse({"team_id": team_id, "dry_run": True, "would": would})
        witness = audit.witness(request, "webhook_secret.rotated", subject=_team_of, render=_rotation)
        rotation, secret = await vault.rotate(team_id, overlap_s=overlap_s, witness=witness)
        document = {
            "team_id": team_id,
            "secret": secret,
            "previous_expires_at": seconds(rotation.previous_ends_at),
        }
        return JSONResponse(document, status_code=201, headers=_SECRET)

    @routes.get(
        "/deliveries",
        summary="List deliveries, newest first",
        openapi_extra={
            "parameters": [
                query("team_id", "Only of this team's jobs.", {"type": "string"}),
                query("job_id", "Only of this job.", {"type": "string"}),
                query("status", "Only in this status.", {"type": "string", "enum": [*_STATUSES]}),
                *PAGE,
            ]
        },
        responses={200: {"description": "A page of deliveries."}},
    )
    async def list_deliveries(request: Request) -> Response:
        """List deliveries with every try, and the start of the receiver's last answer."""
        after, limit = read_page(request)
        status = queries.word(request, "status", _STATUSES)
        found, has_more = await webhooks.list_deliveries(
            team_id=request.query_params.get("team_id"),
            job_id=request.query_params.get("job_id"),
            status=None if status is None else DeliveryStatus(status),
            after=after,
            limit=limit,
        )
        return JSONResponse(listing(found, has_more, _delivery))

    @routes.get(
        "/deliveries/{delivery_id}",
        summary="Look at a delivery",
        responses=answer(DeliveryObject, "The delivery."),
    )
    async def show_delivery(_request: Request, delivery_id: str) -> Response:
        """Look at a delivery."""
        return JSONResponse(_delivery(await webhooks.find_delivery(delivery_id)))

    @routes.post(
        "/deliveries/replay",
        summary="Send the events of a range of time again",
        openapi_extra={**body(Replay), "parameters": [DRY_RUN]},
        responses={200: {"description": "How many are sent again."}},
    )
    async def replay(request: Request) -> Response:
        """Send events again, to each receiver in use whose last delivery failed, or ended as `status` says."""
        document = await read_document(request)
        moments = [read_moment(document.pop(name, None), name) for name in ("from", "to")]
        since, until = moments
        fields = Fields(document)
        team_id = fields.text("team_id")
        status = fields.word("status", ("failed", "succeeded", _ANY)) or "failed"
        refuse_rest(fields, "from", "to", "team_id", "status")
        if since is None or until is None:
            missing = "from" if since is None else "to"
            raise MissingParameter(f"Missing required parameter: '{missing}'.", param=missing)
        check_order(since, until)
        is_dry = read_flag(request, "dry_run")
        witness = audit.witness(
            request, "webhook_deliveries.replayed", subject=lambda _: team_id or _ANY, render=_replayed
        )
        replayed = await webhooks.replay(
            since,
            until,
            team_id=team_id,
            status=None if status == _ANY else DeliveryStatus(status),
            is_dry=is_dry,
            witness=witness,
        )
        return JSONResponse({**_replayed(replayed), **({"dry_run": True} if is_dry else {})})

    @routes.post(
        "/deliveries/{delivery_id}/resend",
        summary="Send an event to its receiver again",
        status_code=201,
        openapi_extra={"parameters": [DRY_RUN]},
        responses={
            200: {"description": "With `dry_run`: the delivery, whose event could be sent again."},
            **answer(DeliveryObject, "The new delivery, of the same event.", 201),
        },
    )
    async def resend(request: Request, delivery_id: str) -> Response:
        """Send the event of a delivery to the same receiver again, under the same id, with tries of its own."""
        if read_flag(request, "dry_run"):
            delivery = await webhooks.check_resend(delivery_id)
            would: JsonObject = {"event_id": delivery.event_id, "url": delivery.url}
            return JSONResponse({**_delivery(delivery), "dry_run": True, "would": would})
        witness = audit.witness(
            request, "webhook_delivery.resent", subject=lambda _: delivery_id, render=_summary
        )
        again = await webhooks.resend(delivery_id, witness=witness)
        return JSONResponse(_delivery(again), status_code=201)

    return routes


def _events(value: Json) -> list[EventType]:
    if value is None:
        return list(EventType)
    if not isinstance(value, list) or not value or any(item not in _EVENTS for item in value):
        message = f"Invalid 'events': expected a list of at least one of {', '.join(_EVENTS)}."
        raise InvalidValue(message, param="events")
    return [item for item in EventType if item.value in value]


def _endpoint(endpoint: Endpoint) -> JsonObject:
    return {
        "id": endpoint.id,
        "team_id": endpoint.team_id,
        "url": endpoint.url,
        "events": [item.value for item in endpoint.events],
        "status": "enabled" if endpoint.is_in_use else "disabled",
        "disabled_at": seconds(endpoint.disabled_at),
        "disabled_reason": None if endpoint.disabled_reason is None else endpoint.disabled_reason.value,
        "failing_since": seconds(endpoint.failing_since),
        "created_at": seconds(endpoint.created_at),
    }


def _delivery(delivery: Delivery) -> JsonObject:
    is_pending = delivery.status is DeliveryStatus.PENDING
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event": delivery.event_type.value,
        "team_id": delivery.team_id,
        "job_id": delivery.job_id,
        "endpoint_id": delivery.endpoint_id,
        "url": delivery.url,
        "status": delivery.status.value,
        "resent_from": delivery.resent_from,
        "created_at": seconds(delivery.created_at),
        "next_try_at": seconds(delivery.next_at) if is_pending else None,
        "finished_at": seconds(delivery.finished_at),
        "tries": list(delivery.history),
        "answer": delivery.answer,
    }


def _summary(delivery: Delivery) -> JsonObject:
    return {name: getattr(delivery, name) for name in ("id", "event_id", "team_id", "job_id", "endpoint_id")}


def _rotation(rotation: Rotation) -> JsonObject:
    return {"secret_id": rotation.secret_id, "previous_expires_at": seconds(rotation.previous_ends_at)}


def _replayed(replayed: Replayed) -> JsonObject:
    return {"from": seconds(replayed.since), "to": seconds(replayed.until), "resent": replayed.count}


def _id_of(endpoint: Endpoint) -> str:
    return endpoint.id


def _team_of(rotation: Rotation) -> str:
    return rotation.team_id
