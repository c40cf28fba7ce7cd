"""`/v1/files`: stored pictures, for their team by key and for everybody by signed link (reliability 4.7)."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response, StreamingResponse

from app.api.authentication import caller_of, is_signed_link
from app.api.errors import RangeNotSatisfiable
from app.api.schemas import BEARER, ERRORS, FileObject, header, query
from app.assets.files import Files
from app.assets.records import Asset
from app.assets.storage import Storage
from app.domain.pictures import PictureFormat

_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{0,15})|-([0-9]{1,15}))")
_ETAG: Final = re.compile(r'"[^"]*"')
_DOCUMENTATION: Final[dict[str, Any]] = {
    "parameters": [
        query("exp", "Of a signed link: until when it works, in Unix seconds.", {"type": "string"}),
        query("kid", "Of a signed link: which secret signed it.", {"type": "string"}),
        query(
            "sig", "Of a signed link: its signature. With these three, no key is wanted.", {"type": "string"}
        ),
        header("Range", "One range of bytes; several are answered with the whole file."),
        header("If-Range", "An ETag: the range counts only while it is the file's."),
        header("If-None-Match", "ETags, or `*`: 304 while one of them is the file's."),
    ]
}


def router(files: Files, storage: Storage) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(prefix="/v1/files", tags=["files"], dependencies=[BEARER], responses=ERRORS)

    @routes.head("/{file_id}", include_in_schema=False)
    @routes.get(
        "/{file_id}",
        summary="Look at a file",
        responses={200: {"model": FileObject, "description": "The file."}},
    )
    async def show(request: Request, file_id: str) -> Response:
        """Look at what is known of a file."""
        return JSONResponse(file_object(await files.find(file_id, caller_of(request).team_id)))

    @routes.head("/{file_id}/content", include_in_schema=False)
    @routes.get(
        "/{file_id}/content",
        summary="Download a file",
        openapi_extra=_DOCUMENTATION,
        responses={
            200: {"content": {"image/*": {}}, "description": "The picture."},
            206: {"content": {"image/*": {}}, "description": "The part of it that was asked for."},
        },
    )
    async def content(request: Request, file_id: str) -> Response:
        """Download a file, with a key or by a signed link."""
        if is_signed_link(request.scope):
            asset = await files.find_signed(file_id, request.query_params)
        else:
            asset = await files.find(file_id, caller_of(request).team_id)
        return await _download(request, asset, storage)

    return routes


def file_object(asset: Asset) -> dict[str, object]:
    """OpenAI's file object."""
    return {
        "id": asset.id,
        "object": "file",
        "bytes": asset.size_bytes,
        "created_at": int(asset.created_at.timestamp()),
        "expires_at": int(asset.expires_at.timestamp()),
        "filename": asset.filename,
        "purpose": asset.shown_purpose,
        "status": "processed",
    }


async def _download(request: Request, asset: Asset, storage: Storage) -> Response:
    headers = _headers(asset)
    if _is_known(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    size_bytes = await storage.size(asset.key)
    start, length = _asked_range(request, headers["etag"], size_bytes)
    is_part = length is not None
    if length is None:
        start, length = 0, size_bytes
    headers["content-length"] = str(length)
    if is_part:
        headers["content-range"] = f"bytes {start}-{start + length - 1}/{size_bytes}"
    status = 206 if is_part else 200
    media_type = asset.format.media_type
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    body = storage.open(asset.key, start=start, length=length)
    return StreamingResponse(body, status_code=status, headers=headers, media_type=media_type)


def _headers(asset: Asset) -> dict[str, str]:
    # A name of ours: what a client called its upload is never repeated in a header.
    name = f"{asset.id}{asset.format.suffix}"
    # A drawing may hold scripts, which must not run on this origin.
    disposition = "attachment" if asset.format is PictureFormat.SVG else "inline"
    kept_s = max(0, int((asset.expires_at - datetime.now(UTC)).total_seconds()))
    return {
        "accept-ranges": "bytes",
        # The bytes under an id never change.
        "etag": f'"{asset.id}"',
        "cache-control": f"private, max-age={kept_s}, immutable",
        "content-disposition": f'{disposition}; filename="{name}"',
        "content-security-policy": "default-src 'none'; sandbox",
        # Links are handed out to be put into other sites' pages.
        "cross-origin-resource-policy": "cross-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def _is_known(request: Request, etag: str) -> bool:
    """Whether the client has the file already: it names one ETag or several, which proxies that recode make weak."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in _ETAG.findall(given)


def _asked_range(request: Request, etag: str, size_bytes: int) -> tuple[int, int | None]:
    """The first byte and the number of bytes asked for; None for the whole file.

    One range only: several, or one of a form that we do not know, are answered with the whole file, as RFC 9110 allows.

    Raises:
        RangeNotSatisfiable: it begins beyond the end.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    # A part is defined for GET alone (RFC 9110, 14.2): HEAD is there to learn the whole size.
    if match is None or request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return 0, None
    if match[3] is not None:
        start, end = max(0, size_bytes - int(match[3])), size_bytes - 1
    else:
        start, end = int(match[1]), min(int(match[2] or size_bytes), size_bytes - 1)
    if start >= size_bytes:
        message = f"Invalid Range: the file has {size_bytes} bytes, and byte {start} is beyond its end."
        raise RangeNotSatisfiable(message, size_bytes=size_bytes)
    if end < start:
        return 0, None
    return start, end - start + 1
