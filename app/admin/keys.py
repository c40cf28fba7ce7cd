"""`/admin/v1/keys`: the keys of teams and of operators. A key's text is shown once, in the answer that makes it."""

from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.accounts.records import ApiKey, Role
from app.accounts.service import Accounts
from app.admin.audit import Audit
from app.admin.parameters import (
    CHECKED_ACT,
    read_document,
    read_fields,
    read_flag,
    read_limits,
    read_moment,
    read_name,
    read_page,
    refuse_rest,
)
from app.admin.rendering import key_document, listing, seconds
from app.admin.schemas import (
    ADMIN_BEARER,
    DRY_RUN,
    PAGE,
    KeyChange,
    KeyObject,
    NewKey,
    RevokedKey,
    Rotation,
    ShownKey,
    WouldRotate,
    answer,
    body,
)
from app.api.parameters import Fields
from app.api.schemas import ERRORS, query
from app.catalog.current import CurrentCatalog
from app.db.connection import Connection
from app.domain.errors import InvalidValue
from app.jobs.service import JobService
from app.kit.json import Json, JsonObject

_OVERLAP_S: Final = 86_400.0
"""How long a rotated key still works unless told otherwise: long enough to roll a change out on a working day."""
_OVERLAP_AT_MOST_S: Final = 604_800.0
_CANCEL_UNSENT: Final = query(
    "cancel_unsent", "Cancel its jobs that nobody was paid for yet.", {"type": "boolean", "default": True}
)
_FIELDS: Final = ("team_id", "name", "role", "limits", "expires_at")
_TOLD_AT_MOST: Final = 100
"""Jobs that one entry of the audit log names."""


def router(accounts: Accounts, jobs: JobService, catalog: CurrentCatalog, audit: Audit) -> APIRouter:
    """Build the endpoints."""
    routes = APIRouter(
        prefix="/admin/v1/keys",
        tags=["teams and keys"],
        dependencies=[ADMIN_BEARER, CHECKED_ACT],
        responses=ERRORS,
    )

    @routes.post(
        "",
        summary="Create a key",
        status_code=201,
        openapi_extra=body(NewKey),
        responses=answer(ShownKey, "The new key, with its text.", 201),
    )
    async def create(request: Request) -> Response:
        """Create a key, and show its text this once."""
        document = await read_document(request)
        expires_at = _expiry(document)
        fields = Fields(document)
        team_id = fields.required_text("team_id")
        name = read_name(fields.required_text("name"))
        role = Role(fields.word("role", tuple(item.value for item in Role)) or Role.TEAM)
        limits = read_limits(fields.mapping("limits") or {}, catalog.get())
        refuse_rest(fields, *_FIELDS)
        key, text = await accounts.create_key(
            team_id,
            name,
            limits={name: value for name, value in limits.items() if value is not None},
            expires_at=expires_at,
            role=role,
            witness=audit.witness(request, "key.created", subject=_id_of, render=key_document),
        )
        return JSONResponse({**key_document(key), "key": text}, status_code=201, headers=_SECRET)

    @routes.get(
        "",
        summary="List keys, newest first",
        openapi_extra={"parameters": [query("team_id", "Only keys of this team.", {"type": "string"}), *PAGE]},
        responses={200: {"description": "A page of keys."}},
    )  # fmt: skip
    async def search(request: Request) -> Response:
        """List keys, without their text."""
        after, limit = read_page(request)
        found, has_more = await accounts.list_keys(
            request.query_params.get("team_id"), after=after, limit=limit
        )
        return JSONResponse(listing(found, has_more, key_document))

    @routes.get("/{key_id}", summary="Look at a key", responses=answer(KeyObject, "The key."))
    async def show(_request: Request, key_id: str) -> Response:
        """Look at a key, without its text."""
        return JSONResponse(key_document(await accounts.find_key(key_id)))

    @routes.patch(
        "/{key_id}",
        summary="Rename a key, or change its limits or its expiry",
        openapi_extra=body(KeyChange),
        responses=answer(KeyObject, "The key as it is now."),
    )
    async def change(request: Request, key_id: str) -> Response:
        """Change a key: a limit that is null is lifted, one that is absent stays, and so does its expiry."""
        document = await read_document(request)
        # Null is an expiry too: none.
        expiry = {"expires_at": _expiry(document)} if "expires_at" in document else {}
        fields = Fields(document)
        name = fields.text("name")
        limits = fields.mapping("limits")
        refuse_rest(fields, "name", "limits", "expires_at")
        key = await accounts.change_key(
            key_id,
            name=None if name is None else read_name(name),
            limits=None if limits is None else read_limits(limits, catalog.get()),
            expiry=expiry,
            witness=audit.witness(request, "key.changed", subject=_id_of, render=key_document),
        )
        return JSONResponse(key_document(key))

    @routes.post(
        "/{key_id}/rotate",
        summary="Put a new key in the place of one",
        status_code=201,
        openapi_extra={**body(Rotation), "parameters": [DRY_RUN]},
        responses={
            **answer(WouldRotate, "With `dry_run`: the key, and what would become of it."),
            **answer(ShownKey, "The new key, with its text.", 201),
        },
    )
    async def rotate(request: Request, key_id: str) -> Response:
        """Make a key like this one, and let this one expire when the overlap is over."""
        fields = await read_fields(request)
        overlap_s = fields.number("overlap_s")
        refuse_rest(fields, "overlap_s")
        if overlap_s is None:
            overlap_s = _OVERLAP_S
        if not 0 <= overlap_s <= _OVERLAP_AT_MOST_S:
            message = f"Invalid 'overlap_s': expected seconds from 0 to {_OVERLAP_AT_MOST_S:g}, but got {overlap_s:g}."
            raise InvalidValue(message, param="overlap_s")
        if read_flag(request, "dry_run"):
            key, ends_at = await accounts.check_rotation(key_id, overlap_s=overlap_s)
            would: JsonObject = {"expires_at": seconds(ends_at)}
            return JSONResponse({**key_document(key), "dry_run": True, "would": would})
        witness = audit.witness(request, "key.rotated", subject=_id_of, render=key_document)
        old, key, text = await accounts.rotate_key(key_id, overlap_s=overlap_s, witness=witness)
        document = {**key_document(key), "key": text, "replaces": key_document(old)}
        return JSONResponse(document, status_code=201, headers=_SECRET)

    @routes.delete(
        "/{key_id}",
        summary="Revoke a key for good",
        openapi_extra={"parameters": [_CANCEL_UNSENT, DRY_RUN]},
        responses=answer(RevokedKey, "The revoked key."),
    )
    async def revoke(request: Request, key_id: str) -> Response:
        """Revoke a key: at once in this process, within 5 s in every other one.

        Its jobs that were not sent yet are cancelled unless told otherwise; those sent are finished and booked.
        """
        is_to_cancel = read_flag(request, "cancel_unsent", default=True)
        if read_flag(request, "dry_run"):
            key = await accounts.check_revocation(key_id)
            unsent = await jobs.unsent(key.team_id, key_id) if is_to_cancel else []
            would: JsonObject = {"revoke": key.revoked_at is None, "cancel_jobs": len(unsent)}
            return JSONResponse({**key_document(key), "dry_run": True, "would": would})

        async def witness(connection: Connection, before: ApiKey | None, after: ApiKey | None) -> None:
            if after is None:
                raise ValueError("a revoked key is still there")
            document = key_document(after)
            if is_to_cancel:
                ids = await jobs.unsent_in(connection, after.team_id, key_id)
                document["cancels_jobs"] = {"count": len(ids), "ids": list(ids[:_TOLD_AT_MOST])}
            await audit.write(
                connection,
                request,
                "key.revoked",
                key_id,
                before=None if before is None else key_document(before),
                after=document,
            )

        key = await accounts.revoke_key(key_id, witness=witness)
        cancelled = await jobs.cancel_unsent(key.team_id, key_id) if is_to_cancel else []
        return JSONResponse({**key_document(key), "cancelled_jobs": len(cancelled)})

    return routes


_SECRET: Final = {"cache-control": "no-store"}
"""No cache on the way keeps a key."""


def _expiry(document: dict[str, Json]) -> datetime | None:
    """Take the moment out at which a key is to expire.

    Raises:
        InvalidValue: it is none, or past.
    """
    given = document.pop("expires_at", None)
    expires_at = read_moment(given, "expires_at")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        message = (
            f"Invalid 'expires_at': {expires_at:%Y-%m-%dT%H:%M:%SZ} is past. Give a moment to come; a key that is to "
            "end now is revoked."
        )
        raise InvalidValue(message, param="expires_at")
    return expires_at


def _id_of(key: ApiKey) -> str:
    return key.id
