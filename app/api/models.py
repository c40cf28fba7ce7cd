"""`/v1/models`: what can be asked for, who makes it, and at what price."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.accounts.limits import AccountLimits, Terms
from app.api import queries
from app.api.authentication import caller_of
from app.api.retirement import announce
from app.api.schemas import BEARER, ERRORS, ModelList, ModelObject, query
from app.catalog.current import CurrentCatalog
from app.catalog.entries import Catalog, Model, Route
from app.domain.errors import ModelNotFound
from app.domain.pictures import Size
from app.jobs.admission import known_model
from app.jobs.routes import RouteHealth, Routes
from app.routing.plan import Pair

_MAX_PAGE: Final = 10_000
_PAGES: Final[dict[str, Any]] = {
    "parameters": [
        # Stock SDKs ask once, and take what comes for everything.
        query("limit", "Models in one page; without it, all.", {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE}),
        query("after", "The last model of the page before.", {"type": "string", "minLength": 1}),
    ]
}  # fmt: skip


def router(catalog: CurrentCatalog, upstreams: Routes, limits: AccountLimits | None = None) -> APIRouter:
    """Build the endpoints; with `limits`, a caller sees only the models that it may use."""
    routes = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[BEARER], responses=ERRORS)

    @routes.head("", include_in_schema=False)
    @routes.head("/", include_in_schema=False)
    @routes.get("/", include_in_schema=False)
    @routes.get(
        "",
        summary="List models",
        openapi_extra=_PAGES,
        responses={200: {"model": ModelList, "description": "The models of the catalog, in its order."}},
    )
    async def search(request: Request) -> Response:
        """List the models of the catalog that the caller may use: all of them, unless `limit` asks for pages."""
        limit = queries.integer(request, "limit", default=_MAX_PAGE, low=1, high=_MAX_PAGE)
        following = _following(catalog.get(), request.query_params.get("after"))
        terms = await terms_of(request)
        models = [item for item in following if terms is None or terms.allows(item.name)]
        page = models[:limit]
        health = await upstreams.survey(page)
        return JSONResponse(
            {
                "object": "list",
                "data": [model_object(model, health) for model in page],
                "has_more": len(models) > limit,
                "first_id": page[0].name if page else None,
                "last_id": page[-1].name if page else None,
            }
        )

    @routes.head("/{model_id:path}", include_in_schema=False)
    @routes.get(
        "/{model_id:path}",
        summary="Look at a model",
        responses={200: {"model": ModelObject, "description": "The model."}},
    )
    async def show(request: Request, model_id: str) -> Response:
        """Look at a model, under its name or an alias."""
        model = known_model(catalog.get(), model_id)
        terms = await terms_of(request)
        if terms is not None:
            terms.check_model(model.name)
        announce(request, model)
        return JSONResponse(model_object(model, await upstreams.survey([model])))

    async def terms_of(request: Request) -> Terms | None:
        caller = caller_of(request)
        return None if limits is None else await limits.terms(caller.team_id, caller.api_key_id)

    return routes


def _following(catalog: Catalog, after: str | None) -> list[Model]:
    """The models that stand after this one in the catalog; all of them without it.

    Raises:
        ModelNotFound: there is no such model.
    """
    models = list(catalog.models.values())
    if after is None:
        return models
    last = catalog.model(after)
    if last is None:
        raise ModelNotFound(f"The model {after!r} does not exist here, so nothing follows it.", param="after")
    return models[models.index(last) + 1 :]


def model_object(model: Model, health: Mapping[Pair, RouteHealth] | None = None) -> dict[str, object]:
    """OpenAI's model object, and under `darkroom` what is known of the model here, each route's health if given."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "shutdown_date": None if model.shutdown_date is None else model.shutdown_date.isoformat(),
        "darkroom": {
            "aliases": list(model.aliases),
            "capabilities": _document(asdict(model.capabilities)),
            "routing": _document(asdict(model.routing)),
            "routes": [
                _route(route) | _health((health or {}).get((route.upstream.name, route.model)))
                for route in model.routes
            ],
        },
    }


def _route(route: Route) -> dict[str, object]:
    return {
        "upstream": route.upstream.name,
        "model": route.model,
        "weight": route.weight,
        "supports": _document(asdict(route.supports)),
        # USD as decimal strings; null where nothing is known, which is not the same as free.
        "prices": _document(asdict(route.prices)) if route.prices.is_known else None,
    }


def _health(health: RouteHealth | None) -> dict[str, object]:
    if health is None:
        return {}
    standing, measure = health.standing, health.measure
    away_until = None if standing is None else standing.retry_at
    return {
        "health": {
            "state": "ready" if standing is None else standing.absence.value,
            "reason": None if standing is None else standing.reason,
            "away_until": None if away_until is None else int(away_until.timestamp()),
        },
        # Of the last hour, newer attempts counting more; null where there were none.
        "latency_s": None if measure is None or measure.latency_s is None else round(measure.latency_s, 3),
        "success_rate": None if measure is None else round(measure.success_rate, 4),
        "attempts": 0 if measure is None else measure.attempts,
    }


def _document(value: Any) -> Any:
    """Write a catalog entry as JSON: decimals exactly, sizes as `WIDTHxHEIGHT`."""
    match value:
        case Size():
            return str(value)
        case Decimal():
            return format(value, "f")
        case Enum():
            return value.value
        case date():
            return value.isoformat()
        case Mapping():
            return {name: _document(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_document(inner) for inner in value]
        case _:
            return value
