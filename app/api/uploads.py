"""`/v1/files`: pictures uploaded for later edits, and the list of all that a team has."""

import re
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.api import queries
from app.api.authentication import caller_of
from app.api.files import file_object
from app.api.forms import FormLimits, read_form
from app.api.schemas import BEARER, ERRORS, DeletedFile, FileList, FileObject, query
from app.assets.files import UPLOAD_LIFE, Files
from app.assets.inputs import Inputs, Taken
from app.assets.records import OUTPUT
from app.domain.errors import InvalidValue, MissingParameter, UnknownParameter

_PURPOSES: Final = ("vision", "user_data", "assistants")
_SHOWN_PURPOSES: Final = (*_PURPOSES, OUTPUT)
_ORDERS: Final = ("asc", "desc")
_LISTED_BY: Final = ("purpose", "limit", "order", "after")
_MAX_PAGE: Final = 10_000
"""OpenAI's own bound."""
_ANCHOR: Final = "expires_after[anchor]"
_LIFE: Final = "expires_after[seconds]"
_FORM: Final = ("purpose", _ANCHOR, _LIFE)
_SHORTEST_LIFE_S: Final = 3600
"""OpenAI's own bound."""
_LONGEST_LIFE_S: Final = int(UPLOAD_LIFE.total_seconds())
_SECONDS: Final = re.compile(r"[0-9]{1,9}")

_FILTERS: Final[dict[str, Any]] = {
    "parameters": [
        query(
            "purpose",
            f"Only files for this purpose; `{OUTPUT}` are those that jobs made.",
            {"type": "string", "enum": list(_SHOWN_PURPOSES)},
        ),
        query(
            "limit",
            "Files in one page.",
            {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE, "default": 20},
        ),
        query(
            "order",
            "By their date of creation.",
            {"type": "string", "enum": list(_ORDERS), "default": "desc"},
        ),
        query("after", "The last file of the page before.", {"type": "string", "minLength": 1}),
    ]
}
_DOCUMENTATION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "PNG, JPEG or WebP."},
                        "purpose": {"type": "string", "enum": list(_PURPOSES)},
                        _ANCHOR: {"type": "string", "enum": ["created_at"]},
                        _LIFE: {
                            "type": "integer",
                            "minimum": _SHORTEST_LIFE_S,
                            "maximum": _LONGEST_LIFE_S,
                            "default": _LONGEST_LIFE_S,
                            "description": "How long it is kept.",
                        },
                    },
                    "dependentRequired": {_ANCHOR: [_LIFE], _LIFE: [_ANCHOR]},
                }
            }
        },
    },
}


def router(files: Files, inputs: Inputs, limits: FormLimits) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(prefix="/v1/files", tags=["files"], dependencies=[BEARER], responses=ERRORS)

    @routes.post(
        "",
        summary="Upload a picture",
        openapi_extra=_DOCUMENTATION,
        responses={200: {"model": FileObject, "description": "The file; its id can stand in an edit."}},
    )
    async def upload(request: Request) -> Response:
        """Keep a picture for 30 days, or for as long as `expires_after` says, to be used as `file_id`."""
        team_id = caller_of(request).team_id
        with inputs.workspace() as folder:
            form = await read_form(request, folder, limits, file_fields=("file",))
            purpose, life = _purpose(form.fields), _life(form.fields)
            given = [file for file in form.files if file.name == "file"]
            if len(given) != 1 or len(form.files) != 1:
                raise MissingParameter("Missing required parameter: 'file', exactly one.", param="file")
            async with aclosing(_Kept(inputs, await inputs.take(given[0].path, param="file"))) as kept:
                asset = await files.upload(
                    kept.taken, team_id, filename=given[0].filename[:255], purpose=purpose, life=life
                )
                kept.is_owned = True
        return JSONResponse(file_object(asset))

    @routes.head("", include_in_schema=False)
    @routes.get(
        "",
        summary="List files",
        openapi_extra=_FILTERS,
        responses={200: {"model": FileList, "description": "Uploads and results."}},
    )
    async def search(request: Request) -> Response:
        """List the team's files, newest first unless `order` says otherwise."""
        queries.refuse_others(request, _LISTED_BY)
        found, has_more = await files.search(
            caller_of(request).team_id,
            purpose=queries.word(request, "purpose", _SHOWN_PURPOSES),
            after=request.query_params.get("after"),
            limit=queries.integer(request, "limit", default=20, low=1, high=_MAX_PAGE),
            oldest_first=queries.word(request, "order", _ORDERS) == "asc",
        )
        data = [file_object(asset) for asset in found]
        ends = (
            {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
            if data
            else {"first_id": None, "last_id": None}
        )
        return JSONResponse({"object": "list", "data": data, "has_more": has_more, **ends})

    @routes.delete(
        "/{file_id}",
        summary="Delete a file",
        responses={200: {"model": DeletedFile, "description": "It is gone."}},
    )
    async def delete(request: Request, file_id: str) -> Response:
        """Delete a file and its bytes."""
        await files.delete(file_id, caller_of(request).team_id)
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    return routes


class _Kept:
    """A picture in storage that is removed again unless a file was made of it."""

    def __init__(self, inputs: Inputs, taken: Taken) -> None:
        self._inputs = inputs
        self.taken = taken
        self.is_owned = False

    async def aclose(self) -> None:
        """Remove what nobody owns."""
        if not self.is_owned:
            await self._inputs.discard([self.taken])


def _purpose(fields: dict[str, str]) -> str:
    unknown = next((name for name in fields if name not in _FORM), None)
    if unknown is not None:
        raise UnknownParameter(f"Unknown parameter: '{unknown}'.", param=unknown)
    given = fields.get("purpose")
    if given is None:
        raise MissingParameter("Missing required parameter: 'purpose'.", param="purpose")
    if given not in _PURPOSES:
        choices = ", ".join(repr(word) for word in _PURPOSES)
        raise InvalidValue(f"Invalid value: {given!r}. Supported values are: {choices}.", param="purpose")
    return given


def _life(fields: dict[str, str]) -> timedelta:
    anchor, seconds = fields.get(_ANCHOR), fields.get(_LIFE)
    if anchor is None and seconds is None:
        return UPLOAD_LIFE
    for name, given in ((_ANCHOR, anchor), (_LIFE, seconds)):
        if given is None:
            raise MissingParameter(f"Missing required parameter: '{name}'.", param=name)
    if anchor != "created_at":
        raise InvalidValue(f"Invalid value: {anchor!r}. Supported values are: 'created_at'.", param=_ANCHOR)
    life_s = int(seconds) if seconds is not None and _SECONDS.fullmatch(seconds) else 0
    if not _SHORTEST_LIFE_S <= life_s <= _LONGEST_LIFE_S:
        message = (
            f"Invalid '{_LIFE}': expected an integer from {_SHORTEST_LIFE_S} to {_LONGEST_LIFE_S}, "
            f"but got {seconds!r}."
        )
        raise InvalidValue(message, param=_LIFE)
    return timedelta(seconds=life_s)
