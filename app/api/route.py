"""`POST /v1/images/route`: what would become of a request, by the same decision that its job would be given.

Nothing is fetched, bought or written.
"""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.api.authentication import caller_of
from app.api.calls import read_options
from app.api.edits import read_edit_json
from app.api.errors import error_document, problem_of
from app.api.forms import FormLimits
from app.api.intake import read_picture_json
from app.api.parameters import Fields, read_edit, read_generation
from app.api.retirement import announce
from app.api.schemas import BEARER, ERRORS, GenerationRequest, RouteAnswer, schema_of
from app.assets.inputs import Inputs
from app.catalog.current import CurrentCatalog
from app.domain.money import usd
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture
from app.jobs.admission import Explanation
from app.jobs.service import JobService
from app.routing.plan import Candidate, LeftOut

_PATH: Final = "/v1/images/route"

_DOCUMENTATION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    **schema_of(GenerationRequest),
                    "description": "The JSON body of a generation, or of an edit with its `images` and `mask`.",
                }
            }
        },
    },
}


def router(jobs: JobService, inputs: Inputs, limits: FormLimits, catalog: CurrentCatalog) -> APIRouter:
    """Build the endpoint."""
    routes = APIRouter(tags=["images"], dependencies=[BEARER], responses=ERRORS)

    @routes.post(
        _PATH,
        summary="Ask who would make pictures",
        openapi_extra=_DOCUMENTATION,
        responses={200: {"model": RouteAnswer, "description": "Each route of the model, once."}},
    )
    async def explain(request: Request) -> Response:
        """Say which routes could serve a request, in their order and at what price, and why each other one could not.

        Takes the JSON body of a generation or of an edit. Input pictures are counted, not looked at.
        """
        caller = caller_of(request)
        with inputs.workspace() as folder:
            document = await read_picture_json(request, folder, limits)
            wanted = await asyncio.to_thread(_request_of, request, document, limits)
            announce(request, catalog.get().model(wanted.model))
        return JSONResponse(_document(await jobs.explain(wanted, caller.team_id, caller.api_key_id)))

    return routes


def _request_of(request: Request, document: dict[str, Any], limits: FormLimits) -> ImageRequest:
    """Read either body. What stands beside the picture is checked as it would be, and then of no interest."""
    is_edit = any(document.get(name) is not None for name in ("images", "mask"))
    if not is_edit:
        fields = Fields(document)
        read_options(request, fields)
        return read_generation(fields)
    wanted = read_edit_json(document, limits)
    fields = Fields(wanted.document)
    read_options(request, fields)
    mask = None if wanted.mask is None else _UNSEEN
    return read_edit(fields, (_UNSEEN,) * len(wanted.images), mask)


# Stands for a picture that nobody has looked at: whether it is a usable one, the call itself will find out.
_UNSEEN: Final = InputPicture(
    file_id="", format=PictureFormat.PNG, width_px=1, height_px=1, size_bytes=0, has_alpha=True
)


def _document(explanation: Explanation) -> dict[str, object]:
    plan, model = explanation.plan, explanation.model
    refusal = plan.refusal()
    return {
        "object": "image_route",
        "model": model.name,
        "operation": explanation.request.operation.value,
        "policy": model.routing.policy.value,
        "routes": [_candidate(item) for item in plan.candidates],
        "left_out": [_left_out(item) for item in plan.left_out],
        "error": None if refusal is None else error_document(problem_of(refusal))["error"],
    }


def _candidate(item: Candidate) -> dict[str, object]:
    return {
        "upstream": item.route.upstream.name,
        "model": item.route.model,
        "pictures_per_attempt": item.pictures,
        # Null is not free: the route has no price.
        "estimated_cost_usd": None if item.estimate_micros is None else usd(item.estimate_micros),
    }


def _left_out(item: LeftOut) -> dict[str, object]:
    return {
        "upstream": item.route.upstream.name,
        "model": item.route.model,
        "kind": item.absence.value,
        "reason": item.reason,
        "param": item.param,
        "retry_at": None if item.retry_at is None else int(item.retry_at.timestamp()),
    }
