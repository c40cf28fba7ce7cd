"""`POST /v1/images/generations`: pictures from a prompt."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Answers
from app.api.authentication import caller_of
from app.api.bodies import MAX_JSON_BYTES, read_json_object
from app.api.calls import fingerprint_of, read_options
from app.api.forms import FormLimits
from app.api.parameters import Fields, read_generation
from app.api.retirement import announce
from app.api.schemas import (
    BEARER,
    CALL_PARAMETERS,
    ERRORS,
    EVENTS,
    AcceptedJob,
    GenerationRequest,
    ImagesResponse,
    schema_of,
)
from app.catalog.current import CurrentCatalog
from app.jobs.service import JobService

_PATH: Final = "/v1/images/generations"
_DOCUMENTATION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": schema_of(GenerationRequest)}},
    },
    "parameters": CALL_PARAMETERS,
}


def router(jobs: JobService, answers: Answers, limits: FormLimits, catalog: CurrentCatalog) -> APIRouter:
    """Build the endpoint; of `limits`, only those of a whole body matter to one without pictures."""
    routes = APIRouter(tags=["images"], dependencies=[BEARER])
    max_bytes = min(MAX_JSON_BYTES, limits.total_bytes)

    @routes.post(
        _PATH,
        summary="Make pictures from a prompt",
        openapi_extra=_DOCUMENTATION,
        responses={
            200: {"model": ImagesResponse, "content": EVENTS, "description": "The pictures."},
            202: {"model": AcceptedJob, "description": "The job, when the call is asynchronous."},
            **ERRORS,
        },
    )
    async def generate(request: Request) -> Response:
        """Make pictures. A synchronous call is held until they are there; the job survives a lost connection."""
        document = await read_json_object(request, max_bytes=max_bytes)
        fields = Fields(document)
        options = read_options(request, fields)
        wanted = read_generation(fields)
        announce(request, catalog.get().model(wanted.model))
        fingerprint = fingerprint_of("POST", _PATH, document)
        submitted = await jobs.submit(options.submission(caller_of(request), wanted, fingerprint))
        return answers.to_call(submitted, options)

    return routes
