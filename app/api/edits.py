"""`POST /v1/images/edits`: pictures made from pictures, handed in as a form, as links, as data URLs or as files."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.accounts.records import Caller
from app.api.answers import Answers
from app.api.authentication import caller_of
from app.api.bodies import check_framing, check_object
from app.api.calls import fingerprint_of, read_options
from app.api.errors import RequestTooLarge
from app.api.forms import Form, FormLimits, UploadedFile, read_form
from app.api.parameters import Fields, read_edit, typed_form
from app.api.schemas import BEARER, ERRORS, EVENTS, AcceptedJob, ImagesResponse
from app.assets.inputs import Inputs, Taken
from app.domain.errors import InvalidValue, MissingParameter
from app.jobs.service import JobService, Submitted
from app.kit.json import Json
from app.kit.spool import SpooledBytes, SpoolLimits, SpoolMalformed, SpoolOverflow, spool_json

_PATH: Final = "/v1/images/edits"
_IMAGE_FIELDS: Final = ("image", "image[]")
_DATA_URL_CHARS: Final = 20_971_520
"""OpenAI's limit of an `image_url`."""

_DOCUMENTATION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt", "model"],
                    "properties": {
                        "image": {
                            "description": "1 to 16 pictures, PNG, JPEG or WebP; also as `image[]`.",
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        },
                        "mask": {
                            "description": "A PNG with an alpha channel, of the first picture's size.",
                            "type": "string",
                            "format": "binary",
                        },
                        "prompt": {"type": "string"},
                        "model": {"type": "string", "examples": ["gpt-image-2"]},
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images", "prompt", "model"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 16,
                            "items": {
                                "type": "object",
                                "properties": {
                                    "image_url": {"type": "string"},
                                    "file_id": {"type": "string"},
                                },
                            },
                        },
                        "prompt": {"type": "string"},
                        "model": {"type": "string", "examples": ["gpt-image-2"]},
                    },
                }
            },
        },
    },
}


@dataclass(frozen=True, slots=True)
class _Source:
    """One input as the client handed it in."""

    given: UploadedFile | SpooledBytes | str
    """A file of the form, a data URL that is in a file already, or a URL."""
    file_id: str | None
    param: str
    digest: str
    """What stands for it in the fingerprint."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An edit, its texts still to be read and its pictures still to be taken in."""

    document: Mapping[str, Json]
    images: tuple[_Source, ...]
    mask: _Source | None


def router(jobs: JobService, answers: Answers, inputs: Inputs, limits: FormLimits) -> APIRouter:
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
            read_edit(Fields(fields.rest()), (), None)
            async with aclosing(_Intake(inputs, caller, folder)) as intake:
                images = [await intake.take(source) for source in wanted.images]
                mask = None if wanted.mask is None else await intake.take(wanted.mask)
                edited = read_edit(
                    fields,
                    tuple(item.as_input() for item in images),
                    None if mask is None else mask.as_input(),
                )
                submission = replace(options.submission(caller, edited, fingerprint), inputs=intake.pictures)
                submitted = await jobs.submit(submission)
                intake.settle(submitted)
        return answers.to_call(submitted, options)

    return routes


class _Intake:
    """The inputs of one request: in storage, and removed again unless a job takes them over."""

    def __init__(self, inputs: Inputs, caller: Caller, folder: Path) -> None:
        self._inputs = inputs
        self._caller = caller
        self._folder = folder
        self._taken: list[Taken] = []

    @property
    def pictures(self) -> tuple[Any, ...]:
        """What is in storage."""
        return tuple(item.picture for item in self._taken)

    async def take(self, source: _Source) -> Taken:
        """Take one input in."""
        if source.file_id is not None:
            taken = await self._inputs.take_file(
                source.file_id, self._caller.team_id, self._folder, param=source.param
            )
        elif isinstance(source.given, str):
            taken = await self._inputs.take_link(source.given, self._folder, param=source.param)
        else:
            taken = await self._inputs.take(source.given.path, param=source.param)
        self._taken.append(taken)
        return taken

    def settle(self, submitted: Submitted) -> None:
        """Leave the inputs to the job that was made of them."""
        if not submitted.is_replay:
            self._taken = []

    async def aclose(self) -> None:
        """Remove what no job took over."""
        await self._inputs.discard(self._taken)


async def _read(request: Request, folder: Path, limits: FormLimits) -> _Wanted:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        document = await _read_json(request, folder, limits)
        # Digests of pictures are worth a thread.
        return await asyncio.to_thread(_from_json, document, limits)
    return _from_form(await read_form(request, folder, limits), limits)


async def _read_json(request: Request, folder: Path, limits: FormLimits) -> dict[str, Any]:
    check_framing(request)
    # Base64 is a third longer than what it stands for.
    bounds = SpoolLimits(total_bytes=limits.total_bytes, blob_bytes=_DATA_URL_CHARS * 3 // 4)
    try:
        document: Any = await spool_json(request.stream(), folder, bounds)
    except SpoolOverflow as exc:
        raise RequestTooLarge(f"The request body is too large: {exc}.") from exc
    except SpoolMalformed as exc:
        raise InvalidValue(f"The request body is not valid JSON: {exc}.") from exc
    return check_object(document)


def _from_form(form: Form, limits: FormLimits) -> _Wanted:
    images = [_uploaded(file) for file in form.files if file.name in _IMAGE_FIELDS]
    masks = [_uploaded(file) for file in form.files if file.name == "mask"]
    strays = [file.name for file in form.files if file.name not in (*_IMAGE_FIELDS, "mask")]
    if strays:
        raise InvalidValue(
            f"Unexpected file '{strays[0]}'. Files go into 'image' and 'mask'.", param=strays[0]
        )
    if len(masks) > 1:
        raise InvalidValue("Only one mask can be used.", param="mask")
    _check_count(images, "image", limits)
    return _Wanted(typed_form(form.fields), tuple(images), masks[0] if masks else None)


def _uploaded(file: UploadedFile) -> _Source:
    return _Source(given=file, file_id=None, param=file.name.removesuffix("[]"), digest=file.sha256.hex())


def _from_json(document: dict[str, Any], limits: FormLimits) -> _Wanted:
    given = document.pop("images", None)
    mask = document.pop("mask", None)
    if given is not None and not isinstance(given, list):
        raise InvalidValue("Invalid type for 'images': expected an array of objects.", param="images")
    images = [_reference(item, f"images[{place}]") for place, item in enumerate(given or [])]
    _check_count(images, "images", limits)
    return _Wanted(document, tuple(images), None if mask is None else _reference(mask, "mask"))


def _reference(item: object, param: str) -> _Source:
    if not isinstance(item, Mapping) or len(item) != 1 or not set(item) <= {"image_url", "file_id"}:
        raise InvalidValue(
            f"Invalid '{param}': expected an object with exactly one of 'image_url' and 'file_id'.",
            param=param,
        )
    ((kind, value),) = item.items()
    if isinstance(value, SpooledBytes) and kind == "image_url":
        return _Source(given=value, file_id=None, param=param, digest=_digest(value.path))
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"Invalid '{param}.{kind}': expected a string.", param=param)
    return _Source(
        given=value, file_id=value if kind == "file_id" else None, param=param, digest=f"{kind}:{value}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_count(images: Sequence[_Source], param: str, limits: FormLimits) -> None:
    most = limits.files - 1
    if not images:
        raise MissingParameter(f"Missing required parameter: '{param}'.", param=param)
    if len(images) > most:
        raise InvalidValue(
            f"Too many images: at most {most} can be edited together, but got {len(images)}.", param=param
        )


def _canonical(wanted: _Wanted) -> dict[str, Json]:
    """The request with a digest in the place of each picture: their order matters, a form's boundary does not."""
    pictures: dict[str, Json] = {"image": [source.digest for source in wanted.images]}
    if wanted.mask is not None:
        pictures["mask"] = wanted.mask.digest
    return {**wanted.document, **pictures}
