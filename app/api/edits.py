"""`POST /v1/images/edits`: pictures made from pictures, handed in as a form, as links, as data URLs or as files."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Answers
from app.api.authentication import caller_of
from app.api.calls import fingerprint_of, read_options
from app.api.forms import Form, FormLimits, UploadedFile, field_of, place_of, read_form
from app.api.intake import Intake, Source, filed, linked, read_picture_json
from app.api.parameters import Fields, read_edit, typed_form
from app.api.retirement import announce
from app.api.schemas import (
    BEARER,
    CALL_PARAMETERS,
    ERRORS,
    EVENTS,
    AcceptedJob,
    EditForm,
    EditRequest,
    ImagesResponse,
    form_of,
    schema_of,
)
from app.assets.inputs import Inputs
from app.catalog.current import CurrentCatalog
from app.domain.errors import InvalidValue, MissingParameter
from app.jobs.service import JobService
from app.kit.json import Json

_PATH: Final = "/v1/images/edits"
_FILE_FIELDS: Final = ("image", "mask")

_DOCUMENTATION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schema_of(EditRequest)},
            "multipart/form-data": {"schema": form_of(EditForm)},
        },
    },
    "parameters": CALL_PARAMETERS,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An edit, its texts still to be read and its pictures still to be taken in."""

    document: Mapping[str, Json]
    images: tuple[Source, ...]
    mask: Source | None


def router(
    jobs: JobService, answers: Answers, inputs: Inputs, limits: FormLimits, catalog: CurrentCatalog
) -> APIRouter:
    """Build the endpoint."""
    routes = APIRouter(tags=["images"], dependencies=[BEARER])

    @routes.post(
        _PATH,
        summary="Edit pictures",
        openapi_extra=_DOCUMENTATION,
        responses={
            200: {"model": ImagesResponse, "content": EVENTS, "description": "The pictures."},
            202: {"model": AcceptedJob, "description": "The job, when the call is asynchronous."},
            **ERRORS,
        },
    )
    async def edit(request: Request) -> Response:
        """Make pictures from pictures and a prompt. The job survives a lost connection."""
        caller = caller_of(request)
        with inputs.workspace() as folder:
            wanted = await _read(request, folder, limits)
            fields = Fields(wanted.document)
            options = read_options(request, fields)
            fingerprint = fingerprint_of("POST", _PATH, _canonical(wanted))
            # The texts are checked before the first picture is fetched or decoded.
            texts = read_edit(Fields(fields.rest()), (), None)
            announce(request, catalog.get().model(texts.model))
            async with aclosing(Intake(inputs, caller.team_id, folder)) as intake:
                images, mask = await intake.take(wanted.images, wanted.mask)
                edited = read_edit(fields, images, mask)
                submitted = await intake.submit(jobs, options.submission(caller, edited, fingerprint))
        return answers.to_call(submitted, options)

    return routes


async def _read(request: Request, folder: Path, limits: FormLimits) -> Wanted:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        document = await read_picture_json(request, folder, limits)
        # Digests of pictures are worth a thread.
        return await asyncio.to_thread(read_edit_json, document, limits)
    form = await read_form(request, folder, limits, file_fields=_FILE_FIELDS, has_alternative=True)
    return _from_form(form, limits)


def _from_form(form: Form, limits: FormLimits) -> Wanted:
    # In the form's order, unless its names give places.
    ordered = sorted(form.files, key=lambda file: place_of(file.name))
    images = [_uploaded(file) for file in ordered if field_of(file.name) == "image"]
    masks = [_uploaded(file) for file in form.files if file.name == "mask"]
    strays = [file.name for file in form.files if field_of(file.name) != "image" and file.name != "mask"]
    if strays:
        raise InvalidValue(
            f"Unexpected file '{strays[0]}'. Files go into 'image' and 'mask'.", param=strays[0]
        )
    if len(masks) > 1:
        raise InvalidValue("Only one mask can be used.", param="mask")
    _check_count(images, "image", limits)
    return Wanted(typed_form(form.fields), tuple(images), masks[0] if masks else None)


def _uploaded(file: UploadedFile) -> Source:
    return Source(given=file, file_id=None, param=field_of(file.name), digest=file.sha256.hex())


def read_edit_json(document: dict[str, Any], limits: FormLimits) -> Wanted:
    """Take the pictures out of an edit's JSON body. Reads those that came in it, so not for the event loop.

    Raises:
        GatewayError: there is none, there are too many, or one is named in no way that exists.
    """
    given = document.pop("images", None)
    mask = document.pop("mask", None)
    if given is not None and not isinstance(given, list):
        raise InvalidValue("Invalid type for 'images': expected an array of objects.", param="images")
    images = [_reference(item, f"images[{place}]") for place, item in enumerate(given or [])]
    _check_count(images, "images", limits)
    return Wanted(document, tuple(images), None if mask is None else _reference(mask, "mask"))


def _reference(item: object, param: str) -> Source:
    # Null means not given here too: typed clients write out what they leave empty.
    given = (
        {name: value for name, value in item.items() if value is not None}
        if isinstance(item, Mapping)
        else {}
    )
    if len(given) != 1 or not set(given) <= {"image_url", "file_id"}:
        raise InvalidValue(
            f"Invalid '{param}': expected an object with exactly one of 'image_url' and 'file_id'.",
            param=param,
        )
    ((kind, value),) = given.items()
    if kind == "image_url":
        return linked(value, param)
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"Invalid '{param}.{kind}': expected a string.", param=param)
    return filed(value, param)


def _check_count(images: Sequence[Source], param: str, limits: FormLimits) -> None:
    most = limits.files - 1
    if not images:
        raise MissingParameter(f"Missing required parameter: '{param}'.", param=param)
    if len(images) > most:
        raise InvalidValue(
            f"Too many images: at most {most} can be edited together, but got {len(images)}.", param=param
        )


def _canonical(wanted: Wanted) -> dict[str, Json]:
    """The request with a digest in the place of each picture: their order matters, a form's boundary does not."""
    pictures: dict[str, Json] = {"image": [source.digest for source in wanted.images]}
    if wanted.mask is not None:
        pictures["mask"] = wanted.mask.digest
    return {**wanted.document, **pictures}
