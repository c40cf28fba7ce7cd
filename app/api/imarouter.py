"""`/v1/image/{model}/generate` and `/edit`: pictures by ImaRouter's API, in its camelCase and its words (contract 6).

Its jobs are polled at `/v1/jobs/{id}` like any other, and answered there in the same words. Source: upstreams.md 3.1
and 3.3, read 2026-11.
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask
from starlette.responses import Response

from app.api.answers import POLL_AFTER_S, repetition_headers
from app.api.authentication import caller_of
from app.api.calls import fingerprint_of, read_options
from app.api.delivery import noted
from app.api.errors import in_imarouters_words, problem_of_view
from app.api.forms import FormLimits
from app.api.intake import Intake, Source, canonical, linked, read_picture_json
from app.api.parameters import Fields
from app.api.rendering import Renderer, status_of
from app.api.retirement import announce
from app.api.schemas import (
    BEARER,
    IMAROUTER_ERRORS,
    JOB_HEADERS,
    ImaRouterAccepted,
    ImaRouterEdit,
    ImaRouterGeneration,
    schema_of,
)
from app.assets.inputs import Inputs
from app.catalog.current import CurrentCatalog
from app.catalog.entries import SizeRule
from app.domain.errors import InvalidValue, MissingParameter, UnknownParameter
from app.domain.money import MICROS_PER_USD
from app.domain.pictures import Size
from app.domain.requests import ImageRequest, Operation
from app.jobs.admission import known_model
from app.jobs.lifecycle import Status
from app.jobs.service import JobService, JobView
from app.jobs.submissions import Submitted
from app.kit.json import Json

DIALECT: Final = "imarouter"
"""Marks the jobs that came in here."""
PRESETS: Final = {
    "square_hd": Size(1024, 1024),
    "square": Size(512, 512),
    "portrait_4_3": Size(768, 1024),
    "portrait_16_9": Size(576, 1024),
    "landscape_4_3": Size(1024, 768),
    "landscape_16_9": Size(1024, 576),
}
"""What the names stand for, before a model's pixel floor."""
_STATUSES: Final = {
    Status.QUEUED: "queued",
    Status.IN_PROGRESS: "running",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "failed",
    Status.EXPIRED: "failed",
}
_OF_EDITS: Final = ("imageUrls", "maskUrl")


def router(
    jobs: JobService, renderer: Renderer, inputs: Inputs, limits: FormLimits, catalog: CurrentCatalog
) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/v1/image", tags=["imarouter"], dependencies=[BEARER], responses=IMAROUTER_ERRORS
    )
    accepted: dict[int | str, dict[str, Any]] = {200: {"model": ImaRouterAccepted, "description": "The job."}}

    @routes.post(
        "/{model:path}/generate",
        summary="Make pictures from a prompt",
        openapi_extra=_documentation(schema_of(ImaRouterGeneration)),
        responses=accepted,
    )
    async def generate(request: Request, model: str) -> Response:
        """Make pictures: the answer is a job, to be polled at `/v1/jobs/{id}`."""
        return await serve(request, model, Operation.GENERATION)

    @routes.post(
        "/{model:path}/edit",
        summary="Edit pictures",
        openapi_extra=_documentation(schema_of(ImaRouterEdit)),
        responses=accepted,
    )
    async def edit(request: Request, model: str) -> Response:
        """Make pictures from pictures: the answer is a job, to be polled at `/v1/jobs/{id}`."""
        return await serve(request, model, Operation.EDIT)

    async def serve(request: Request, model: str, operation: Operation) -> Response:
        caller = caller_of(request)
        with inputs.workspace() as folder:
            document = await read_picture_json(request, folder, limits)
            digests = await asyncio.to_thread(canonical, document)
            images, mask = await asyncio.to_thread(_sources, document, operation, limits)
            fields = Fields(document)
            webhook_url = fields.text("webhookUrl")
            wanted = _read(fields, model, operation, catalog)
            announce(request, catalog.get().model(wanted.model))
            # The body is ImaRouter's own; what it has no field for comes in headers.
            options = replace(read_options(request, Fields({"webhook_url": webhook_url})), is_async=True)
            fingerprint = fingerprint_of(
                "POST", request.scope["path"], digests if isinstance(digests, dict) else {}
            )
            async with aclosing(Intake(inputs, caller.team_id, folder)) as intake:
                taken, taken_mask = await intake.take(images, mask)
                submission = options.submission(
                    caller, replace(wanted, images=taken, mask=taken_mask), fingerprint
                )
                submitted = await intake.submit(jobs, replace(submission, dialect=DIALECT))
        headers = {
            **repetition_headers(submitted, options),
            "location": renderer.polling_url(submitted.job.id),
            "retry-after": str(POLL_AFTER_S),
            "x-darkroom-job-id": submitted.job.id,
        }
        told = BackgroundTask(noted, jobs.delivered, submitted.job.id)
        return JSONResponse(_accepted(submitted), headers=headers, background=told)

    return routes


def job_document(view: JobView, renderer: Renderer) -> dict[str, object]:
    """A job in ImaRouter's words, as `GET /v1/jobs/{id}` answers it."""
    status = status_of(view.job)
    is_without = view.job.status.is_final and status is not Status.SUCCEEDED
    problem = problem_of_view(view) if is_without else None
    result = view.job.result or {}
    made = view.pictures if status is Status.SUCCEEDED else ()
    document: dict[str, object] = {
        "id": view.job.id,
        "status": _STATUSES[status],
        "output": [
            {
                "url": renderer.link(picture),
                "width": picture.width_px,
                "height": picture.height_px,
                "contentType": picture.format.media_type,
            }
            for picture in made
        ],
        "error": None if problem is None else in_imarouters_words(problem.message),
        "usage": _usage(view),
    }
    adjusted = result.get("adjusted") or list(view.job.request.adjusted)
    return {**document, "adjusted": adjusted} if adjusted else document


def scaled_up(preset: Size, rule: SizeRule) -> Size:
    """The smallest size of the preset's ratio that the model's floor and step allow; the preset where it is one."""
    floor = rule.min_pixels or 0
    if preset.pixels >= floor:
        return preset
    common = math.gcd(*preset)
    wide, high = preset.width_px // common, preset.height_px // common
    step = rule.multiple_of_px
    unit = math.lcm(step // math.gcd(step, wide), step // math.gcd(step, high))
    times = math.isqrt(max(0, floor - 1) // (wide * high * unit * unit)) + 1
    return Size(wide * unit * times, high * unit * times)


def _accepted(submitted: Submitted) -> dict[str, object]:
    job = submitted.job
    document: dict[str, object] = {"id": job.id, "status": _STATUSES[status_of(job)]}
    return {**document, "adjusted": list(job.request.adjusted)} if job.request.adjusted else document


def _usage(view: JobView) -> dict[str, object] | None:
    """Cost in USD, and tokens where the vendor told; None before the end."""
    if not view.job.status.is_final:
        return None
    cost_micros = view.cost_micros
    document: dict[str, object] = {"cost": None if cost_micros is None else cost_micros / MICROS_PER_USD}
    tokens = (view.job.result or {}).get("usage")
    if isinstance(tokens, Mapping):
        document |= {
            "inputTokens": tokens["input_tokens"],
            "outputTokens": tokens["output_tokens"],
            "totalTokens": tokens["total_tokens"],
        }
    return document


def _sources(
    document: dict[str, Any], operation: Operation, limits: FormLimits
) -> tuple[tuple[Source, ...], Source | None]:
    """Take the inputs out of the body. Reads pictures for their digests, so not for the event loop."""
    if operation is Operation.GENERATION:
        foreign = next((name for name in _OF_EDITS if document.get(name) is not None), None)
        if foreign is not None:
            message = f"Unknown parameter: '{foreign}'. Pictures are edited at /v1/image/{{model}}/edit."
            raise UnknownParameter(message, param=foreign)
        return (), None
    given, mask = document.pop("imageUrls", None), document.pop("maskUrl", None)
    if not given:
        raise MissingParameter("Missing required parameter: 'imageUrls'.", param="imageUrls")
    if not isinstance(given, list):
        raise InvalidValue("Invalid type for 'imageUrls': expected an array of URLs.", param="imageUrls")
    most = limits.files - 1
    if len(given) > most:
        message = f"Too many images: at most {most} can be edited together, but got {len(given)}."
        raise InvalidValue(message, param="imageUrls")
    images = tuple(linked(item, f"imageUrls[{place}]") for place, item in enumerate(given))
    return images, None if mask is None else linked(mask, "maskUrl")


def _read(fields: Fields, model_name: str, operation: Operation, catalog: CurrentCatalog) -> ImageRequest:
    model = known_model(catalog.get(), model_name)
    size, adjusted = _size(fields, model.capabilities.sizes)
    wanted = ImageRequest(
        operation=operation,
        model=model.name,
        prompt=fields.required_text("prompt"),
        n=1 if (n := fields.integer("numImages")) is None else n,
        size=size,
        quality=fields.text("quality"),
        output_format=fields.text("outputFormat"),
        adjusted=adjusted,
    )
    unknown = next(iter(fields.rest()), None)
    if unknown is not None:
        raise UnknownParameter(f"Unknown parameter: '{unknown}'.", param=unknown)
    return wanted


def _size(fields: Fields, rule: SizeRule) -> tuple[str | None, tuple[str, ...]]:
    """The size asked for, and what was made of it against the client's words."""
    if fields.holds("imageSize") and isinstance(fields.rest()["imageSize"], Mapping):
        return _custom_size(fields.mapping("imageSize") or {}), ()
    name = fields.word("imageSize", (*PRESETS, "auto"))
    if name is None or name == "auto":
        return name, ()
    preset = PRESETS[name]
    size = scaled_up(preset, rule)
    if size == preset:
        return str(size), ()
    note = f"imageSize: {name} is {preset}, below the model's least number of pixels; scaled up to {size}"
    return str(size), (note,)


def _custom_size(given: Mapping[str, Json]) -> str:
    edges = Fields(given)
    width_px, height_px = edges.integer("width"), edges.integer("height")
    if width_px is None or height_px is None or width_px < 1 or height_px < 1 or edges.rest():
        message = "Invalid 'imageSize': expected a preset, 'auto', or an object with 'width' and 'height' in pixels."
        raise InvalidValue(message, param="imageSize")
    return str(Size(width_px, height_px))


def _documentation(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "parameters": JOB_HEADERS,
    }
