"""`POST /v1/images/generations`: pictures from a prompt."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Answers
from app.api.authentication import caller_of
from app.api.bodies import MAX_JSON_BYTES, read_json_object
from app.api.calls import fingerprint_of, read_options
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


def router(
    jobs: JobService, answers: Answers, catalog: CurrentCatalog, *, max_body_bytes: int = MAX_JSON_BYTES
) -> APIRouter:
    """Build the endpoint. A body is bounded by `MAX_JSON_BYTES` as well, whatever is taken elsewhere."""
    routes = APIRouter(tags=["images"], dependencies=[BEARER])

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
        document = await read_json_object(request, max_bytes=min(max_body_bytes, MAX_JSON_BYTES))
        fields = Fields(document)
        options = read_options(request, fields)
        wanted = read_generation(fields)
        announce(request, catalog.get().model(wanted.model))
        fingerprint = fingerprint_of("POST", _PATH, document)
        submitted = await jobs.submit(options.submission(caller_of(request), wanted, fingerprint))
        return answers.to_call(submitted, options)

    return routes
