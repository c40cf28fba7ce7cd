"""`/admin/v1/upstreams`: how each vendor's account stands, and the operator's word on whether it is asked."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.admin.audit import Audit
from app.admin.errors import UpstreamNotFound
from app.admin.parameters import CHECKED_ACT, read_fields, read_flag, read_page, refuse_rest
from app.admin.rendering import seconds
from app.admin.schemas import ADMIN_BEARER, DRY_RUN, PAGE, body
from app.api.schemas import ERRORS, query
from app.catalog.current import CurrentCatalog
from app.catalog.entries import Catalog, Upstream
from app.domain.errors import InvalidValue
from app.jobs.routes import Health, Routes
from app.kit.json import JsonObject
from app.routing.health import WHOLE, UpstreamState, breaker

_SWITCHES: Final = {"enable": "on", "disable": "off", "drain": "draining"}
_ACTIONS: Final = {"enable": "upstream.enabled", "disable": "upstream.disabled", "drain": "upstream.drained"}
_ONE_MODEL: Final = "Only this model, by its public name or the upstream's own."


class UpstreamPart(BaseModel):
    """What of an upstream is meant."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"model": "gpt-image-2"}})

    model: str | None = Field(None, min_length=1, description=f"{_ONE_MODEL} All of it unless one is given.")


_NAMED: Final[dict[str, Any]] = {
    **body(UpstreamPart),
    "parameters": [query("model", f"As in the body: {_ONE_MODEL.lower()}", {"type": "string"}), DRY_RUN],
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The upstream as it stands now."}}


def router(routing: Routes, current: CurrentCatalog, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/upstreams",
        tags=["upstreams"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    async def documents(upstreams: Sequence[Upstream]) -> list[JsonObject]:
        health, at = await routing.health([item.name for item in upstreams])
        catalog = current.get()
        return [
            _document(item, catalog, health[item.name], at, missing=routing.missing_key(item))
            for item in upstreams
        ]

    @routes.get(
        "",
        summary="List upstreams",
        openapi_extra={"parameters": PAGE},
        responses={200: {"description": "A page of upstreams, in the catalog's order."}},
    )
    async def search(request: Request) -> Response:
        """List the upstreams of the catalog in force, with their health; `after` is a name."""
        after, limit = read_page(request)
        known = current.get().upstreams
        if after is not None and after not in known:
            raise UpstreamNotFound(f"There is no upstream {after!r}.", param="after")
        rest = list(known.values())[0 if after is None else list(known).index(after) + 1 :]
        data = await documents(rest[:limit])
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "has_more": len(rest) > limit,
                "first_id": data[0]["name"] if data else None,
                "last_id": data[-1]["name"] if data else None,
            }
        )

    @routes.get("/{name}", summary="Look at an upstream", responses=_ANSWER)
    async def show(_request: Request, name: str) -> Response:
        """Look at an upstream and its models."""
        return JSONResponse((await documents([_upstream(current.get(), name)]))[0])

    async def turn(request: Request, name: str, verb: str) -> Response:
        upstream = _upstream(current.get(), name)
        models = _models(current.get(), upstream, await _model_named(request))
        if read_flag(request, "dry_run"):
            (now,) = await documents([upstream])
            would: JsonObject = {
                "switch": _SWITCHES[verb],
                "models": sorted(models or ()) or None,
                "calls_that_end_first": now["in_flight"],
            }
            return JSONResponse({**now, "dry_run": True, "would": would})
        witness = audit.witness(request, _ACTIONS[verb], subject=lambda _: name, render=_states)
        await routing.turn(name, models, _SWITCHES[verb], witness=witness)
        return JSONResponse((await documents([upstream]))[0])

    @routes.post("/{name}/enable", summary="Ask an upstream again", openapi_extra=_NAMED, responses=_ANSWER)
    async def enable(request: Request, name: str) -> Response:
        """Ask an upstream again. What is held against it stays; `reset` forgets it."""
        return await turn(request, name, "enable")

    @routes.post(
        "/{name}/disable", summary="Ask an upstream no more", openapi_extra=_NAMED, responses=_ANSWER
    )
    async def disable(request: Request, name: str) -> Response:
        """Send nothing more to an upstream. Calls in flight end, for they are paid for."""
        return await turn(request, name, "disable")

    @routes.post("/{name}/drain", summary="Let an upstream run dry", openapi_extra=_NAMED, responses=_ANSWER)
    async def drain(request: Request, name: str) -> Response:
        """Send nothing more to an upstream, in order to take it out once its calls have ended."""
        return await turn(request, name, "drain")

    @routes.post("/{name}/reset", summary="Close the breaker", openapi_extra=_NAMED, responses=_ANSWER)
    async def reset(request: Request, name: str) -> Response:
        """Forget an upstream's failures and absences, so that it is asked at once. The switch stays."""
        upstream = _upstream(current.get(), name)
        models = _models(current.get(), upstream, await _model_named(request))
        if read_flag(request, "dry_run"):
            (now,) = await documents([upstream])
            return JSONResponse({**now, "dry_run": True, "would": {"breaker": "closed"}})
        witness = audit.witness(request, "upstream.reset", subject=lambda _: name, render=_states)
        await routing.reset(name, models, witness=witness)
        return JSONResponse((await documents([upstream]))[0])

    return routes


async def _model_named(request: Request) -> str | None:
    """The model that an operator names, in the body or in the query; None: all of the upstream is meant.

    Raises:
        GatewayError: the body holds something else, or another model than the query.
    """
    fields = await read_fields(request)
    in_body, in_query = fields.text("model"), request.query_params.get("model")
    refuse_rest(fields, "model")
    if in_body is not None and in_query is not None and in_body != in_query:
        message = "Invalid 'model': the body and the query name different ones. Send one of them."
        raise InvalidValue(message, param="model")
    return in_query if in_body is None else in_body


def _upstream(catalog: Catalog, name: str) -> Upstream:
    upstream = catalog.upstreams.get(name)
    if upstream is None:
        known = ", ".join(catalog.upstreams)
        raise UpstreamNotFound(f"There is no upstream {name!r}. There are: {known}.", param="name")
    return upstream


def _remote_models(catalog: Catalog, upstream: Upstream) -> dict[str, list[str]]:
    """What an upstream calls its models -> the public names under which they are sold."""
    sold: dict[str, list[str]] = {}
    for model in catalog.models.values():
        for route in model.routes:
            if route.upstream.name == upstream.name:
                sold.setdefault(route.model, []).append(model.name)
    return sold


def _models(catalog: Catalog, upstream: Upstream, given: str | None) -> set[str] | None:
    """The upstream's own names of the model that an operator named; None when none was."""
    if given is None:
        return None
    sold = _remote_models(catalog, upstream)
    public = catalog.names.get(given)
    found = {remote for remote, names in sold.items() if remote == given or public in names}
    if not found:
        known = ", ".join(sold) or "none"
        message = f"The upstream {upstream.name!r} sells no model {given!r}. It sells: {known}."
        raise UpstreamNotFound(message, param="model")
    return found


def _document(
    upstream: Upstream, catalog: Catalog, health: Health, at: datetime, *, missing: str | None
) -> JsonObject:
    states = {item.model: item for item in health.states}
    parts = urlsplit(upstream.base_url)
    sold = _remote_models(catalog, upstream)
    models: list[JsonObject] = [
        {"model": remote, "serves": list(names), **_health(states.get(remote), at)}
        for remote, names in sold.items()
    ]
    return {
        "name": upstream.name,
        "adapter": upstream.adapter,
        "base_url": f"{parts.scheme}://{parts.netloc}",
        "key": {"variable": upstream.api_key_env, "is_missing": missing is not None},
        **_health(states.get(WHOLE), at),
        "in_flight": health.in_flight,
        "last_minute": {"requests": health.calls_last_minute, "images": health.pictures_last_minute},
        "limits": {
            "max_concurrency": upstream.max_concurrency,
            "requests_per_minute": upstream.requests_per_minute,
            "images_per_minute": upstream.images_per_minute,
            "timeout_s": upstream.timeout_s,
        },
        "models": [dict(item) for item in models],
    }


def _health(state: UpstreamState | None, at: datetime) -> JsonObject:
    if state is None:
        return {
            "switch": "on",
            "breaker": breaker(state, at),
            "failures": 0,
            "ejections": 0,
            "away_until": None,
            "away_for": None,
        }
    is_away = state.away_until is not None and state.away_until > at
    return {
        "switch": state.switch,
        "breaker": breaker(state, at),
        "failures": state.failures,
        "ejections": state.ejections,
        "away_until": seconds(state.away_until) if is_away else None,
        "away_for": state.away_for if is_away else None,
    }


def _states(states: Sequence[UpstreamState]) -> JsonObject:
    """What the audit log keeps of an upstream: each row that there is, by model (`*`: the whole upstream)."""
    return {
        item.model or "*": {
            "switch": item.switch,
            "failures": item.failures,
            "ejections": item.ejections,
            "away_until": seconds(item.away_until),
            "away_for": item.away_for,
        }
        for item in states
    }
