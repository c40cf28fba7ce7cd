"""`/v1/files`: pictures uploaded for later edits, and the list of all that a team has."""

from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.api import queries
from app.api.authentication import caller_of
from app.api.files import file_object
from app.api.forms import FormLimits, read_form
from app.api.schemas import BEARER, ERRORS, DeletedFile, FileList, FileObject, query
from app.assets.files import Files
from app.assets.inputs import Inputs, Taken
from app.domain.errors import InvalidValue, MissingParameter, UnknownParameter

_PURPOSES: Final = ("vision", "user_data", "assistants")

_FILTERS: Final[dict[str, Any]] = {
    "parameters": [
        query("purpose", "Only files for this purpose.", {"type": "string", "enum": list(_PURPOSES)}),
        query(
            "limit", "Files in one page.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
        ),
        query("after", "The last file of the page before.", {"type": "string"}),
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
                    },
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
        """Keep a picture for 30 days, to be used as `file_id`."""
        team_id = caller_of(request).team_id
        with inputs.workspace() as folder:
            form = await read_form(request, folder, limits)
            purpose = _purpose(form.fields)
            given = [file for file in form.files if file.name == "file"]
            if len(given) != 1 or len(form.files) != 1:
                raise MissingParameter("Missing required parameter: 'file', exactly one.", param="file")
            async with aclosing(_Kept(inputs, await inputs.take(given[0].path, param="file"))) as kept:
                asset = await files.upload(
                    kept.taken, team_id, filename=given[0].filename[:255], purpose=purpose
                )
                kept.is_owned = True
        return JSONResponse(file_object(asset))

    @routes.get(
        "",
        summary="List files, newest first",
        openapi_extra=_FILTERS,
        responses={200: {"model": FileList, "description": "Uploads and results, newest first."}},
    )
    async def search(request: Request) -> Response:
        """List the team's files."""
        found, has_more = await files.search(
            caller_of(request).team_id,
            purpose=queries.word(request, "purpose", _PURPOSES),
            after=request.query_params.get("after"),
            limit=queries.integer(request, "limit", default=20, low=1, high=100),
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
    unknown = next((name for name in fields if name != "purpose"), None)
    if unknown is not None:
        raise UnknownParameter(f"Unknown parameter: '{unknown}'.", param=unknown)
    given = fields.get("purpose")
    if given is None:
        raise MissingParameter("Missing required parameter: 'purpose'.", param="purpose")
    if given not in _PURPOSES:
        choices = ", ".join(repr(word) for word in _PURPOSES)
        raise InvalidValue(f"Invalid value: {given!r}. Supported values are: {choices}.", param="purpose")
    return given
